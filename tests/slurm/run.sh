#!/usr/bin/env bash
# Submits the unmodified templates of slurm/ to a real one-node SLURM (cluster.sh) with four emulated GPUs.
# Each test prints one line: "ok: ...", "skipped: ..." or "FAILED: ...".
#
#   tests/slurm/run.sh [NAME...]     all, or some of: binding cpu nodes launcher signal mpirun cancel limit preempt seeds scaling empiar
#
# CRYOSPLAT names the program (default: target/debug/cryosplat-mpi). KEEP=1 keeps the data and the daemons' logs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=tests/scripts/lib.sh
. tests/scripts/lib.sh
# shellcheck source=tests/slurm/cluster.sh
. tests/slurm/cluster.sh

program=$(realpath "${CRYOSPLAT:-target/debug/cryosplat-mpi}")
[ -x "$program" ] || stop "$program is not there: cargo build"
names=("$@")
[ "$#" -gt 0 ] || names=(limit binding nodes preempt cpu launcher signal mpirun cancel seeds scaling empiar)

describe() {
    case "$1" in
        binding) echo "single-node.sbatch: four tasks, each with its own GPU; a finished run is not repeated" ;;
        cpu) echo "cpu.sbatch: the same bytes as with mpirun" ;;
        nodes) echo "multi-node.sbatch: on one node, with one GPU per task and with all GPUs visible to all tasks" ;;
        launcher) echo "srun --mpi=none: each task reports the remedy and fails" ;;
        signal) echo "cpu.sbatch: USR1 ends it with code 75 and a checkpoint; it is requeued and finishes" ;;
        mpirun) echo "mpirun.sbatch: USR1 to the script ends the ranks with code 75 and a checkpoint; it is requeued and finishes" ;;
        cancel) echo "cpu.sbatch: scancel leaves a checkpoint, and the job does not return" ;;
        limit) echo "cpu.sbatch: across a time limit to the same bytes" ;;
        preempt) echo "preemptible.sbatch: preempted by an urgent job, requeued, same bytes as an uninterrupted run" ;;
        seeds) echo "seeds.sbatch: an array of two seeds, two different maps" ;;
        scaling) echo "scaling.sbatch: a study of 1, 2 and 4 ranks, and its table" ;;
        *) stop "no test is named $1" ;;
    esac
}

reason=$(cluster_reason)
if [ -n "$reason" ]; then
    for name in "${names[@]}"; do
        if [ "$name" = empiar ]; then
            # These need no SLURM.
            CRYOSPLAT=$program tests/slurm/empiar.sh
        else
            say "skipped: $(describe "$name"): $reason"
        fi
    done
    exit 0
fi
top=$PWD

work=$(mktemp --directory "${TMPDIR:-/tmp}/cryosplat-slurm.XXXXXX")
running=()
finish() {
    [ "${#running[@]}" -eq 0 ] || kill "${running[@]}" 2>/dev/null || true
    cluster_stop
    if [ "${KEEP:-0}" = 1 ]; then
        say "the data and the logs are in $work"
    else
        rm -rf "$work"
    fi
}
trap finish EXIT
trap 'exit 1' INT TERM

