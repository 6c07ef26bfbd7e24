#!/usr/bin/env bash
# Kills runs at random moments and resumes them, far more often than `make test`. Prints a section of Markdown.
#
#   tests/soak/kills.sh
#
# SOAK_KILLS=N   how often (default: 300)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

mkdir -p target/soak
log=target/soak/kills.log
CRYOSPLAT_TEST_KILLS=${SOAK_KILLS:-300} cargo test --locked --test survive killed -- --nocapture >"$log" 2>&1 </dev/null ||
    { tail -n 40 "$log" >&2; exit 1; }
echo "## Killed and resumed"
echo
echo "A small run is killed by SIGKILL at random moments (with two ranks: one of them) and resumed until it ends, again and" \
    "again. Every run ended with the same bytes as a run that was not killed:"
echo
sed -n 's/^\([12]\) ranks: /- ranks: \1; /p' "$log"
