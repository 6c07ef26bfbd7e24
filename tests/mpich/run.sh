#!/usr/bin/env bash
# Builds the program with MPICH and runs it beside the one with Open MPI. One line each: "ok: ...", "skipped: ..." or "FAILED: ...".
#
#   tests/mpich/run.sh [NAME...]     all, or some of: bytes stop killed stopped launcher
#
# Where mpicc.mpich is not installed, Debian's packages are unpacked under target/mpich: nothing is installed, so that the system's
# `mpicc` and `mpirun` stay those of Open MPI. CRYOSPLAT names the program with Open MPI (default: target/debug/cryosplat-mpi),
# CRYOSPLAT_MPICH one that is already built with MPICH.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=tests/scripts/lib.sh
. tests/scripts/lib.sh

program=$(realpath "${CRYOSPLAT:-target/debug/cryosplat-mpi}")
[ -x "$program" ] || stop "$program is not there: cargo build"
names=("$@")
[ "$#" -gt 0 ] || names=(bytes stop killed stopped launcher)
describe() {
    case "$1" in
        bytes) echo "MPICH: train and backproject on four ranks: the same bytes as with Open MPI" ;;
        stop) echo "MPICH: SIGTERM to a rank ends the job with a checkpoint; resumed to the same bytes" ;;
        killed) echo "MPICH: a rank that is killed ends the job" ;;
        stopped) echo "MPICH: a rank that is stopped ends the job within --timeout, and is named" ;;
        launcher) echo "MPICH: the launcher of Open MPI is refused, with the remedy" ;;
        *) stop "no test is named $1" ;;
    esac
}
skip_all() {
    local name
    for name in "${names[@]}"; do
        say "skipped: $(describe "$name"): $1"
    done
    exit 0
}

# Sets $mpiexec, and MPICC for the build.
root=$PWD/target/mpich/root
libraries=$root/usr/lib/$(uname -m)-linux-gnu
if command -v mpicc.mpich >/dev/null && command -v mpiexec.mpich >/dev/null; then
    mpiexec=mpiexec.mpich
    export MPICC=mpicc.mpich
