#!/usr/bin/env bash
# Writes the results of a GPU check to benches/results/gpu-DEVICE.md, with device, driver and commit. The results come from
# `make gpu-check`, or from run.sh of its package on another machine.
#
#   tests/gpu/keep.sh [RESULTS]     default: target/gpu-check-results
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=tests/scripts/lib.sh
. tests/scripts/lib.sh

results=${1:-target/gpu-check-results}
for file in results.json results.md; do
    [ -s "$results/$file" ] || stop "$results has no $file: run make gpu-check on a machine with a GPU, or name its folder of results"
done
field() { sed -n "s/^ *\"$1\": \"\(.*\)\",*$/\1/p" "$results/results.json" | head -n 1; }

if grep -q '^- Measured on the emulator' "$results/results.md"; then
    stop "$results was measured on the emulator, whose speed says nothing about a GPU"
fi
if grep -q '"quick": true' "$results/results.json"; then
    stop "$results is from a quick bench: run it without --quick"
fi
commit=$(field commit)
git cat-file -e "$commit^{commit}" 2>/dev/null ||
    stop "$results was measured with commit '$commit', which this repository does not contain: commit everything and run make gpu-check again"

# "NVIDIA H100 80GB HBM3 (device 0)"
device=$(field device | sed 's/ (device [0-9]*)$//')
[ -n "$device" ] || stop "$results/results.json names no device"
name=$(tr '[:upper:]' '[:lower:]' <<<"$device" | sed 's/^nvidia //; s/[^a-z0-9][^a-z0-9]*/-/g; s/-$//')
kept=benches/results/gpu-$name.md
{
    echo "# $device"
    echo
    echo "Measured by \`make gpu-check\`, recorded by \`make gpu-results\`."
    echo
    cat "$results/results.md"
} >"$kept"
say "$kept: commit it"
