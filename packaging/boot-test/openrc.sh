# The service under OpenRC, in a root without systemd: no boot, but the same service manager.
# What is in single quotes is for that root.
# shellcheck shell=bash disable=SC2016,SC2154

openrc() {
  local root="$scratch/openrc" space="$hub-openrc"
  unpack_root "$root" openrc,iproute2,iputils-ping,ca-certificates openrc
  dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$root" ./usr/bin/agent
  mkdir -p "$root/etc/enroll-agent"
  install -m 755 "$here/../recipes/openrc/enroll-agent.initd" "$root/etc/init.d/enroll-agent"
  (umask 077 && new_key openrc 1 >"$root/root/key.txt")
  ip netns add "$space"
  ip -n "$space" link set lo up
  ip -n "$hub" link add veth19 type veth peer name host0 netns "$space"
  ip -n "$hub" link set veth19 master bridge up
  ip -n "$space" addr add 10.99.0.39/24 dev host0
  ip -n "$space" link set host0 up
  # The shell in the root is the first process, and reaps what has no parent any more.
  timeout 120 ip netns exec "$space" unshare --mount --pid --fork --kill-child --propagation private bash -euc '
    mount --rbind /dev "$1/dev"
    mount -t proc proc "$1/proc"
    mount -t sysfs sys "$1/sys"
    mount -t tmpfs tmpfs "$1/run"
    exec chroot "$1" /bin/bash -s' bash "$root" >"$scratch/openrc.console" 2>&1 <<'SCRIPT' ||
# OpenRC believes that it has booted the machine.
mkdir -p /run/openrc/{coldplugged,daemons,exclusive,failed,hotplugged,inactive,options,scheduled,started,starting,stopping,tmp,wasinactive}
touch /run/openrc/softlevel
within() {
  local end=$((SECONDS + $1))
  until eval "$2" >/tmp/tried 2>&1; do
    if [ $SECONDS -ge $end ]; then echo "not so: $2"; cat /tmp/tried; exit 1; fi
    sleep 0.2
  done
}
set -e
rc-update add enroll-agent default
rc-service enroll-agent start
within 20 'agent status --check live'
[ -z "$(find /var/lib/enroll-agent -type f)" ] || { echo 'something is saved without a key'; exit 1; }
install -m 600 /root/key.txt /etc/enroll-agent/enroll.key
within 30 'agent status --check ready && ! test -e /etc/enroll-agent/enroll.key'
rc-service enroll-agent reload
rc-service enroll-agent status
rc-service enroll-agent restart
within 30 'agent status --check ready'
# Its supervisor starts it again.
pid="$(agent status --json | sed -n 's/.*"pid": *\([0-9]*\).*/\1/p')"
kill -9 "$pid"
within 30 'agent status --check ready'
rc-service enroll-agent stop
within 20 '! agent status --check live'
ip -br link | grep enroll && { echo 'the interface is left'; exit 1; }
echo 'all of it'
SCRIPT
    { cat "$scratch/openrc.console" && fail 'OpenRC'; }
  grep -qx 'all of it' "$scratch/openrc.console" || { cat "$scratch/openrc.console" && fail 'OpenRC did not get to the end'; }
  say 'the service under OpenRC: started, enrolled by a dropped key, reloaded, restarted, killed, stopped'
}
