# Says what happens, and has guests do things.
# shellcheck shell=bash disable=SC2154

declare -A talk_in talk_out

say() {
  printf '%4d s  %s\n' "$SECONDS" "$*"
}

fail() {
  printf '%4d s  FAILED: %s\n' "$SECONDS" "$*" >&2
  exit 1
}

# Opens the two pipes of guest $1 and waits until its shell is there, at most $2 seconds.
listen() {
  local line
  read -r -t "$2" line <&"${talk_out[$1]}" || fail "$1 has not booted in $2 s"
  [ "$line" = ready ] || fail "$1 said '$line'"
}

make_pipes() {
  local name="$1" folder="$2" in out
  rm -rf "$folder"
  mkdir -p "$folder"
  mkfifo "$folder/talk.in" "$folder/talk.out"
  exec {in}<>"$folder/talk.in" {out}<>"$folder/talk.out"
  talk_in[$name]=$in
  talk_out[$name]=$out
}

# Runs script $2 in guest $1: its output, and its exit status.
ask() {
  local line
  base64 -w 0 <<<"$2" >&"${talk_in[$1]}"
  echo >&"${talk_in[$1]}"
  read -r -t 180 line <&"${talk_out[$1]}" || fail "$1 does not answer to: $2"
  base64 -d <<<"${line#* }" | sed '${/^$/d}'
  return "${line%% *}"
}

# The same where it has to end well; the output only if it does not.
must() {
  local output
  output="$(ask "$1" "$2")" || fail "on $1: $2"$'\n'"$output"
}

# Waits until script $3 ends well on guest $1, at most $2 seconds.
within() {
  must "$1" "end=\$((SECONDS + $2)); until { $3; } >/tmp/tried 2>&1; do
    if [ \$SECONDS -ge \$end ]; then cat /tmp/tried; exit 1; fi; sleep 0.2; done"
}

# Fails unless $2 is what $3 says; $1 names it.
same() {
  [ "$2" = "$3" ] || fail "$1 is '$2', not '$3'"
}

differs() {
  [ -n "$2" ] || fail "$1 is empty"
  [ "$2" != "$3" ] || fail "$1 is '$2' both times"
}

# What guests have to say after a failure.
tell_trouble() {
  local name
  for name in "${!talk_in[@]}"; do
    printf '\n== %s\n' "$name"
    [ ! -s "$scratch/$name.console" ] || tail -n 15 "$scratch/$name.console"
    base64 -w 0 <<<"journalctl -n 60 --no-pager -u 'enroll-agent*'; agent status; systemctl --failed --no-pager" >&"${talk_in[$name]}"
    echo >&"${talk_in[$name]}"
    ! read -r -t 20 line <&"${talk_out[$name]}" || base64 -d <<<"${line#* }"
  done
}
