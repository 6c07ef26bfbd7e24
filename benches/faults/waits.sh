# Ranks that wait in vain, and signals. Sourced by benches/faults.sh.
# shellcheck shell=bash disable=SC2034,SC2154 # variables of benches/faults.sh
title="Waits and signals"

# rank_process N LAUNCHER: the process of rank N that mpirun LAUNCHER has started.
rank_process() {
    local process
    for process in $(pgrep -P "$2"); do
        if tr '\0' '\n' <"/proc/$process/environ" | grep -qx "OMPI_COMM_WORLD_RANK=$1"; then
            echo "$process"
        fi
    done
}

# trained RANKS OPTIONS...: a long training in run/ in the background, which has written a checkpoint. Sets
# $job and $launcher, its mpirun.
trained() {
    local ranks=$1
    shift
    run_ranks "$ranks" "$program" train "$sets/p.h5" -o run --device cpu --threads 1 --gaussians 400 --epochs "$epochs" "$@" &
    job=$!
    wait_for 60 compgen -G "run/checkpoints/half1_*.h5"
    launcher=$(pgrep -P "$job" mpirun)
}

signal_rank() {
    local signal=$1 rank=$2 ranks=$3 epochs=10000
    trained "$ranks" --timeout 5
    kill "-$signal" "$(rank_process "$rank" "$launcher")"
    wait "$job"
}

suspended() {
    local epochs=1000
    trained 2 --timeout 2
    pkill -STOP -P "$launcher"
    sleep 6
    pkill -CONT -P "$launcher"
    wait "$job"
}

# early SIGNAL: a signal while MPI starts.
early() {
    "$program" train "$sets/p.h5" -o run --device cpu --threads 1 &
    local process=$!
    wait_for 60 grep -q 'SigCgt:.*[4567cdef]...$' "/proc/$process/status"
    kill "-$1" "$process"
    wait "$process"
}

keep "$sets/p.h5"
fault "SIGSTOP to rank 2 of 3, timeout 5 s" signal_rank STOP 2 3
fault "SIGSTOP to rank 0 of 2, timeout 5 s" signal_rank STOP 0 2
fault "SIGKILL to rank 1 of 2" signal_rank KILL 1 2
fault "SIGTERM to rank 1 of 2" signal_rank TERM 1 2
fault "all ranks suspended for three times the timeout, then continued" suspended
fault "SIGTERM while MPI starts" early TERM
