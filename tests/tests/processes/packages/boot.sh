#!/bin/sh
# Boots the machine at $1, in namespaces of its own: systemd is process 1, starts nothing but the script /check.sh, and ends as that
# does. What the script says is in /said.
set -eu
cd "$1"
mount -t proc proc proc
# Read-only: here is no device to be set up, and no setting of the kernel to be made.
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
rm -rf etc/systemd/system/*.wants usr/lib/systemd/system/sysinit.target.wants
: >etc/fstab
cat >etc/systemd/system/check.service <<'UNIT'
[Unit]
SuccessAction=exit
FailureAction=exit

[Service]
Type=oneshot
ExecStart=/bin/sh -eux /check.sh
StandardOutput=file:/said
StandardError=inherit
UNIT
mkdir old
pivot_root . old
umount --lazy old
exec env -i container=test PATH="$PATH" /lib/systemd/systemd --unit=check.service --show-status=0
