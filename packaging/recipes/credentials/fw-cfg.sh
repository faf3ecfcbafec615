#!/bin/sh
# The same by QEMU's own channel, for machines without SMBIOS: fw-cfg.sh KEY-FILE DISK [ARGUMENT…]. systemd 252.
#
# Removed afterwards: nothing in the guest, where it is in memory alone; the file on the host is yours to remove.
# Leaks: in the guest root can read it, also below /sys/firmware/qemu_fw_cfg, as long as the machine lives.
set -eu
key="$1" disk="$2"
shift 2
exec qemu-system-x86_64 -fw_cfg "name=opt/io.systemd.credentials/enroll-agent.key,file=$key" \
  -drive "file=$disk,format=raw" "$@"
