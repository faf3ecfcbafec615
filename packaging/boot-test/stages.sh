# What machines have to stand.
# What is in single quotes is for guests.
# shellcheck shell=bash disable=SC2016,SC2154

# Both enroll by themselves, as different hosts, and reach each other.
first_boot() {
  local key="$1" value name other
  must two "umask 077; printf '%s\n' '$key' >/etc/enroll-agent/enroll.key"
  for name in one two; do
    within "$name" 120 'agent status --check ready'
    same "how $name does WireGuard" "$(status "$name" '.memberships[0].backend')" kernel
    must "$name" 'ip -d link show enroll0 | grep -q wireguard'
    same "who runs it on $name" "$(service "$name" User)" enroll-agent
  done
  differs 'the machine id' "$(ask one 'cat /etc/machine-id')" "$(ask two 'cat /etc/machine-id')"
  differs 'the host' "$(status one '.memberships[0].host_id')" "$(status two '.memberships[0].host_id')"
  differs 'the WireGuard key' "$(status one '.memberships[0].public_key')" "$(status two '.memberships[0].public_key')"
  same 'the hosts that the server has' "$(hosts | jq -r '[.[].name] | sort | join(" ")')" 'one two'
  say 'both have enrolled, as different hosts: one by a credential of its firmware, two by a dropped file'
  value="$(base64 -d <<<"$key" | jq -r .value)"
  within two 20 '! test -e /etc/enroll-agent/enroll.key'
  for name in one two; do
    same "what has the key on $name" \
      "$(ask "$name" "journalctl --sync; grep -rlFe '$key' -e '$value' /etc /run/log /var /tmp /root /home || true")" ''
  done
  say 'nothing of the key is on their disks or in their journals'
  overlay[one]="$(address one)"
  overlay[two]="$(address two)"
  for name in one two; do
    other="$([ "$name" = one ] && echo two || echo one)"
    within "$name" 60 "ping -n -c 1 -W 1 ${overlay[$other]}"
  done
  say "they reach each other through the kernel's tunnel, ${overlay[one]} and ${overlay[two]}"
}

declare -A overlay
address() {
  ask "$1" 'ip -4 -o addr show enroll0' | sed -n 's/.* inet \([0-9.]*\).*/\1/p'
}

# What befalls the service on two, while one pings it.
service_changes() {
  local before pid version
  before="$(tunnel two)"

  pid="$(service two MainPID)"
  version="$(ask two 'dpkg-query -W -f "\${Version}" enroll-agent')"
  ping_in_background one "${overlay[two]}"
  must two 'dpkg -i /root/next.deb'
  same 'the version after the upgrade' "$(ask two 'dpkg-query -W -f "\${Version}" enroll-agent')" "$version+next"
  differs 'the process' "$(service two MainPID)" "$pid"
  within two 60 'agent status --check ready'
  must two 'grep -q ca.pem /etc/enroll-agent/agent.toml'
  no_ping_lost one 'an upgrade under a running ping'
  same 'the tunnel after the upgrade' "$(tunnel two)" "$before"

  pid="$(service two MainPID)"
  ping_in_background one "${overlay[two]}"
  must two "kill -9 $pid"
  within two 30 "[ \"\$(systemctl show --value -p MainPID enroll-agent)\" != $pid ] && agent status --check ready"
  no_ping_lost one 'kill -9 under a running ping'
  same 'the tunnel after kill -9' "$(tunnel two)" "$before"

  must two 'mkdir -p /run/systemd/system/enroll-agent.service.d
    printf "[Service]\nWatchdogSec=5s\n" >/run/systemd/system/enroll-agent.service.d/watchdog.conf
    systemctl daemon-reload; systemctl restart enroll-agent'
  pid="$(service two MainPID)"
  ping_in_background one "${overlay[two]}"
  must two "kill -STOP $pid"
  within two 60 "[ \"\$(systemctl show --value -p MainPID enroll-agent)\" != $pid ] && agent status --check ready"
  must two 'journalctl -u enroll-agent | grep -q "Watchdog timeout" && rm -r /run/systemd/system/enroll-agent.service.d'
  no_ping_lost one 'a service that hangs, and its watchdog, under a running ping'
  same 'the tunnel after the watchdog' "$(tunnel two)" "$before"
}

# Machines that start without the server are where they were.
without_server() {
  local name before_one before_two
  before_one="$(status one '.memberships[0].host_id')"
  before_two="$(status two '.memberships[0].host_id')"
  stop_server
  reboot_machines
  boot one 1
  boot two 2
  for name in one two; do
    listen "$name" 180
    within "$name" 60 'ip -br addr show enroll0 | grep -q 10.202'
  done
  same 'the host of one' "$(status one '.memberships[0].host_id')" "$before_one"
  same 'the host of two' "$(status two '.memberships[0].host_id')" "$before_two"
  within one 60 "ping -n -c 1 -W 1 ${overlay[two]}"
  within two 60 "ping -n -c 1 -W 1 ${overlay[one]}"
  say 'they have started again without the server, and reach each other'
  start_server
  within one 120 'agent sync'
  say 'the server is back, and known again'
}

# A purge on $1 leaves nothing of it.
purge() {
  local left
  must "$1" 'dpkg --remove enroll-agent'
  must "$1" '! ip link show enroll0 2>/dev/null && test -d /var/lib/enroll-agent && test -e /etc/enroll-agent/agent.toml'
  say "removed from $1: the interface is down, configuration and state are there"
  must "$1" 'dpkg --purge enroll-agent'
  left="$(ask "$1" 'find / -xdev -path /var/log/journal -prune -o \( -name "*enroll-agent*" -o -name "enroll.key" \) -print
    ls -d /run/enroll-agent* /usr/bin/agent 2>/dev/null
    find /run/systemd/system /run/systemd/units -name "*enroll*"
    systemctl list-unit-files --no-legend "enroll-agent*"
    systemctl list-units --all --no-legend "enroll-agent*"
    ip -br link | grep -i enroll
    ip route show table all proto 231
    ip rule | grep -i "proto 231"
    ! command -v nft >/dev/null || nft list tables | grep enroll
    true')"
  same "what is left on $1" "$left" ''
  say "purged from $1: nothing is left"
}
