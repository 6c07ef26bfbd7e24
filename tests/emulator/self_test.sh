#!/usr/bin/env bash
# Builds the emulator and tests it by itself, without the program:
#
#     tests/emulator/self_test.sh OUT [--sanitize] [kernels|faults|streams|fft|nccl]
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[[ $# -ge 1 ]] || { echo "usage: $0 OUT [--sanitize] [PART]" >&2; exit 2; }
out=$1
shift
mode=()
if [[ ${1:-} == --sanitize ]]; then mode=(--sanitize); shift; fi
"$here/build.sh" "$out" "${mode[@]}"
out=$(cd "$out" && pwd)

program=$out/self_test
if [[ ! -x $program || -n $(find "$here/self_test" "$out/identity" -newer "$program" -type f) ]]; then
    # In pieces: the kernels' text, which all share, makes none of them slow.
    pids=()
    for source in "$here"/self_test/*.cpp; do
        "${CXX:-g++}" -std=c++17 -O1 -Wall -Wextra -c "$source" -o "$out/self_test_$(basename "$source").o" &
        pids+=($!)
    done
    for pid in "${pids[@]}"; do wait "$pid"; done
    "${CXX:-g++}" -o "$program" "$out"/self_test_*.o -L"$out" -Wl,--allow-shlib-undefined -lcuda -lnvrtc -lcufft -lnccl -pthread
fi
set -a
while IFS= read -r line; do export "${line?}"; done < "$out/environment"
exec "$program" "$@"
