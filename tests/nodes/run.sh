#!/usr/bin/env bash
# Runs the program on two hosts that are made on this machine (nodes.sh), with mpirun and with a SLURM of two nodes.
# Each test prints one line: "ok: ...", "skipped: ..." or "FAILED: ...".
#
#   tests/nodes/run.sh [NAME...]     all, or some of: bytes backproject scratch cut dead slurm failure
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
# shellcheck source=tests/slurm/cluster.sh
. tests/slurm/cluster.sh
# shellcheck source=tests/nodes/nodes.sh
. tests/nodes/nodes.sh

given=$(realpath "${CRYOSPLAT:-target/debug/cryosplat-mpi}")
[ -x "$given" ] || stop "$given is not there: cargo build"
names=("$@")
[ "$#" -gt 0 ] || names=(bytes backproject scratch cut dead slurm failure)

describe() {
    case "$1" in
        bytes) echo "two nodes: train on four ranks, placed by node and by slot: the same bytes as on one" ;;
        backproject) echo "two nodes: backproject on four ranks: the same bytes as on one" ;;
        scratch) echo "two nodes: --cache scratch copies the particles to the disk of each, and warns of a full one by its host" ;;
        cut) echo "two nodes: a cut cable ends the job within --timeout; its last line names ranks and hosts; resumed to the same bytes" ;;
        dead) echo "two nodes: a node that dies ends the job by Open MPI's keepalive; resumed to the same bytes when it is back" ;;
        slurm) echo "SLURM of two nodes: srun and cpu.sbatch, tasks placed by block and cyclically: the same bytes as with mpirun" ;;
        failure) echo "SLURM of two nodes: a node that dies requeues the job, which resumes to the same bytes" ;;
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
# The nodes see no other folder of /tmp.
program=$work/cryosplat-mpi
cp "$given" "$program"
finish() {
    nodes_down
    finish_work
}
trap finish EXIT
trap 'exit 1' INT TERM
in_user_namespace() { ! grep -q 4294967295 /proc/self/uid_map; }
if ! nodes_up "$work"; then
    if in_user_namespace; then
        for name in "${names[@]}"; do
            say "skipped: $(describe "$name"): the nodes do not start in a user namespace of this system"
        done
        exit 0
    fi
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
# A diagnosis of so small a model warns.
settings=(--gaussians 100 --epochs 3 --mixtures 1 --device cpu --threads 1 --no-diagnosis)
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

# A training that is long enough to be interrupted, and the same without an interruption.
long=(--gaussians 400 --epochs 24 --mixtures 1 --device cpu --threads 1)
uninterrupted() {
    [ -f "$work/uninterrupted/map.mrc" ] || one_node 4 "$program" train "$work/p.h5" -o "$work/uninterrupted" "${long[@]}"
}
checkpoint_in() { compgen -G "$work/$1/checkpoints/half2_*.h5" >/dev/null; }
done_in() { grep -qs '"state": *"done"' "$work/$1/run.json"; }
none_runs_on() { ! on "$1" pgrep -f "^$program train"; }
# train_over RUN OPTIONS...: by node, so that the ranks of each half are on both nodes.
train_over() {
    local run=$1
    shift
    MAP=node nodes_mpirun 2 "$program" train "$work/p.h5" -o "$work/$run" "${long[@]}" "$@"
}

# interrupted RUN TIMEOUT FAULT...: trains until FAULT, after the first checkpoints; the job must end by itself.
interrupted() {
    local run=$1 timeout=$2 job code=0
    shift 2
    train_over "$run" --timeout "$timeout" >"$work/$run.log" 2>&1 &
    job=$!
    require wait_for 60 checkpoint_in "$run"
    "$@"
    wait_for 60 gone "$job" || { cat "$work/$run.log"; say "wrong: the job does not end"; return 1; }
    wait "$job" || code=$?
    cat "$work/$run.log"
    require test "$code" -ne 0
    ! done_in "$run" || { say "wrong: it was done before the fault"; return 1; }
}
resumed() {
    uninterrupted
    train_over "$1" --resume auto
    same uninterrupted "$1" half1.mrc
    same uninterrupted "$1" half2.mrc
}

# The program's own deadline. Then mpirun has sent word to the other node, and waits for TCP's retransmissions: seconds here, and
# 15 minutes by default.
test_cut() {
    network A sh -c 'echo 4 >/proc/sys/net/ipv4/tcp_retries2'
    interrupted cut 5 nodes_cut
    require grep -q "ERROR rank 0 of 4 on nodeA: rank 1 on nodeB and rank 3 on nodeB have given no sign of life" "$work/cut.log"
    # The ranks beyond the cut end too, and write nothing any more.
    require wait_for 60 none_runs_on B
    nodes_join
    resumed cut
}

# Open MPI's keepalive.
test_dead() {
    interrupted dead 600 nodes_kill B
    require grep -q "Remote daemon: .* on node nodeB" "$work/dead.log"
    nodes_start B
    resumed dead
}

