#!/usr/bin/env bash
# Tries faults and attacks on the program: what was lost, how long it took to end, and its last line.
#
#   benches/faults.sh [PART...]      parts are the files of benches/faults/, without ".sh"; all of them by default
#
# Writes benches/results/faults.md if all parts are tried. KEEP=1 keeps the data.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tests/scripts/lib.sh
. tests/scripts/lib.sh

program=${CRYOSPLAT:-$PWD/target/release/cryosplat-mpi}
[ -x "$program" ] || stop "$program is missing: make build"
make_work "${TMPDIR:-/tmp}/cryosplat-faults.XXXXXX"
sets=$work/sets
mkdir "$sets"
rows=$work/rows.md
: >"$rows"
kept=()

# train OPTIONS...: a small training of the phantom, on one thread of the CPU.
train() { "$program" train "$sets/p.h5" --device cpu --threads 1 --gaussians 400 --mixtures 2 "$@"; }

# keep FILE...: the next fault must leave these files as they are.
keep() { kept=("$@"); }

# last_line LOG CODE: what the program said last, or if it failed its last error, as one cell of a table. Lines of the launcher do not
# count.
last_line() {
    local level='(ERROR|WARN|INFO)'
    if [ "$2" -ne 0 ] && grep -q ERROR "$1"; then
        level=ERROR
    fi
    sed 's/\x1b\[[0-9;]*m//g; s/\r/\n/g' "$1" | grep -E '^ *[0-9.]+ s( rank [0-9]+ on [^ ]+)? +'"$level"'|^error' | tail -n 1 |
        sed -E 's/^ *[0-9.]+ s( rank [0-9]+ on [^ ]+)? +//; s/\|/\\|/g' | sed "s|$work/||g" | cut -c 1-420 || true
}

# fault WHAT COMMAND...: runs COMMAND in an empty folder, and adds a row to the table. Lost are kept files that are not the same
# afterwards, and temporary files that are left.
fault() {
    local what=$1 code=0 started seconds lost=() file
    shift
    rm -rf "$work/case"
    mkdir "$work/case"
    sums=$(sha256sum "${kept[@]}" /dev/null)
    started=$(date +%s.%N)
    (cd "$work/case" && "$@") >"$work/log" 2>&1 </dev/null || code=$?
    seconds=$(awk -v from="$started" -v to="$(date +%s.%N)" 'BEGIN { printf "%.1f", to - from }')
    while read -r _ file; do
        lost+=("${file#"$sets/"}")
    done < <(comm -23 <(sort <<<"$sums") <(sha256sum "${kept[@]}" /dev/null 2>/dev/null | sort))
    kept=()
    echo "| $what | ${lost[*]:-nothing} | $seconds | $code | $(last_line "$work/log" "$code") |" | tee -a "$rows"
    [ "${KEEP:-0}" != 1 ] || cp "$work/log" "$work/log.$(wc -l <"$rows")"
}

# wait_for SECONDS TEST...: waits until TEST succeeds.
wait_for() {
    local tries=$((10 * $1))
    shift
    until "$@" >/dev/null 2>&1; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || stop "never: $*"
        sleep 0.1
    done
}

(
    cd "$sets"
    "$program" --log-level warn simulate --phantom -o p.h5 --star "$sets" --box 32 --pixel-size 4 -n 120 --snr 1 --seed 3
    train -o run --epochs 2 --log-level warn
) </dev/null

parts=("$@")
if [ "$#" -eq 0 ]; then
    for part in benches/faults/*.sh; do parts+=("$(basename "$part" .sh)"); done
fi
{
    echo "# Faults and attacks"
    echo
    echo "By \`make faults\`: $(machine)."
    echo
    echo "Each row is a fault that was made on purpose. *Lost* are files that had to stay as they were and did not. *Seconds* are"
    echo "those until the command had ended, with the time to make the fault. The last line is the program's own: its last error if it"
    echo "failed."
    echo
} >"$work/faults.md"
for part in "${parts[@]}"; do
    : >"$rows"
    # shellcheck source=/dev/null
    . "benches/faults/$part.sh"
    {
        echo "## ${title:?}"
        echo
        echo "| Fault | Lost | Seconds | Exit code | Last line |"
        echo "|---|---|---|---|---|"
        cat "$rows"
        echo
    } >>"$work/faults.md"
done
if [ "$#" -eq 0 ]; then
    sed '$d' "$work/faults.md" >benches/results/faults.md
    echo "benches/results/faults.md is written"
fi
