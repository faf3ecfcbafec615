# For a layer of yours, beside enroll-agent-crates.inc (`bitbake -c update_crates enroll-agent`). With a read-only root,
# /var/lib/enroll-agent has to be on the data partition.
#
# Removed afterwards: /etc/enroll-agent/enroll.key, by the agent, once the server has taken the key; the line that flashes
#   devices writes it, and /etc/enroll-agent has to be writable then.
# Leaks: nothing, as long as the key is not in the image: one there is in every device's flash, and in the build folder.
SUMMARY = "Enrolls a device into WireGuard networks with one key, and keeps it there"
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://LICENSE;md5=3b83ef96387f14655fc854ddc3c6bd57"

SRC_URI = "file://enroll-agent-0.1.0.tar.gz"
require enroll-agent-crates.inc

inherit cargo cargo-update-recipe-crates systemd useradd

RDEPENDS:${PN} = "ca-certificates"
RRECOMMENDS:${PN} = "kernel-module-wireguard nftables"

USERADD_PACKAGES = "${PN}"
USERADD_PARAM:${PN} = "--system --user-group --no-create-home --shell /sbin/nologin enroll-agent"
SYSTEMD_AUTO_ENABLE = "enable"
SYSTEMD_SERVICE:${PN} = "enroll-agent.service enroll-agent-key.path enroll-agent-key.service"

do_install:append() {
    install -d ${D}${systemd_system_unitdir} ${D}${sysconfdir}/enroll-agent ${D}${nonarch_libdir}/tmpfiles.d
    install -m 0644 ${S}/systemd/*.service ${S}/systemd/*.path ${S}/systemd/*.target ${D}${systemd_system_unitdir}/
    install -m 0644 ${S}/systemd/enroll-agent.tmpfiles ${D}${nonarch_libdir}/tmpfiles.d/enroll-agent.conf
    install -m 0644 ${S}/packaging/agent.toml ${D}${sysconfdir}/enroll-agent/agent.toml
}
