# Two machines of one image in QEMU, with the kernel's WireGuard.
# What is in single quotes is for guests.
# shellcheck shell=bash disable=SC2016,SC2154

declare -A machines

stop_machines() {
  local name
  for name in "${!machines[@]}"; do
    kill "${machines[$name]}" 2>/dev/null || true
  done
}

# Boots the disk of $1, number $2; what follows is for QEMU.
boot() {
  local name="$1" number="$2" tap="tap$2"
  shift 2
  make_pipes "$name" "$scratch/$name.talk"
  if ! ip -n "$hub" link show "$tap" >/dev/null 2>&1; then
    ip -n "$hub" tuntap add "$tap" mode tap
    ip -n "$hub" link set "$tap" master bridge up
  fi
  # NVMe and ext4 are in the kernel, so there is no initial root. TCG is asked for because a /dev/kvm may be of no use.
  timeout 900 ip netns exec "$hub" qemu-system-x86_64 -M q35,usb=off,vmport=off -accel tcg,thread=multi -cpu max \
    -smp 1 -m 512 -nodefaults -no-user-config -display none -no-reboot -kernel "$target/kernel/vmlinuz" \
    -append "root=/dev/nvme0n1 rw console=ttyS0 quiet loglevel=4 mitigations=off tsc=reliable no_timer_check
 random.trust_cpu=on systemd.log_color=0 audit=0 apparmor=0 systemd.hostname=$name
 ip=10.99.0.1$number::$at:255.255.255.0::enp0s2:none" \
    -uuid "7d3a1c5e-0000-4000-8000-00000000000$number" \
    -drive "file=$scratch/$name.disk,format=raw,if=none,id=d0,cache=unsafe" -device nvme,drive=d0,serial=d0 \
    -serial "file:$scratch/$name.console" -chardev "pipe,id=talk,path=$scratch/$name.talk/talk" -serial chardev:talk \
    -device virtio-rng-pci,addr=0x3 -netdev "tap,id=n0,ifname=$tap,script=no,downscript=no" \
    -device "virtio-net-pci,netdev=n0,mac=52:54:00:00:00:0$number,romfile=,addr=0x2" "$@" &
  machines[$name]=$!
}

reboot_machines() {
  local name
  for name in one two; do
    ask "$name" 'systemctl --no-block reboot' || true
  done
  for name in one two; do
    wait "${machines[$name]}" || fail "$name did not reboot"
  done
}

# One value of a machine's status; of the service, by systemd.
status() { ask "$1" 'agent status --json' | jq -er "$2"; }
service() { ask "$1" "systemctl show --value -p $2 enroll-agent"; }

# What must not change while the service does.
tunnel() {
  ask "$1" 'cat /sys/class/net/enroll0/ifindex; ip -br addr show enroll0; ip route show proto 231'
}

# Prints how many packets were lost between $1 and the other one while commands ran, and how many there were.
ping_in_background() {
  must "$1" "systemctl reset-failed pinging 2>/dev/null; rm -f /tmp/pinging
    systemd-run -q --unit pinging -p StandardOutput=file:/tmp/pinging ping -n -i 0.1 $2"
  within "$1" 20 'grep -q icmp_seq=5 /tmp/pinging'
}

# $2 says what happened while it ran.
no_ping_lost() {
  local summary
  must "$1" 'n=$(wc -l </tmp/pinging); until [ $(wc -l </tmp/pinging) -gt $((n + 10)) ]; do sleep 0.1; done
    systemctl kill -s INT pinging; until grep -q transmitted /tmp/pinging; do sleep 0.1; done'
  summary="$(ask "$1" 'grep transmitted /tmp/pinging')"
  case "$summary" in
    *' 0% packet loss'*) say "$2: $summary" ;;
    *) fail "$2: $summary" ;;
  esac
}

machines() {
  local secret
  start_anew
  make_image
  cp --sparse=always "$scratch/image" "$scratch/one.disk"
  cp --sparse=always "$scratch/image" "$scratch/two.disk"
  secret="$(new_key machines 2)"
  # QEMU takes it from a file, so that it is in nobody's list of processes.
  (umask 077 && printf 'io.systemd.credential:enroll-agent.key=%s' "$secret" >"$scratch/smbios")
  boot one 1 -smbios "type=11,path=$scratch/smbios"
  boot two 2
  listen one 180
  listen two 180
  say 'two machines have booted from the same image'
  first_boot "$secret"
  service_changes
  without_server
  purge two
}
