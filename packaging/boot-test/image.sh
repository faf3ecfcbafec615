# A Debian root with the package, and an image of it that was never started.
# shellcheck shell=bash disable=SC2154

# What a small machine has; no kernel, which would bring a boot loader and its own initial root.
includes=systemd,systemd-sysv,udev,dbus,iproute2,kmod,ca-certificates,iputils-ping,nftables,systemd-resolved
modules='wireguard virtio_net virtio_pci virtio-rng qemu_fw_cfg tun nf_tables nft_ct'

# Makes `$scratch/base`, which lacks the package, and `$scratch/root`, which has it and the server's certificate authority.
make_root() {
  local tree="$target/boot/rootfs.tar" mirror
  if [ ! -e "$tree" ]; then
    say "making a Debian root"
    mirror="${BOOT_TEST_SOURCES:-/etc/apt/sources.list.d/debian.sources}"
    [ -e "$mirror" ] || mirror=/etc/apt/sources.list
    mmdebstrap -q --mode=root --variant=minbase --include="$includes" --aptopt='Acquire::Languages "none"' \
      --dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
      --dpkgopt='path-exclude=/usr/share/doc/*' bookworm "$tree.part" "$mirror"
    mv "$tree.part" "$tree"
  fi
  mkdir "$scratch/base"
  tar -xf "$tree" -C "$scratch/base"
  furnish "$scratch/base"
  cp -a "$scratch/base" "$scratch/root"
  # As image builders do it: nothing is started, for want of a running systemd.
  cp "$deb" "$scratch/root/tmp/enroll-agent.deb"
  chroot "$scratch/root" dpkg -i /tmp/enroll-agent.deb >"$scratch/dpkg" 2>&1 || { cat "$scratch/dpkg" && fail 'the package'; }
  rm "$scratch/root/tmp/enroll-agent.deb"
  configure "$scratch/root"
  # A package of the next version, to upgrade to.
  dpkg-deb -R "$deb" "$scratch/next"
  sed -i 's/^Version: .*/&+next/' "$scratch/next/DEBIAN/control"
  dpkg-deb -Zgzip -z1 -b "$scratch/next" "$scratch/next.deb" >/dev/null
  cp "$deb" "$scratch/this.deb"
  chroot "$scratch/root" agent prepare-image --check || fail 'the image has something of an identity'
  say "a Debian root with $(basename "$deb"), without a key and without an identity"
}

# What the test puts into a root: its shell, a network without waiting, and the semantics of a factory image.
furnish() {
  local root="$1" unit
  install -D -m 755 "$here/guest" "$root/usr/local/lib/boot-test"
  cat >"$root/usr/lib/systemd/system/boot-test.service" <<'UNIT'
[Unit]
Description=Do what the test says
DefaultDependencies=no
After=basic.target dbus.service
[Service]
ExecStart=/usr/local/lib/boot-test
UNIT
  mkdir -p "$root/usr/lib/systemd/system/multi-user.target.wants"
  ln -sf ../boot-test.service "$root/usr/lib/systemd/system/multi-user.target.wants/"
  echo uninitialized >"$root/etc/machine-id"
  echo device >"$root/etc/hostname"
  : >"$root/etc/fstab"
  mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
  ln -sf /lib/systemd/system/systemd-networkd.service "$root/etc/systemd/system/multi-user.target.wants/"
  for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer \
    getty@tty1.service serial-getty@ttyS0.service systemd-firstboot.service systemd-networkd-wait-online.service; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
  done
}

configure() {
  install -D -m 644 "$scratch/tls/ca.pem" "$1/etc/enroll-agent/ca.pem"
  printf '\nca_file = "/etc/enroll-agent/ca.pem"\n' >>"$1/etc/enroll-agent/agent.toml"
}

# Makes the image `$scratch/image` of that root, with the modules of the kernel in `$target/kernel`.
make_image() {
  local kernel="$target/kernel" version module file
  "$here/../../.ci/debian-kernel" "$kernel"
  version="$(basename "$kernel"/lib/modules/*)"
  for module in $modules; do
    modprobe -d "$kernel" -S "$version" --show-depends --ignore-install "$module"
  done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | sort -u | while read -r file; do
    install -D -m 644 "$file" "$scratch/root${file#"$kernel"}"
  done
  cp "$kernel/lib/modules/$version"/modules.{builtin,builtin.modinfo,order} "$scratch/root/lib/modules/$version/"
  depmod -b "$scratch/root" "$version"
  cp "$scratch/next.deb" "$scratch/root/root/"
  mke2fs -q -t ext4 -O ^has_journal -E lazy_itable_init=1 -m 0 -d "$scratch/root" "$scratch/image" 800M
  say "an image of $(du -h --apparent-size "$scratch/image" | cut -f 1)"
}
