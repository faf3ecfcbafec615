#!/bin/sh
# A key in systemd's store, from standard input: credstore.sh <KEY-FILE, as root. systemd 250.
#
# Removed afterwards: by you (`rm /etc/credstore/enroll-agent.key`); the service is not root and says in its log that the
#   key stays. A key in /etc/enroll-agent/enroll.key is removed by itself.
# Leaks: the file is root's, and a copy in memory the service's while it runs. Images and backups of the disk have it.
set -eu
umask 077
mkdir -p /etc/credstore
cat >/etc/credstore/enroll-agent.key
systemctl restart enroll-agent
