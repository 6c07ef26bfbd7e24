#!/usr/bin/env bash
# Runs the program on two hosts that are made on this machine (nodes.sh), with mpirun and with a SLURM of two nodes.
# Each test prints one line: "ok: ...", "skipped: ..." or "FAILED: ...".
#
#   tests/nodes/run.sh [NAME...]     all, or some of: bytes backproject scratch local cut dead slurm requeue failure
#
# CRYOSPLAT names the program (default: target/debug/cryosplat-mpi). KEEP=1 keeps the data.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
if [ "$(id -u)" -ne 0 ] && unshare --user --map-root-user --mount true 2>/dev/null; then
    # Root of a user namespace may make the others.
    exec unshare --user --map-root-user --mount --fork --kill-child -- "tests/nodes/${BASH_SOURCE[0]##*/}" "$@"
fi
# shellcheck source=tests/scripts/lib.sh
. tests/scripts/lib.sh
# shellcheck source=tests/nodes/nodes.sh
. tests/nodes/nodes.sh

program=$(realpath "${CRYOSPLAT:-target/debug/cryosplat-mpi}")
[ -x "$program" ] || stop "$program is not there: cargo build"
names=("$@")
[ "$#" -gt 0 ] || names=(bytes backproject scratch)

describe() {
    case "$1" in
        bytes) echo "two nodes: train on four ranks, placed by node and by slot: the same bytes as on one" ;;
        backproject) echo "two nodes: backproject on four ranks: the same bytes as on one" ;;
        scratch) echo "two nodes: --cache scratch copies the particles to the disk of each, and warns of a full one by its host" ;;
        *) stop "no test is named $1" ;;
    esac
}

reason=$(nodes_reason)
if [ -n "$reason" ]; then
    for name in "${names[@]}"; do
        say "skipped: $(describe "$name"): $reason"
    done
    exit 0
fi
make_work "${TMPDIR:-/tmp}/cryosplat-nodes.XXXXXX"
finish() {
    nodes_down
    finish_work
}
trap finish EXIT
trap 'exit 1' INT TERM
if ! nodes_up "$work"; then
    cat "$work"/*.log
    say "FAILED: start of two nodes"
    exit 1
fi

require() {
    "$@" && return
    say "wrong: condition not met: $*"
    return 1
}
quiet() { "$@" >"$work/command-$BASHPID.log" 2>&1 </dev/null || { cat "$work/command-$BASHPID.log"; return 1; }; }
# Runs in a shell of its own: a failed line ends this test only.
one_node() { quiet run_ranks "$@"; }

quiet "$program" simulate --phantom --box 32 --pixel-size 6 --seed 1 --particles 1200 -o "$work/p.h5"
settings=(--gaussians 100 --epochs 3 --mixtures 1 --device cpu --threads 1)
same() { require cmp "$work/$1/$3" "$work/$2/$3"; }
# The run on one node, once.
whole() {
    [ -f "$work/whole/map.mrc" ] || one_node 4 "$program" train "$work/p.h5" -o "$work/whole" "${settings[@]}"
}

test_bytes() {
    whole
    local map file
    for map in slot node; do
        MAP=$map nodes_mpirun 2 "$program" train "$work/p.h5" -o "$work/by-$map" "${settings[@]}" >"$work/$map.log" 2>&1
        for file in half1.mrc half2.mrc map.mrc fsc.csv; do
            same whole "by-$map" "$file"
        done
        require grep -q "4 ranks, 2 in the group of half1" "$work/$map.log"
    done
    cat "$work/node.log"
}

test_backproject() {
    one_node 4 "$program" backproject "$work/p.h5" -o "$work/voxels" --threads 1
    MAP=node nodes_mpirun 2 "$program" backproject "$work/p.h5" -o "$work/voxels-nodes" --threads 1
    same voxels voxels-nodes half1.mrc
    same voxels voxels-nodes half2.mrc
}

test_scratch() {
    whole
    nodes_mpirun 2 "$program" train "$work/p.h5" -o "$work/scratch" "${settings[@]}" --cache scratch
    same whole scratch half2.mrc
    # Node B has no room.
    on B mkdir /tmp/small
    on A mkdir /tmp/small
    on B mount -t tmpfs -o size=1m tmpfs /tmp/small
    nodes_mpirun 2 "$program" train "$work/p.h5" -o "$work/full" "${settings[@]}" --cache scratch --scratch /tmp/small >"$work/full.log" 2>&1
    cat "$work/full.log"
    require grep -q "WARN no scratch copy of the particles on nodeB: /tmp/small: " "$work/full.log"
    require test "$(grep -c WARN "$work/full.log")" -eq 2
    same whole full half2.mrc
}

failed=0
for name in "${names[@]}"; do
    code=0
    # A separate shell, so that a failure ends this test only; in the background, so that this one handles signals at once.
    (
        set -e
        "test_$name"
    ) >"$work/$name.test" 2>&1 &
    wait $! || code=$?
    if [ "$code" -eq 0 ]; then
        say "ok: $(describe "$name")"
    else
        cat "$work/$name.test"
        say "FAILED: $(describe "$name")"
        failed=$((failed + 1))
    fi
done
[ "$failed" -eq 0 ]
