# The service in systemd-nspawn, each time in a throw-away root: what takes seconds, with the userspace data plane.
# What is in single quotes is for guests.
# shellcheck shell=bash disable=SC2016,SC2154

declare -A containers

# Says why systemd cannot run in containers here, or mounts what it takes: cgroup2 alone, in this mount namespace.
prepare_containers() {
  local cgroups=/sys/fs/cgroup
  [ ! -d $cgroups/unified ] || cgroups=$cgroups/unified
  [ -w "$cgroups/cgroup.procs" ] || fail "containers take a cgroup2 that root may write to, and $cgroups is none"
  [ -c /dev/net/tun ] || fail 'containers take /dev/net/tun'
  mkdir -p "$scratch/overlay" /run/systemd/nspawn
  # Roots are overlays, whose upper parts have to lie on another file system than such a one.
  mount -t tmpfs tmpfs "$scratch/overlay"
  mount -t tmpfs tmpfs /run/systemd/nspawn
  mkdir "$scratch/cgroups"
  if mount -t cgroup2 none "$scratch/cgroups" 2>/dev/null; then cgroups="$scratch/cgroups"; fi
  group="$cgroups/boot-$$"
  mkdir "$group" || fail "no group can be made in $cgroups"
}

# Boots container $1, number $2, from root $3; what follows is for systemd-nspawn.
start() {
  local name="$1" number="$2" root="$3" space="$hub-$1" over="$scratch/overlay/$1"
  shift 3
  ip netns add "$space"
  ip -n "$space" link set lo up
  ip -n "$hub" link add "veth$number" type veth peer name host0 netns "$space"
  ip -n "$hub" link set "veth$number" master bridge up
  ip -n "$space" addr add "10.99.0.$((20 + number))/24" dev host0
  ip -n "$space" link set host0 up
  mkdir -p "$over"/{upper,work,root} "$group/$name"
  mount -t overlay overlay -o "lowerdir=$root,upperdir=$over/upper,workdir=$over/work" "$over/root"
  make_pipes "$name" "$scratch/$name.talk"
  # Without the filter for bpf, rules about devices and addresses would not be in force, without anybody being told.
  unshare --mount --propagation private bash -c '
    echo $$ >"$1/cgroup.procs"
    umount -R /sys/fs/cgroup
    mount -t cgroup2 none /sys/fs/cgroup
    shift
    exec "$@"' bash "$group/$name" \
    systemd-nspawn --quiet --register=no --keep-unit --boot --console=pipe --directory="$over/root" --machine="$name" \
    --network-namespace-path="/run/netns/$space" --capability=CAP_NET_ADMIN --system-call-filter=bpf \
    --bind=/dev/net/tun --bind="$scratch/$name.talk:/talk" "$@" >"$scratch/$name.console" 2>&1 </dev/null &
  containers[$name]=$!
  listen "$name" 60
}

stop() {
  local space="$hub-$1" pid="${containers[$1]}" _
  echo 1 >"$group/$1/cgroup.kill"
  kill "$pid" 2>/dev/null || true
  wait "$pid" 2>/dev/null || true
  for _ in $(seq 100); do
    find "$group/$1" -depth -type d -exec rmdir {} + 2>/dev/null || true
    [ -d "$group/$1" ] || break
    sleep 0.05
  done
  ip netns del "$space"
  umount "$scratch/overlay/$1/root"
  unset "containers[$1]" "talk_in[$1]" "talk_out[$1]"
}

stop_containers() {
  local name
  for name in "${!containers[@]}"; do
    stop "$name" || true
  done
  [ -z "${group:-}" ] || rmdir "$group" || true
  umount -R "$scratch/cgroups" "$scratch/overlay" 2>/dev/null || true
}

containers() {
  prepare_containers
  image_in_containers
  install_on_a_running_machine
  stories
  recipes
  cloud_init
}

# A file that is there tells how it is: nothing of an identity is in the state folder.
saved() { ask "$1" 'find /var/lib/enroll-agent -type f'; }

restarted() {
  within "$1" 30 "p=\$(systemctl show --value -p MainPID enroll-agent); [ \$p != 0 ] && [ \$p != $2 ] &&
    agent status --check live"
}

