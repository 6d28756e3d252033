# What an operator does, under a systemd that holds the node to its unit. Each line must succeed.
dpkg --install /quorate.deb
! systemctl is-enabled quorate
sed -i 's/^cores = 1$/cores = 2/' /etc/quorate/quorate.toml
systemctl enable --now quorate
systemd-analyze verify --man=no quorate.service
quorate put greeting hello
pid=$(cat /run/quorate/pid)
test "$pid" = "$(systemctl show --property=MainPID --value quorate)"
grep -qx 'CapEff:.0*' "/proc/$pid/status"
grep -qx 'Seccomp:.2' "/proc/$pid/status"

# An upgrade leaves the node running.
dpkg --install /quorate.deb
test "$pid" = "$(systemctl show --property=MainPID --value quorate)"
systemctl restart quorate
test "$(systemctl show --property=Result --value quorate)" = success
test "$(quorate get greeting)" = hello

# Its end does not.
dpkg --remove quorate
! systemctl is-active quorate
! systemctl is-enabled quorate
! test -e /run/quorate/pid
! test -e /usr/bin/quorate
dpkg --purge quorate
! test -e /etc/quorate
# Data goes by nobody's hand but its owner's.
test -e /var/lib/quorate/core-1
