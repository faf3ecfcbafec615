# A Debian root with the package, and an image of it that was never started.
# shellcheck shell=bash disable=SC2154

# What a small machine has; no kernel, which would bring a boot loader and its own initial root.
includes=systemd,systemd-sysv,udev,dbus,iproute2,kmod,ca-certificates,iputils-ping,nftables,systemd-resolved
modules='wireguard virtio_net virtio_pci virtio-rng qemu_fw_cfg tun nf_tables nft_ct'

# Unpacks a Debian root with packages $2 at $1; made once, as `$3` below the target folder.
unpack_root() {
  local tree="$target/boot/$3.tar" sources="${BOOT_TEST_SOURCES:-/etc/apt/sources.list.d/debian.sources}"
  if [ ! -e "$tree" ]; then
    say "making a Debian root with $2"
    [ -e "$sources" ] || sources=/etc/apt/sources.list
    mmdebstrap -q --mode=root --variant=minbase --include="$2" --aptopt='Acquire::Languages "none"' \
      --aptopt='APT::Install-Recommends "false"' --dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/man/*' \
      --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/doc/*' --format=tar \
      bookworm "$tree.part" "$sources"
    mv "$tree.part" "$tree"
  fi
  mkdir "$1"
  tar -xf "$tree" -C "$1"
  furnish "$1"
}

# Makes `$scratch/base`, which lacks the package, and `$scratch/root`, which has it and the server's certificate authority.
make_root() {
  unpack_root "$scratch/base" "$includes" rootfs
  cp "$deb" "$scratch/this.deb"
  # A package of the next version, to upgrade to.
  dpkg-deb -R "$deb" "$scratch/next"
  sed -i 's/^Version: .*/&+next/' "$scratch/next/DEBIAN/control"
  dpkg-deb -Zgzip -z1 -b "$scratch/next" "$scratch/next.deb" >/dev/null
  cp -a "$scratch/base" "$scratch/root"
  image_story "$scratch/root"
  say "a Debian root with $(basename "$deb"), without a key and without an identity"
}

# Does what the README says about images in root $1, as image builders do it: nothing is started, for want of a systemd.
image_story() {
  cp "$scratch/this.deb" "$1/enroll-agent.deb"
  chroot "$1" sh -euc "$(story 'An image')" >"$scratch/story" 2>&1 || { cat "$scratch/story" && fail 'the story of an image'; }
  rm "$1/enroll-agent.deb"
  configure "$1"
}

# Prints the commands of one of the README's stories.
story() {
  local commands
  commands="$(sed -n "/^### $1\$/,/^\`\`\`\$/s/^# //p" "$here/../../README.md" | sed 's/^apt install/& -y/')"
  [ -n "$commands" ] || fail "the README has no story '$1'"
  echo "$commands"
}

# What the test puts into a root: its shell, a network without waiting, and the semantics of a factory image.
furnish() {
  local root="$1" unit
  install -D -m 755 "$here/guest" "$root/usr/local/lib/boot-test"
  mkdir -p "$root/usr/lib/systemd/system/multi-user.target.wants"
  cat >"$root/usr/lib/systemd/system/boot-test.service" <<'UNIT'
[Unit]
Description=Do what the test says
DefaultDependencies=no
After=basic.target dbus.service
[Service]
ExecStart=/usr/local/lib/boot-test
UNIT
  ln -sf ../boot-test.service "$root/usr/lib/systemd/system/multi-user.target.wants/"
  # The server is trusted by the system, as one with a public certificate would be.
  cp "$scratch/tls/ca.pem" "$root/usr/local/share/ca-certificates/boot-test.crt"
  chroot "$root" update-ca-certificates >"$scratch/certificates" 2>&1 || { cat "$scratch/certificates" && fail 'certificates'; }
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
  mke2fs -q -t ext4 -O ^has_journal -E lazy_itable_init=1 -m 0 -d "$scratch/root" "$scratch/image" 800M >"$scratch/mke2fs"
  say "an image of $(du -h --apparent-size "$scratch/image" | cut -f 1)"
}