# Two machines of an image: idle without a key, then a dropped key, and traffic.
image_in_containers() {
  local secret pid one two
  secret="$(new_key containers 2)"
  start red 1 "$scratch/root"
  start blue 2 "$scratch/root"
  for name in red blue; do
    within "$name" 30 'systemctl is-active -q enroll-agent.service enroll-agent-key.path && agent status --check live'
    same "what is saved on $name without a key" "$(saved "$name")" ''
    ! ask "$name" 'agent status' >/dev/null || fail "$name is enrolled without a key"
    same "units that failed on $name" "$(ask "$name" 'systemctl --failed --no-legend')" ''
  done
  say 'two containers of the image are up in no time: the service idles and has written nothing'

  for name in red blue; do
    must "$name" "umask 077; echo '$secret' >/etc/enroll-agent/enroll.key"
  done
  for name in red blue; do
    within "$name" 30 'agent status --check ready && ! test -e /etc/enroll-agent/enroll.key'
    same "how $name does WireGuard" "$(status "$name" '.memberships[0].backend')" userspace
  done
  differs 'the host' "$(status red '.memberships[0].host_id')" "$(status blue '.memberships[0].host_id')"
  one="$(address red)" two="$(address blue)"
  within red 30 "ping -n -c 1 -W 1 $two"
  say 'a dropped key is taken and removed at once, and they reach each other'

  pid="$(service red MainPID)"
  must red 'systemctl restart enroll-agent'
  restarted red "$pid"
  within red 30 "agent status --check ready && ping -n -c 1 -W 1 $two"
  pid="$(service red MainPID)"
  must red "kill -9 $pid"
  restarted red "$pid"
  within red 30 "agent status --check ready && ping -n -c 1 -W 1 $two"
  must red 'mkdir -p /run/systemd/system/enroll-agent.service.d
    printf "[Service]\nWatchdogSec=2s\n" >/run/systemd/system/enroll-agent.service.d/watchdog.conf
    systemctl daemon-reload; systemctl restart enroll-agent'
  pid="$(service red MainPID)"
  must red "kill -STOP $pid"
  restarted red "$pid"
  must red 'journalctl -u enroll-agent | grep -q "Watchdog timeout" && rm -r /run/systemd/system/enroll-agent.service.d'
  within red 30 "agent status --check ready && ping -n -c 1 -W 1 $two"
  within blue 30 "ping -n -c 1 -W 1 $one"
  say 'restart, kill -9 and the watchdog: the tunnel is back each time'
  purge red
  stop red
  stop blue
}

# The package comes to a machine that runs, is upgraded, and goes.
install_on_a_running_machine() {
  local secret started pid host
  secret="$(new_key installed 1)"
  start live 3 "$scratch/base" --bind-ro="$scratch/this.deb:/root/this.deb" --bind-ro="$scratch/next.deb:/root/next.deb"
  started=$SECONDS
  must live 'dpkg -i /root/this.deb'
  [ $((SECONDS - started)) -le 20 ] || fail "the package took $((SECONDS - started)) s to install"
  within live 10 'systemctl is-active -q enroll-agent.service enroll-agent-key.path && agent status --check live'
  same 'what is saved without a key' "$(saved live)" ''
  say 'installed on a running machine: the service idles, and its key is watched for'

  # By a key in the configuration, and SIGHUP.
  configure_live "$secret"
  pid="$(service live MainPID)"
  must live 'systemctl reload enroll-agent'
  within live 30 'agent status --check ready'
  same 'the process after a reload' "$(service live MainPID)" "$pid"
  host="$(status live '.memberships[0].host_id')"
  say 'a reload finds a key that was put into agent.toml'

  must live 'dpkg -i /root/next.deb'
  restarted live "$pid"
  within live 30 'agent status --check ready'
  same 'the host after the upgrade' "$(status live '.memberships[0].host_id')" "$host"
  must live 'grep -q ca_file /etc/enroll-agent/agent.toml'
  say 'upgraded: the same host, and the configuration as it was'
  purge live
  stop live
}

configure_live() {
  must live "base64 -d <<<'$(base64 -w 0 "$scratch/tls/ca.pem")' >/etc/enroll-agent/ca.pem
    cat >>/etc/enroll-agent/agent.toml <<'END'
ca_file = \"/etc/enroll-agent/ca.pem\"
key_file = \"/etc/enroll-agent/site.key\"
END
    umask 077; echo '$1' >/etc/enroll-agent/site.key; chown enroll-agent: /etc/enroll-agent/site.key"
}
