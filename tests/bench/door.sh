#!/usr/bin/env bash
# A front door for a benchmark: serves a directory over HTTP and TLS, in the foreground, until it is told to end.
#
#   DAEMUN=target/release/daemun tests/bench/door.sh DIRECTORY CERTIFICATE KEY PORT TLS_PORT [ROLES]
#
# With all its limits and counters, and an agent that probes it if ROLES says so (default: gateway,sync).
set -euo pipefail
directory=$(realpath "$1") certificate=$(realpath "$2") key=$(realpath "$3") port=$4 tls_port=$5 roles=${6:-gateway,sync}
data=$(mktemp -d)
trap 'rm -rf "$data"' EXIT
cat >"$data/daemun.toml" <<TOML
version = 1
[fleet]
name = "bench"
[[datacenters]]
name = "here"
latitude = 37.57
longitude = 126.98
addresses = ["127.0.0.1"]
agent = "http://127.0.0.1:25590"
[[servers]]
name = "door-here"
role = "frontdoor"
datacenter = "here"
url = "http://127.0.0.1:$port/"
[gateway]
listen = ["127.0.0.1:$port"]
tls_listen = ["127.0.0.1:$tls_port"]
certificate = "$certificate"
key = "$key"
directory = "$directory"
marker = "<"
[store]
listen = ["127.0.0.1:25591"]
[sync]
listen = ["127.0.0.1:25590"]
admin = ["127.0.0.1:25592"]
TOML
"${DAEMUN:-target/release/daemun}" run --config "$data/daemun.toml" --datacenter here --role "$roles" --data "$data/data" &
child=$!
trap 'kill "$child" 2>/dev/null; wait "$child"; rm -rf "$data"' TERM INT
wait "$child"