if ! cluster_start "$work/cluster" >"$work/start" 2>&1; then
    cat "$work/start"
    tail -n 5 "$work"/cluster/log/*
    say "FAILED: start of a one-node SLURM"
    exit 1
fi
cd "$work"

# More ranks than cores: waiting ranks should not spin.
export OMPI_MCA_mpi_yield_when_idle=1
# What a user of this cluster would set at the top of a template.
on_this_cluster=(--account=any --cpus-per-task=1 --mem-per-cpu=100M)

# submit TEMPLATE OPTIONS...: prints the job number.
submit() {
    local template=$1
    shift
    sbatch --parsable "${on_this_cluster[@]}" "$@" "$top/slurm/$template.sbatch"
}
field() { scontrol show job "$1" | grep -o "\b$2=[^ ]*" | head -n 1 | cut -d = -f 2-; }
in_state() { [[ " $2 " == *" $(field "$1" JobState) "* ]]; }
ended() { in_state "$1" "COMPLETED FAILED CANCELLED TIMEOUT NODE_FAIL PREEMPTED"; }
# finished SECONDS JOB LOG...: waits for the job to complete; prints its log if it failed.
finished() {
    local seconds=$1 job=$2
    shift 2
    wait_for "$seconds" ended "$job" && in_state "$job" COMPLETED && return
    say "wrong: job $job is $(field "$job" JobState), exit code $(field "$job" ExitCode), restarts $(field "$job" Restarts)"
    cat "$@"
    return 1
}
require() {
    "$@" && return
    say "wrong: condition not met: $*"
    return 1
}
done_in() { grep -q '"state": *"done"' "$1/run.json"; }
checkpoint_in() { compgen -G "$1/checkpoints/*.h5" >/dev/null; }
restarted() { [ "$(field "$1" Restarts)" -ge 1 ]; }
same() { require cmp "$1/$3" "$2/$3"; }

# Particle sets: one for the emulator, which is slow, and one for the CPU device, large enough to be interrupted.
quiet() { "$@" >"command-$BASHPID.log" 2>&1 </dev/null || { cat "command-$BASHPID.log"; return 1; }; }
make_set() { quiet "$program" simulate --phantom --box 32 --pixel-size 6 --seed 1 "$@"; }
make_set -o small.h5 --particles 64
make_set -o large.h5 --particles 2000
small_options="--gaussians 24 --epochs 2"

# A program that sees the emulated GPUs and records what SLURM assigned to it.
emulated() {
    [ ! -x emulated ] || return 0
    "$top/tests/emulator/build.sh" "$top/target/emulator"
    cat >emulated <<END
#!/usr/bin/env bash
echo "\$SLURM_PROCID \${CUDA_VISIBLE_DEVICES:-none}" >>"\${RUN%/}.devices"
export $(tr '\n' ' ' <"$top/target/emulator/environment") CRYOSPLAT_EMULATOR_DEVICES=4 XDG_CACHE_HOME=$top/target/emulator/cache
exec "$program" "\$@"
END
    chmod +x emulated
}

test_binding() {
    emulated
    export CRYOSPLAT=$work/emulated PARTICLES=small.h5 RUN=binding OPTIONS=$small_options job
    job=$(submit single-node --output=binding.log)
    finished 120 "$job" binding.log
    require done_in binding
    require test -s binding/half1.mrc
    # One task, one GPU: four task numbers, four GPU numbers.
    require test "$(cut -d ' ' -f 1 binding.devices | sort | tr '\n' ' ')" = "0 1 2 3 "
    require test "$(cut -d ' ' -f 2 binding.devices | sort | tr '\n' ' ')" = "0 1 2 3 "
    require grep -q "4 ranks, 2 in the group of half1; each: Emulated device" binding.log
    cp binding/metrics_half1.jsonl before
    job=$(submit single-node --output=binding-again.log)
    finished 60 "$job" binding-again.log
    require cmp before binding/metrics_half1.jsonl
}

test_nodes() {
    emulated
    export CRYOSPLAT=$work/emulated PARTICLES=small.h5 RUN=nodes OPTIONS=$small_options
    local job
    job=$(submit multi-node --nodes=1 --ntasks-per-node=2 --gpus-per-node=2 --output=nodes.log)
    finished 120 "$job" nodes.log
    require done_in nodes
    require grep -q "2 ranks, 1 in the group of half1; each: Emulated device" nodes.log
    # As slurm/README.md describes for all GPUs of a node visible to each task.
    sed 's/ --gpus-per-task=1//' "$top/slurm/multi-node.sbatch" >visible.sbatch
    export RUN=visible
    job=$(sbatch --parsable "${on_this_cluster[@]}" --nodes=1 --ntasks-per-node=2 --gpus-per-node=2 --output=visible.log \
        visible.sbatch)
    finished 120 "$job" visible.log
    require test "$(sort visible.devices | tr '\n' ' ')" = "0 0,1 1 0,1 "
    require cmp nodes/half1.mrc visible/half1.mrc
}

test_cpu() {
    export CRYOSPLAT=$program PARTICLES=large.h5 RUN=cpu OPTIONS="--gaussians 100 --epochs 2"
    local job
    job=$(submit cpu --ntasks-per-node=4 --output=cpu.log)
    quiet run_ranks 4 "$program" train large.h5 -o cpu-mpirun --gaussians 100 --epochs 2
    finished 120 "$job" cpu.log
    require grep -q "4 ranks, 2 in the group of half1; each: CPU" cpu.log
    same cpu cpu-mpirun half1.mrc
    same cpu cpu-mpirun half2.mrc
}

test_launcher() {
    local code=0
    srun --mpi=none --ntasks=2 "$program" train large.h5 -o launcher >launcher.log 2>&1 || code=$?
    cat launcher.log
    require test "$code" -ne 0
    require test "$(grep -c -- 'srun --mpi=pmix' launcher.log)" -eq 2
    require test ! -e launcher
}

# The interrupted training without an interruption: run once for two tests, one of which runs at the same time.
long_options="--gaussians 400 --epochs 40"
uninterrupted() (
    flock 9
    [ -f uninterrupted/half2.mrc ] || quiet run_ranks 2 "$program" train large.h5 -o uninterrupted \
        --gaussians 400 --epochs 40
) 9>uninterrupted.lock
training() { [ -s "$1/metrics_half1.jsonl" ]; }

test_signal() {
    export CRYOSPLAT=$program PARTICLES=large.h5 RUN=signal OPTIONS=$long_options
    local job
    job=$(submit cpu --ntasks-per-node=2 --output=signal.log)
    require wait_for 60 training signal
    scancel --signal=USR1 "$job"
    require wait_for 60 restarted "$job"
    require checkpoint_in signal
    require grep -q "exit code 75" signal.log
    finished 120 "$job" signal.log
    require done_in signal
    uninterrupted
    same signal uninterrupted half1.mrc
}

test_mpirun() {
    # More ranks than this machine has cores, as root.
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
    export CRYOSPLAT=$program PARTICLES=large.h5 RUN=mpirun OPTIONS="$long_options --device cpu"
    local job
    job=$(submit mpirun --ntasks-per-node=2 --output=mpirun.log)
    require wait_for 60 training mpirun
    # As SLURM does before the time limit, with B:.
    scancel --batch --signal=USR1 "$job"
    require wait_for 60 restarted "$job"
    require checkpoint_in mpirun
    require grep -q "exit code 75" mpirun.log
    finished 120 "$job" mpirun.log
    require done_in mpirun
    uninterrupted
    same mpirun uninterrupted half1.mrc
}

test_cancel() {
    export CRYOSPLAT=$program PARTICLES=large.h5 RUN=cancel OPTIONS=$long_options
    local job
    job=$(submit cpu --ntasks-per-node=2 --output=cancel.log)
    require wait_for 60 training cancel
    scancel "$job"
    require wait_for 60 ended "$job"
    # The program writes its checkpoint after SLURM has marked the job as cancelled.
    require wait_for 30 grep -q '"state": *"stopped"' cancel/run.json
    require checkpoint_in cancel
    sleep 8
    require in_state "$job" CANCELLED
}

# stalled NAME SECONDS PROGRAM: makes a program of that name that pauses for so long after its first metrics, so that the training
# is still running when the event under test happens, also on a fast machine.
stalled() {
    cat >"$1" <<END
#!/usr/bin/env bash
if [ "\${SLURM_RESTART_COUNT:-0}" -eq 0 ]; then
    (
        until [ -s "\$RUN/metrics_half1.jsonl" ]; do sleep 0.1; done
        kill -STOP \$\$
        sleep $2
        kill -CONT \$\$
    ) &
fi
exec "$3" "\$@"
END
    chmod +x "$1"
}

# The warning before the limit comes 5 to 35 s after the start: SLURM checks every 30 s and may warn early.
test_limit() {
    stalled limited 37 "$program"
    export CRYOSPLAT=$work/limited PARTICLES=large.h5 RUN=limit OPTIONS=$long_options
    local job
    job=$(submit cpu --ntasks-per-node=2 --time=00:01:00 --signal=USR1@25 --output=limit.log)
    require wait_for 90 restarted "$job"
    require checkpoint_in limit
    finished 120 "$job" limit.log
    require done_in limit
    require test -z "$(grep 'DUE TO TIME LIMIT' limit.log)"
    uninterrupted
    same limit uninterrupted half1.mrc
    same limit uninterrupted half2.mrc
}

test_preempt() {
    emulated
    stalled preempted 8 "$work/emulated"
    export CRYOSPLAT=$work/preempted PARTICLES=small.h5 RUN=preempt OPTIONS="--gaussians 24 --epochs 6"
    local job urgent
    job=$(submit preemptible --ntasks-per-node=2 --gpus-per-node=2 --output=preempt.log)
    require wait_for 60 training preempt
    urgent=$(sbatch --parsable --partition=urgent --gpus=4 --output=/dev/null --wrap true)
    require wait_for 60 restarted "$job"
    require wait_for 30 in_state "$urgent" COMPLETED
    finished 120 "$job" preempt.log
    require done_in preempt
    export CRYOSPLAT=$work/emulated RUN=whole
    job=$(submit preemptible --partition=gpu --ntasks-per-node=2 --gpus-per-node=2 --output=whole.log)
    finished 120 "$job" whole.log
    same preempt whole half1.mrc
}

test_seeds() {
    emulated
    export CRYOSPLAT=$work/emulated PARTICLES=small.h5 RUN=seeds OPTIONS=$small_options
    local job
    mkdir -p seeds
    job=$(submit seeds --array=1-2 --output=seeds-%a.log)
    finished 120 "${job}_1" seeds-1.log
    finished 120 "${job}_2" seeds-2.log
    require done_in seeds/seed-1
    require done_in seeds/seed-2
    require test "$(cksum <seeds/seed-1/half1.mrc)" != "$(cksum <seeds/seed-2/half1.mrc)"
}

test_scaling() {
    export CRYOSPLAT=$program PARTICLES=large.h5 STUDY=study DEVICE=cpu BATCH=8 BATCH_PER_RANK=4
    export OPTIONS="--gaussians 100 --epochs 1"
    local job run
    job=$(submit scaling --partition=cpu --gpus-per-node=0 --output=scaling.log)
    finished 180 "$job" scaling.log
    for run in strong-1 strong-2 strong-4 weak-1 weak-2 weak-4; do
        require done_in "study/$run"
    done
    require test -s study/scaling.csv
    require test -s study/scaling.svg
    require grep -q "strong" study/scaling.md
    require grep -q "weak" study/scaling.md
}

# Prints the result line of test $1 with exit code $2.
judge() {
    if [ "$2" -eq 0 ]; then
        say "ok: $(describe "$1")"
    else
        cat "$1.test"
        say "FAILED: $(describe "$1")"
        failed=$((failed + 1))
    fi
}
# A separate shell, so that a failure ends this test only ("if ! test" would continue after a failed line).
perform() { (set -e; "test_$1") >"$1.test" 2>&1; }

# Tests run in the background while this shell waits, so that it handles signals at once.
background=
start() {
    "$@" &
    running+=($!)
}

failed=0
for name in "${names[@]}"; do
    # It mostly waits, so it runs in parallel with the others.
    if [ "$name" = limit ]; then
        start perform limit
        background=$!
    fi
done
for name in "${names[@]}"; do
    code=0
    case "$name" in
        limit) ;;
        empiar)
            # Four tests, which print their own result lines.
            start env CRYOSPLAT="$program" SBATCH_OPTIONS="${on_this_cluster[*]} --ntasks-per-node=2" \
                "$top/tests/slurm/empiar.sh"
            wait $! || failed=$((failed + 1))
            ;;
        *)
            if [ "$name" = scaling ] && ! "$program" scaling --help >/dev/null 2>&1; then
                say "skipped: $(describe scaling): this version has no subcommand \`scaling\`"
                continue
            fi
            start perform "$name"
            wait $! || code=$?
            judge "$name" "$code"
            ;;
    esac
done
if [ -n "$background" ]; then
    code=0
    wait "$background" || code=$?
    judge limit "$code"
fi
[ "$failed" -eq 0 ]
