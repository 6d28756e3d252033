# What an operator does, under a systemd that holds the node to its unit. Each line must succeed.
# A command after `!` would not count.
not() { if "$@"; then return 1; fi; }

dpkg --install /quorate.deb
not systemctl is-enabled quorate
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
not systemctl is-active quorate
not systemctl is-enabled quorate
not test -e /run/quorate/pid
not test -e /usr/bin/quorate
dpkg --purge quorate
not test -e /etc/quorate
# Data goes by nobody's hand but its owner's.
test -e /var/lib/quorate/core-1
