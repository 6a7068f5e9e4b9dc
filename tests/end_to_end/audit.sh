#!/usr/bin/env bash
# The lab on port 53, judged by zonemaster, dnsviz and delv. Run within a network namespace of its own, which has nothing but
# loopback: see audits.rs. Usage: audit.sh DAEMUN DIRECTORY; the verdicts are left in DIRECTORY.
set -euo pipefail
daemun=$1
cd "$2"

ip link set lo up
ip route add default dev lo # dnsviz wants one; it leads nowhere
echo "nameserver 127.0.9.1" > resolv.conf
mount --bind resolv.conf /etc/resolv.conf

# A root and a .test of our own, which delegate to the lab.
cat > root.zone <<'END'
$ORIGIN .
$TTL 86400
@ SOA a.root-servers.test. hostmaster.test. 1 14400 3600 1209600 3600
@ NS a.root-servers.test.
@ NS b.root-servers.test.
test. NS a.root-servers.test.
test. NS b.root-servers.test.
a.root-servers.test. A 127.0.9.1
b.root-servers.test. A 127.0.9.2
127.in-addr.arpa. NS a.root-servers.test.
END
cat > test.zone <<'END'
$ORIGIN test.
$TTL 86400
@ SOA a.root-servers.test. hostmaster.test. 1 14400 3600 1209600 3600
@ NS a.root-servers.test.
@ NS b.root-servers.test.
a.root-servers A 127.0.9.1
b.root-servers A 127.0.9.2
shop NS ns-seoul.shop
shop NS ns-frankfurt.shop
shop NS ns-virginia.shop
ns-seoul.shop A 127.0.1.1
ns-frankfurt.shop A 127.0.2.1
ns-virginia.shop A 127.0.3.1
END
cat > unbound.conf <<END
server:
  directory: "$PWD"
  chroot: ""
  username: ""
  pidfile: ""
  use-syslog: no
  do-ip6: no
  interface: 127.0.9.1
  interface: 127.0.9.2
  port: 53
  access-control: 127.0.0.0/8 allow
  module-config: "iterator"
  local-zone: "test." nodefault
  local-zone: "127.in-addr.arpa." nodefault
remote-control:
  control-enable: no
auth-zone:
  name: "."
  zonefile: root.zone
  for-downstream: yes
  for-upstream: no
auth-zone:
  name: "test"
  zonefile: test.zone
  for-downstream: yes
  for-upstream: no
END
printf '. 3600000 NS a.root-servers.test.\na.root-servers.test. 3600000 A 127.0.9.1\n' > hints

/usr/sbin/unbound -d -p -c unbound.conf > unbound.log 2>&1 &
root=$!
"$daemun" lab --dns-port 53 --directory lab > lab.log 2>&1 &
lab=$!
trap 'kill $root $lab; wait' EXIT

for address in 127.0.1.1 127.0.2.1 127.0.3.1 127.0.9.1; do
  for _ in $(seq 200); do # asks until it answers, for at most a minute
    dig "@$address" test SOA +tries=1 +time=1 > dig.log 2>&1 && break
    sleep 0.1
  done
done

servers="ns-seoul.shop.test/127.0.1.1 ns-frankfurt.shop.test/127.0.2.1 ns-virginia.shop.test/127.0.3.1"
zonemaster-cli --no-ipv6 --level WARNING --json --no-progress --no-time --hints hints \
  $(printf -- '--ns %s ' $servers) shop.test > zonemaster.json

at_root=".:a.root-servers.test=127.0.9.1,b.root-servers.test=127.0.9.2"
at_lab="shop.test:$(echo "$servers" | tr '/ ' '=,')"
for more in "" "-e 1.208.0.0"; do
  # shellcheck disable=SC2086 # no word or two
  dnsviz probe -4 -A -p $more -o probe.json -x "$at_root" -x "$at_lab" \
    shop.test www.shop.test shop.shop.test _api._tcp.shop.test mail.shop.test 2> dnsviz.log
  dnsviz grok -l warning -r probe.json >> dnsviz.json 2>> dnsviz.log
  dnsviz print -r probe.json >> dnsviz.txt 2>> dnsviz.log
done

# The same with a name server that does not know the zone: both must say so.
lame="ns-virginia.shop.test/127.0.9.2"
zonemaster-cli --no-ipv6 --level WARNING --json --no-progress --no-time --hints hints \
  --ns ns-seoul.shop.test/127.0.1.1 --ns "$lame" shop.test > zonemaster-lame.json
dnsviz probe -4 -A -p -o probe.json -x "$at_root" \
  -x "shop.test:ns-seoul.shop.test=127.0.1.1,ns-virginia.shop.test=127.0.9.2" shop.test 2> dnsviz.log
dnsviz grok -l warning -r probe.json > dnsviz-lame.json 2>> dnsviz.log

for asked in "www.shop.test A" "www.shop.test AAAA" "nothing.shop.test A" "shop.test SOA" "_api._tcp.shop.test SRV"; do
  # shellcheck disable=SC2086 # name and type
  delv @127.0.1.1 -i $asked
  delv @127.0.1.1 -i +tcp $asked
done > delv.txt 2>&1