else
    command -v apt-get >/dev/null || skip_all "mpicc.mpich is missing"
    if [ ! -x "$root/mpicc" ]; then
        mkdir -p "$root"
        (cd "$root" && apt-get download -q mpich libmpich-dev libmpich12 libslurm38 </dev/null >/dev/null 2>&1) ||
            skip_all "apt-get could not download MPICH's packages"
        for package in "$root"/*.deb; do dpkg --extract "$package" "$root"; done
        # Debian's wrapper names the folders of an installation.
        cat >"$root/mpicc" <<WRAPPER
#!/bin/sh
flags="-I$root/usr/include/$(uname -m)-linux-gnu/mpich -L$libraries"
if [ "\$1" = -show ]; then
    echo gcc \$flags -lmpich
else
    exec gcc \$flags "\$@" -lmpich
fi
WRAPPER
        chmod +x "$root/mpicc"
    fi
    mpiexec=$root/usr/bin/mpiexec.hydra
    export MPICC=$root/mpicc
    export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    if ldd "$libraries/libmpich.so.12" | grep -q 'not found'; then
        skip_all "libraries of MPICH are missing: $(ldd "$libraries/libmpich.so.12" | awk '/not found/ { print $1 }' | paste -sd ' ')"
    fi
fi
mpich=${CRYOSPLAT_MPICH:-}
if [ -z "$mpich" ]; then
    cargo build --locked --bin cryosplat-mpi --target-dir target/mpich
    mpich=$PWD/target/mpich/debug/cryosplat-mpi
fi
[[ $(objdump -p "$mpich") == *libmpich* ]] || stop "$mpich does not use MPICH"

make_work "${TMPDIR:-/tmp}/cryosplat-mpich.XXXXXX"
cd "$work"
require() {
    "$@" && return
    say "wrong: condition not met: $*"
    return 1
}
quiet() { "$@" >"command-$BASHPID.log" 2>&1 </dev/null || { cat "command-$BASHPID.log"; return 1; }; }
ranks() {
    local number=$1
    shift
    "$mpiexec" -n "$number" "$mpich" "$@" </dev/null
}
long=(--gaussians 300 --epochs 60 --mixtures 1 --device cpu --threads 1)
settings=(--gaussians 300 --epochs 6 --mixtures 1 --device cpu --threads 1)
whole() {
    [ -f open/map.mrc ] || quiet run_ranks 4 "$program" train p.h5 -o open "${settings[@]}"
}
rank_of() { tr '\0' '\n' <"/proc/$1/environ" | sed -n 's/^PMI_RANK=//p'; }
# rank_process N RUN: the process of that rank.
rank_process() {
    local process
    for process in $(pgrep -f "^$mpich train p.h5 -o $2 "); do
        [ "$(rank_of "$process")" != "$1" ] || echo "$process"
    done
}
checkpoint_in() { compgen -G "$1/checkpoints/half2_*.h5" >/dev/null; }
wait_for() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$end" ] || return 1
        sleep 0.1
    done
}
gone() { ! kill -0 "$1" 2>/dev/null; }

# signalled RUN SIGNAL RANK OPTIONS...: sends a rank a signal after the first checkpoint; sets $code.
signalled() {
    local run=$1 signal=$2 rank=$3 job
    shift 3
    code=0
    ranks 4 train p.h5 -o "$run" "${long[@]}" "$@" >"$run.log" 2>&1 &
    job=$!
    require wait_for 60 checkpoint_in "$run"
    kill "-$signal" "$(rank_process "$rank" "$run")"
    wait_for 60 gone "$job" || { cat "$run.log"; say "wrong: the job does not end"; kill "$job"; return 1; }
    wait "$job" || code=$?
    cat "$run.log"
}

test_bytes() {
    local file
    whole
    ranks 4 train p.h5 -o mpich "${settings[@]}"
    for file in half1.mrc half2.mrc map.mrc fsc.csv; do require cmp "open/$file" "mpich/$file"; done
    quiet run_ranks 4 "$program" backproject p.h5 -o voxels-open --threads 1
    ranks 4 backproject p.h5 -o voxels --threads 1
    require cmp voxels-open/half1.mrc voxels/half1.mrc
}
test_stop() {
    signalled stop TERM 1
    require test "$code" -eq 75
    ranks 4 train p.h5 -o stop "${long[@]}" --resume auto
    quiet run_ranks 4 "$program" train p.h5 -o stop-whole "${long[@]}"
    require cmp stop/half1.mrc stop-whole/half1.mrc
}
test_killed() {
    signalled killed KILL 3
    require test "$code" -ne 0
}
test_stopped() {
    signalled stopped STOP 2 --timeout 5
    require test "$code" -ne 0
    require grep -q "rank 2 on .* has given no sign of life for 5 s" stopped.log
}
test_launcher() {
    local code=0
    run_ranks 2 "$mpich" train p.h5 -o launcher "${settings[@]}" >launcher.log 2>&1 || code=$?
    cat launcher.log
    require test "$code" -ne 0
    require grep -q "MPI sees only one" launcher.log
    require test ! -e launcher/run.json
}

quiet "$program" simulate --phantom --box 32 --pixel-size 6 --seed 1 --particles 1200 -o p.h5
failed=0
for name in "${names[@]}"; do
    # A separate shell, so that a failure ends this test only.
    set +e
    (
        set -e
        "test_$name"
    ) >"$name.test" 2>&1
    code=$?
    set -e
    if [ "$code" -eq 0 ]; then
        say "ok: $(describe "$name")"
    else
        cat "$name.test"
        say "FAILED: $(describe "$name")"
        failed=$((failed + 1))
    fi
done
[ "$failed" -eq 0 ]
