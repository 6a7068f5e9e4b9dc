#!/usr/bin/env python3
"""daemun as a contestant of a replication benchmark that starts one process for each datacenter.

    replication.py start   runs the process of datacenter $DC, its files in $DIR
    replication.py ready   exits 0 once its store is open and in step with its peers
    replication.py stats   prints {"durability", "lag": [{"peer", "ops", "seconds", "state"}]}

From the environment: DC, DCS (all names), DIR, HTTP_PORT (applications), SYNC_PORT (peers come here), PEERS
(`b=127.0.0.1:25641`: where each peer is dialled). DAEMUN is the binary; the token is `the-token-of-the-benchmark`.
"""

import fcntl
import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

TOKEN = "the-token-of-the-benchmark"


def config(name, names, peers, http_port, sync_port, keys):
    text = f"""version = 1
[fleet]
name = "bench"
[sync]
listen = ["127.0.0.1:{sync_port}"]
admin = ["127.0.0.1:{int(sync_port) + 1000}"]
ca = "{keys}/ca.pem"
[store]
listen = ["127.0.0.1:{http_port}"]
"""
    for at, other in enumerate(names):
        agent = peers.get(other, f"127.0.0.1:{sync_port}")
        text += f"""
[[datacenters]]
name = "{other}"
latitude = 0
longitude = {at}
addresses = ["127.0.0.{at + 10}"]
agent = "https://{agent}"
[[servers]]
name = "door-{other}"
role = "frontdoor"
datacenter = "{other}"
check = {{ none = true }}
"""
    return text


def make_keys(binary, directory, names):
    """The fleet's authority and certificates: by whoever comes first."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with open(directory.parent / "keys.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (directory / "done").exists():
            return
        for arguments in [["init", "--fleet", "bench"], *(["issue", name] for name in names)]:
            subprocess.run([binary, "keys", *arguments, "--directory", directory], check=True, stdout=2)
        (directory / "done").touch()


def start():
    name, names, directory = os.environ["DC"], os.environ["DCS"].split(), Path(os.environ["DIR"])
    peers = dict(pair.split("=", 1) for pair in os.environ["PEERS"].split(",") if pair)
    binary = os.environ.get("DAEMUN", "target/release/daemun")
    keys = directory.parent / "bench-keys"
    make_keys(binary, keys, names)
    text = config(name, names, peers, os.environ["HTTP_PORT"], os.environ["SYNC_PORT"], keys)
    (directory / "daemun.toml").write_text(text, encoding="utf-8")
    (directory / "store.token").write_text(TOKEN, encoding="utf-8")
    arguments = ["run", "--datacenter", name, "--role", "sync", "--config", directory / "daemun.toml"]
    arguments += ["--data", directory, "--keys", keys / name]
    os.execv(binary, [binary, *map(str, arguments)])


def status():
    url = f"http://127.0.0.1:{os.environ['HTTP_PORT']}/v1/store"
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {TOKEN}"})
    with urllib.request.urlopen(request, timeout=5) as answer:
        return json.load(answer)


def ready():
    found = status()
    sys.exit(0 if found["is_open"] and all(lag["stage"] == "known" for lag in found["lags"]) else 1)


def stats():
    lags = []
    for lag in status()["lags"]:
        behind = lag["behind_operations"]
        # Ours that it lacks and its that we lack; a peer that is not heard may have any number.
        operations = None if behind is None and lag["unconfirmed"] == 0 else lag["unconfirmed"] + (behind or 0)
        seconds = None if lag["behind_ms"] is None else lag["behind_ms"] / 1000
        state = "up" if lag["stage"] == "known" else "unknown"
        lags.append({"peer": lag["datacenter"], "ops": operations, "seconds": seconds, "state": state})
    print(json.dumps({"durability": "fsynced", "lag": lags}))


if __name__ == "__main__":
    {"start": start, "ready": ready, "stats": stats}[sys.argv[1]]()
