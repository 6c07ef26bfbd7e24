#!/usr/bin/env bash
# Checks the kernels with the real compiler: NVRTC compiles kernels/*.cu as the program does, ptxas reports their resources, and
# nvdisasm their inner loops. All come from Python packages and need no GPU. Prints one line per kernel and architecture,
# "ok: ..." or "FAILED: ...".
#
#   tests/kernels/run.sh            all checks
#   tests/kernels/run.sh --table    write the tables of kernels/README.md instead
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=tests/scripts/lib.sh
. tests/scripts/lib.sh

mkdir -p target
if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    missing="python3 with venv is missing"
elif ! make_venv target/kernels-venv tests/kernels/requirements.txt; then
    missing="pip could not install $(requirement_names tests/kernels/requirements.txt)"
else
    # -B: no compiled Python beside the sources.
    exec target/kernels-venv/bin/python -B tests/kernels/compile.py "$@"
fi
# A table that was requested and not written is a failure.
[ "$#" -eq 0 ] || stop "$missing"
say "skipped: the kernels against the real compiler: $missing"
