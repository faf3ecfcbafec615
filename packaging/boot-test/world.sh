# A network namespace with a bridge, the bundled server on it, and guests beside it.
# shellcheck shell=bash disable=SC2154

hub="boot-$$"
at=10.99.0.1
server=

start_world() {
  ip netns add "$hub"
  ip -n "$hub" link set lo up
  ip -n "$hub" link add bridge type bridge
  ip -n "$hub" addr add "$at/24" dev bridge
  ip -n "$hub" link set bridge up
  start_server
  say "the server runs on $at"
}

# Its state is kept, so that one that was stopped goes on.
start_server() {
  ip netns exec "$hub" "$target/debug/mock-server" serve --listen "$at:8443" --broker-listen "$at:8883" \
    --store "$scratch/server.db" --tls-dir "$scratch/tls" --network office=10.202.0.0/24 --endpoint-detection >>"$scratch/server.log" 2>&1 &
  server=$!
  local _
  for _ in $(seq 100); do
    [ ! -e "$scratch/tls/master.key" ] || ! hosts >/dev/null 2>&1 || return 0
    kill -0 "$server" 2>/dev/null || break
    sleep 0.1
  done
  cat "$scratch/server.log"
  fail 'the server did not start'
}

stop_server() {
  kill "$server" 2>/dev/null || true
  wait "$server" 2>/dev/null || true
  server=
}

# A server that knows nobody, with the same certificate authority.
start_anew() {
  stop_server
  rm -f "$scratch"/server.db*
  start_server
}

stop_world() {
  [ -z "$server" ] || stop_server
  local name
  for name in $(ip netns list 2>/dev/null | sed -n "s/^\(${hub}[^ ]*\).*/\1/p"); do
    ip netns del "$name"
  done
}

# Prints a new key for $2 hosts; $1 names it.
new_key() {
  ip netns exec "$hub" "$target/debug/mock-server" key create --url "https://$at:8443" --ca-file "$scratch/tls/ca.pem" \
    --master-key-file "$scratch/tls/master.key" --network office --uses "$2" "$1" | jq -r .token
}

# Prints what the server knows of its hosts.
hosts() {
  ip netns exec "$hub" curl -sf --max-time 5 --cacert "$scratch/tls/ca.pem" \
    -H "Authorization: Bearer $(cat "$scratch/tls/master.key")" "https://$at:8443/api/hosts"
}
