#!/bin/sh
# Boots the machine at $1 in namespaces of its own and in the cgroup at $2: systemd is process 1, starts nothing but the script
# /check.sh, and ends as that does. What the script and the services say is in /said.
set -eu
cd "$1"
rm -rf etc/systemd/system/*.wants usr/lib/systemd/system/sysinit.target.wants
: >etc/fstab
cat >etc/systemd/system/check.service <<'UNIT'
[Unit]
SuccessAction=exit
FailureAction=exit

[Service]
Type=oneshot
TimeoutStartSec=120s
ExecStart=/bin/sh -eux /check.sh
UNIT
mkdir -p etc/systemd/system/service.d
printf '[Service]\nStandardOutput=append:/said\nStandardError=inherit\n' >etc/systemd/system/service.d/said.conf
mkdir old
echo 0 >"$2/cgroup.procs"
# /sys is read-only: here is no device to be set up, and no setting of the kernel to be made.
exec unshare --mount --pid --fork --kill-child --cgroup --ipc --uts sh -euc '
  mount -t proc proc proc
  mount -t sysfs -o ro sysfs sys
  mount -t cgroup2 cgroup2 sys/fs/cgroup
  pivot_root . old
  umount --lazy old
  exec env -i container=test PATH="$PATH" /lib/systemd/systemd --unit=check.service --show-status=0
'