# A SLURM whose controller is on node A; sbatch and its like are run there.
two_node_slurm() {
    local node
    [ ! -f "$work/cluster/slurm.conf" ] || return 0
    cluster_configure "$work/cluster" "nodeA(10.77.0.1)" nodeA,nodeB 'NodeName=nodeA NodeAddr=10.77.0.1' 'NodeName=nodeB NodeAddr=10.77.0.2'
    # Each node has its own /tmp, empty when it starts: a socket that a dead node had left in its spool folder would fail the same step
    # there. SLURM gives up a node after ten seconds in place of 300.
    sed -i "s|^SlurmdSpoolDir=.*|SlurmdSpoolDir=/tmp/slurmd|" "$work/cluster/slurm.conf"
    echo "PMIxCliTmpDirBase=/tmp" >"$work/cluster/mpi.conf"
    echo "SlurmdTimeout=10" >>"$work/cluster/slurm.conf"
    on A munged --force --key-file "$work/cluster/munge.key" --socket "$work/cluster/run/munge" --pid-file "$work/cluster/run/munged.pid" \
        --seed-file "$work/cluster/run/munge.seed" --log-file "$work/cluster/log/munged"
    wait_for 10 test -S "$work/cluster/run/munge"
    slurm slurmctld -i
    for node in A B; do
        slurm_node "$node"
    done
    wait_for 30 both_idle
}
slurm() { on A env SLURM_CONF="$work/cluster/slurm.conf" "$@"; }
slurm_node() { on "$1" env SLURM_CONF="$work/cluster/slurm.conf" slurmd -N "node$1"; }
both_idle() { [[ $(slurm sinfo --noheader --partition cpu --format "%T %D") == "idle 2" ]]; }
# On these nodes Open MPI needs what nodes_mpirun says.
# shellcheck disable=SC2054 # the commas are Open MPI's
slurm_environment=(OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_btl_vader_single_copy_mechanism=none OMPI_MCA_pml=ob1
    OMPI_MCA_btl=self,vader,tcp OMPI_MCA_btl_tcp_if_include=eth0)
# submit RUN OPTIONS...: cpu.sbatch on both nodes; prints the number of the job.
submit() {
    local run=$1
    shift
    slurm env "${slurm_environment[@]}" CRYOSPLAT="$program" PARTICLES="$work/p.h5" RUN="$work/$run" sbatch --parsable \
        --account=any --cpus-per-task=1 --mem-per-cpu=100M --nodes=2 --ntasks-per-node=2 --output="$work/$run.log" "$@" \
        "$nodes_shared/slurm/cpu.sbatch"
}
field() { slurm scontrol show job "$1" | grep -o "\b$2=[^ ]*" | head -n 1 | cut -d = -f 2-; }
completed() { [[ $(field "$1" JobState) == COMPLETED ]]; }
restarted() { [ "$(field "$1" Restarts)" -ge 1 ]; }

test_slurm() {
    local job
    two_node_slurm
    whole
    slurm env "${slurm_environment[@]}" srun --mpi=pmix --nodes=2 --ntasks-per-node=2 --partition=cpu --distribution=cyclic \
        "$program" train "$work/p.h5" -o "$work/cyclic" "${settings[@]}"
    same whole cyclic half1.mrc
    same whole cyclic half2.mrc
    job=$(OPTIONS="${settings[*]:0:6} --threads 1" submit batch)
    wait_for 120 completed "$job" || { cat "$work/batch.log"; slurm scontrol show job "$job"; return 1; }
    same whole batch half1.mrc
    same whole batch half2.mrc
}

test_failure() {
    local job
    two_node_slurm
    # Longer than SLURM needs to notice, so that it requeues the job.
    job=$(OPTIONS="${long[*]:0:6} --threads 1 --timeout 100" submit failure)
    require wait_for 60 checkpoint_in failure
    nodes_kill B
    require wait_for 90 restarted "$job"
    nodes_start B
    slurm_node B
    wait_for 120 completed "$job" || { cat "$work/failure.log"; slurm scontrol show job "$job"; return 1; }
    uninterrupted
    same uninterrupted failure half1.mrc
    same uninterrupted failure half2.mrc
}

failed=0
for name in "${names[@]}"; do
    case "$name" in
        slurm | failure)
            reason=$(cluster_reason)
            # Root of a user namespace is none for SLURM.
            ! in_user_namespace || reason="the SLURM daemons need root"
            if [ -n "$reason" ]; then
                say "skipped: $(describe "$name"): $reason"
                continue
            fi
            ;;
    esac
    code=0
    # A separate shell, so that a failure ends this test only; in the background, so that this one handles signals at once.
    (
        set -e
        nodes_join
        "test_$name"
    ) >"$work/$name.test" 2>&1 &
    wait $! || code=$?
    case "$name" in
        # Node B was started again by a shell that has ended, and it ends with it: another one for the next test.
        dead | failure)
            nodes_kill B
            nodes_start B || stop "node B does not start again"
            ;;
    esac
    if [ "$code" -eq 0 ]; then
        say "ok: $(describe "$name")"
    else
        cat "$work/$name.test"
        say "FAILED: $(describe "$name")"
        failed=$((failed + 1))
    fi
done
[ "$failed" -eq 0 ]
