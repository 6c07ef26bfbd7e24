# A real SLURM with one node, in its own folder. Source it with the top folder of the repository as the working folder.
# shellcheck shell=bash
#
#   cluster_reason            prints why SLURM cannot run here; nothing if it can
#   cluster_start FOLDER      starts controller, node and munge as child processes; sets SLURM_CONF
#   cluster_stop              ends the jobs and these processes
#
# Ports, spool folders, key and sockets are separate from those of a SLURM installation of the machine. The node claims more CPUs
# than there are, and four GPUs. Partitions: `gpu` and `cpu`, as in the templates, and `urgent`, whose jobs preempt those of
# `preempt`.

cluster_processes=()

cluster_reason() {
    local tool
    if [ "$(id -u)" -ne 0 ]; then
        echo "the SLURM daemons need root"
        return
    fi
    for tool in slurmctld slurmd munged srun sbatch scontrol; do
        if ! command -v "$tool" >/dev/null; then
            echo "$tool is missing (Debian's packages slurm-wlm and munge)"
            return
        fi
    done
    # `srun --mpi=list` would need a configuration.
    if [ -z "$(find /usr/lib /usr/lib64 /usr/local /opt -path '*slurm*' -name mpi_pmix.so -print -quit 2>/dev/null)" ]; then
        echo "this SLURM has no PMIx plugin"
    fi
}

# Finds a free port.
free_port() {
    local port
    while true; do
        port=$((20000 + RANDOM % 12000))
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
    done
    echo "$port"
}

# wait_for SECONDS COMMAND...: waits until the command succeeds.
wait_for() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$end" ] || return 1
        sleep 0.2
    done
}

# cluster_configure FOLDER CONTROLLER NODES LINE...: makes folders, key and configuration, with a LINE for each of the NODES, which
# are named with commas.
cluster_configure() {
    local folder=$1 controller=$2 nodes=$3 i
    shift 3
    mkdir -p "$folder"/{state,spool,log,run,gpu,pmix}
    chmod 755 "$folder"

    # GPUs are device files. Plain files suffice where device files cannot be created, because nothing opens them.
    for i in 0 1 2 3; do
        mknod "$folder/gpu/nvidia$i" c 1 3 2>/dev/null || : >"$folder/gpu/nvidia$i"
    done
    echo "Name=gpu File=$folder/gpu/nvidia[0-3]" >"$folder/gres.conf"

    # PMIx names its folders by user, job and step only. A folder left in /tmp by another cluster whose test was killed would end
    # the job of the same number here.
    echo "PMIxCliTmpDirBase=$folder/pmix" >"$folder/mpi.conf"

    # A requeued job also waits for cred_expire before it can start again: two minutes by default.
    cat >"$folder/slurm.conf" <<END
ClusterName=cryosplat
SlurmctldHost=$controller
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CryptoType=crypto/munge
AuthInfo=socket=$folder/run/munge,cred_expire=5
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool/%n
SlurmctldPidFile=$folder/run/slurmctld.pid
SlurmdPidFile=$folder/run/slurmd-%n.pid
SlurmctldLogFile=$folder/log/slurmctld
SlurmdLogFile=$folder/log/slurmd-%n
SwitchType=switch/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
OverTimeLimit=0
KillWait=10
MinJobAge=600
GresTypes=gpu
$(for i in "$@"; do echo "$i CPUs=32 Sockets=1 CoresPerSocket=32 ThreadsPerCore=1 RealMemory=1000000 Gres=gpu:4"; done)
PartitionName=gpu Nodes=$nodes Default=YES MaxTime=24:00:00 PriorityTier=10 PreemptMode=OFF
PartitionName=cpu Nodes=$nodes MaxTime=24:00:00 PriorityTier=10 PreemptMode=OFF
PartitionName=preempt Nodes=$nodes MaxTime=24:00:00 PriorityTier=1 GraceTime=30
PartitionName=urgent Nodes=$nodes MaxTime=24:00:00 PriorityTier=20 PreemptMode=OFF
END
    head -c 1024 /dev/urandom >"$folder/munge.key"
    chmod 400 "$folder/munge.key"
}

cluster_start() {
    local folder=$1 node
    node=$(hostname -s)
    cluster_configure "$folder" "$node(127.0.0.1)" "$node" "NodeName=$node NodeAddr=127.0.0.1"
    export SLURM_CONF=$folder/slurm.conf
    cluster_daemon munged --foreground --force --key-file "$folder/munge.key" --socket "$folder/run/munge" \
        --pid-file "$folder/run/munged.pid" --seed-file "$folder/run/munge.seed" --log-file "$folder/log/munged"
    wait_for 10 test -S "$folder/run/munge" || return 1
    cluster_daemon slurmctld -D -i
    cluster_daemon slurmd -D
    wait_for 30 node_is_idle
}

# A daemon that ends with this shell in any case.
cluster_daemon() {
    setpriv --pdeathsig TERM "$@" >"${SLURM_CONF%/*}/log/$1.out" 2>&1 </dev/null &
    cluster_processes+=($!)
}

node_is_idle() { [[ $(sinfo --noheader --partition gpu --format %T 2>&1) == idle ]]; }

cluster_stop() {
    local process i
    [ "${#cluster_processes[@]}" -gt 0 ] || return 0
    scancel --user root >/dev/null 2>&1 || true
    wait_for 15 no_jobs || true
    # The node first, because it notifies the controller.
    for ((i = ${#cluster_processes[@]} - 1; i >= 0; i--)); do
        process=${cluster_processes[i]}
        kill "$process" 2>/dev/null || true
        wait_for 10 gone "$process" || kill -KILL "$process" 2>/dev/null || true
        wait "$process" 2>/dev/null || true
    done
    cluster_processes=()
    # Left-overs of a node that had to be killed.
    for process in /proc/[0-9]*; do
        if grep -qsz "^SLURM_CONF=$SLURM_CONF\$" "$process/environ"; then
            kill -KILL "${process#/proc/}" 2>/dev/null || true
        fi
    done
}

no_jobs() { [ -z "$(squeue --noheader 2>/dev/null)" ]; }
gone() { ! kill -0 "$1" 2>/dev/null; }
