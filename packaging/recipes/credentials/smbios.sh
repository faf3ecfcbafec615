#!/bin/sh
# A virtual machine gets the key by its firmware: smbios.sh KEY-FILE DISK [ARGUMENT…], the last for QEMU. systemd 252.
#
# Removed afterwards: nothing in the guest, where it is in memory alone; the file on the host is yours to remove.
# Leaks: QEMU takes it from the file, so the host's process list has the file's name. In the guest root can read it as
#   long as the machine lives. `value=` instead of `path=` would show it to every user of the host.
set -eu
key="$1" disk="$2"
shift 2
settings="$(mktemp)"
trap 'rm -f "$settings"' EXIT
printf 'io.systemd.credential:enroll-agent.key=%s' "$(cat "$key")" >"$settings"
qemu-system-x86_64 -smbios "type=11,path=$settings" -drive "file=$disk,format=raw" "$@"
