# The README's stories and the recipes, as they are written.
# What is in single quotes is for guests.
# shellcheck shell=bash disable=SC2016,SC2154

stories() {
  local name number=4
  new_key stories 2 >"$scratch/key.txt"
  for name in 'One machine' 'A service'; do
    start "story$number" "$number" "$scratch/base" --bind-ro="$scratch/this.deb:/root/enroll-agent.deb" \
      --bind-ro="$scratch/key.txt:/root/secret"
    must "story$number" 'umask 077; cat /root/secret >/root/key.txt'
    must "story$number" "set -e; cd /root; $(story "$name")"
    must "story$number" 'agent status --check ready && ! test -e /etc/enroll-agent/enroll.key'
    stop "story$number"
    say "the README's story '$name' ends well"
    number=$((number + 1))
  done
}

# Boots a container of the image for a recipe: $1 names it, $2 is its number.
try() {
  local name="$1" number="$2"
  shift 2
  start "$name" "$number" "$scratch/root" --bind-ro="$here/../recipes:/recipes" --bind-ro="$scratch/key.txt:/root/key.txt" "$@"
}

# Systemd's credentials, and the boot partition.
recipes() {
  new_key recipes 4 >"$scratch/key.txt"
  chmod 600 "$scratch/key.txt"
  try manager 6 --load-credential="enroll-agent.key:$scratch/key.txt"
  within manager 30 'agent status --check ready'
  say 'a credential of the container manager is taken at the first start'
  stop manager

  try store 7
  must store 'sh /recipes/credentials/credstore.sh </root/key.txt'
  within store 30 'agent status --check ready'
  within store 10 'journalctl -u enroll-agent | grep -q "if the key is in /etc/credstore/enroll-agent.key, it stays"'
  stop store
  try sealed 8
  must sealed 'sh /recipes/credentials/encrypted.sh host </root/key.txt'
  within sealed 30 'agent status --check ready'
  within sealed 10 'journalctl -u enroll-agent | grep -q "if the key is in /etc/credstore.encrypted/enroll-agent.key, it stays"'
  stop sealed
  say "keys in systemd's stores are taken, plain and encrypted, and the log says that they stay"

  try card 9
  must card 'mkdir -p /boot/firmware; cp /root/key.txt /boot/firmware/enroll-agent.key
    cp /recipes/raspberry-pi/enroll-agent-boot.service /etc/systemd/system/
    systemctl enable enroll-agent-boot && systemctl start enroll-agent-boot'
  within card 30 'agent status --check ready && ! test -e /etc/enroll-agent/enroll.key'
  must card '! test -e /boot/firmware/enroll-agent.key'
  stop card
  say 'a key on the boot partition is taken, and removed there and everywhere'
}

# Cloud-init itself, with the user data of the recipe.
cloud_init() {
  local root="$scratch/cloud" seed
  unpack_root "$root" "$includes,cloud-init" cloud
  image_story "$root"
  cp -r "$here/../recipes/cloud-init" "$root/recipes"
  chroot "$root" cloud-init schema -c /recipes/user-data.yaml -c /recipes/vendor-data.yaml >"$scratch/schema" 2>&1 ||
    { cat "$scratch/schema" && fail 'the schema of cloud-init'; }
  seed="$root/var/lib/cloud/seed/nocloud"
  mkdir -p "$seed"
  echo 'instance-id: boot-test' >"$seed/meta-data"
  new_key cloud-init 1 >"$scratch/key.txt"
  (umask 077 && sed "s/ENROLLMENT-KEY/$(cat "$scratch/key.txt")/" "$here/../recipes/cloud-init/user-data.yaml" >"$seed/user-data")
  start cloud 10 "$root"
  within cloud 60 'agent status --check ready && ! test -e /etc/enroll-agent/enroll.key'
  must cloud 'test -e /var/lib/cloud/instance/user-data.txt'
  stop cloud
  say 'cloud-init has handed a key over at the first boot'
}
