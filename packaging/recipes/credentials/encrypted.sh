#!/bin/sh
# The same, encrypted for this machine: encrypted.sh [host|host+tpm2|tpm2] <KEY-FILE, as root. systemd 250.
#
# The unit of the package has no LoadCredentialEncrypted=, since the service would not start then with a key that is not
# encrypted; hence the drop-in. From systemd 254 on, import.conf takes both.
#
# Removed afterwards: by you, both files (`rm -r /etc/credstore.encrypted/enroll-agent.key
#   /etc/systemd/system/enroll-agent.service.d/key.conf`); the service is not root and says in its log that the key stays.
# Leaks: with `host` a copy of the whole disk has what decrypts it; with `tpm2` the service does not start on another
#   machine, which also holds for a moved disk.
set -eu
umask 077
mkdir -p /etc/credstore.encrypted
systemd-creds encrypt --with-key="${1:-host}" --name=enroll-agent.key - /etc/credstore.encrypted/enroll-agent.key
umask 022
mkdir -p /etc/systemd/system/enroll-agent.service.d
cat >/etc/systemd/system/enroll-agent.service.d/key.conf <<'END'
[Service]
LoadCredentialEncrypted=enroll-agent.key:/etc/credstore.encrypted/enroll-agent.key
END
systemctl daemon-reload
systemctl restart enroll-agent
