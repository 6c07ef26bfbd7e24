# Two hosts on one machine. Source it with the top folder of the repository as the working folder.
# shellcheck shell=bash
#
#   nodes_reason              prints why this machine cannot make them; nothing if it can
#   nodes_up FOLDER           starts nodeA (10.77.0.1) and nodeB (10.77.0.2), joined by a cable; their state is in FOLDER
#   on A COMMAND...           runs a command on node A (or B)
#   nodes_mpirun N COMMAND... runs a command on N ranks a node; MAP (default: slot) says how ranks are placed, see --map-by
#   nodes_cut, nodes_join     the cable loses every frame, without an error at either end; and no longer
#   nodes_kill B              kills all processes of a node at once, with its network
#   nodes_start B             starts a node that was killed
#   nodes_down                kills both
#
# A node has a network, host name, process numbers, shared memory, /dev/shm and /tmp of its own. FOLDER and the repository are shared,
# as on a cluster. Nothing of this is visible outside: no interface, name or address can clash with those of the machine or of
# another run, and a node is gone when its first process is. That process ends with the shell that started it.
#
# Without root, the nodes are made in a user namespace, where the system permits it: source enter.sh first.

nodes_folder=
nodes_shared=$PWD

nodes_reason() {
    local tool
    for tool in ip nsenter unshare setpriv python3; do
        if ! command -v "$tool" >/dev/null; then
            echo "$tool is missing (Debian's packages iproute2, util-linux and python3)"
            return
        fi
    done
    if [ "$(id -u)" -ne 0 ]; then
        echo "this user may make no namespaces"
    elif ! unshare --net --uts --ipc --mount --pid --fork --kill-child bash -c '
        mount -t tmpfs tmpfs /mnt && mount -t proc proc /proc && ip link add eth0 type veth peer name eth1' 2>/dev/null; then
        echo "this system permits no namespaces, or has no veth"
    fi
}

nodes_up() {
    nodes_folder=$(realpath "$1")
    mkdir -p "$nodes_folder"
    printf '%s\n' "127.0.0.1 localhost" "10.77.0.1 nodeA" "10.77.0.2 nodeB" >"$nodes_folder/hosts"
    nodes_start A
    nodes_start B
}

# The number of a node's first process, as seen from outside.
node_process() { cat "$nodes_folder/node$1.pid"; }

nodes_start() {
    local name=$1 parent pid="" end=$((SECONDS + 20))
    rm -f "$nodes_folder/node$name".{pid,ready}
    setpriv --pdeathsig KILL unshare --net --uts --ipc --mount --pid --fork --kill-child \
        bash tests/nodes/boot.sh "$name" "$nodes_folder" "$nodes_shared" >"$nodes_folder/node$name.log" 2>&1 </dev/null &
    parent=$!
    disown "$parent"
    until [ -e "$nodes_folder/node$name.ready" ]; do
        [ "$SECONDS" -lt "$end" ] || return 1
        sleep 0.05
    done
    read -r pid _ <"/proc/$parent/task/$parent/children" || [ -n "$pid" ]
    echo "$pid" >"$nodes_folder/node$name.pid"
    nodes_cable
}

# Connects the nodes if both are there.
nodes_cable() {
    local node number a b
    [ -s "$nodes_folder/nodeA.pid" ] && [ -s "$nodes_folder/nodeB.pid" ] || return 0
    a=$(node_process A)
    b=$(node_process B)
    nsenter --target "$a" --net ip link add eth0 type veth peer name eth0 netns "$b"
    for node in A B; do
        number=1
        [ "$node" = A ] || number=2
        # Fixed hardware addresses, so that a node that starts again is found at once.
        nsenter --target "$(node_process "$node")" --net sh -ec "
            ip link set lo up
            ip link set eth0 address 02:00:00:00:77:0$number
            ip addr add 10.77.0.$number/24 dev eth0
            ip link set eth0 up"
    done
}

on() {
    local node=$1
    shift
    nsenter --target "$(node_process "$node")" --net --uts --ipc --mount --pid --wd="$PWD" -- "$@"
}

# Frames to a hardware address that nobody has are lost in silence, as in a switch that has failed.
nodes_cut() {
    on A ip neigh replace 10.77.0.2 lladdr 02:00:00:00:66:66 dev eth0 nud permanent
    on B ip neigh replace 10.77.0.1 lladdr 02:00:00:00:66:66 dev eth0 nud permanent
}
nodes_join() {
    on A ip neigh replace 10.77.0.2 lladdr 02:00:00:00:77:02 dev eth0 nud permanent
    on B ip neigh replace 10.77.0.1 lladdr 02:00:00:00:77:01 dev eth0 nud permanent
}

nodes_kill() {
    kill -KILL "$(node_process "$1")" 2>/dev/null || true
    rm -f "$nodes_folder/node$1.pid"
}

nodes_down() {
    local node
    [ -n "$nodes_folder" ] || return 0
    for node in A B; do
        [ ! -s "$nodes_folder/node$node.pid" ] || nodes_kill "$node"
    done
}

# What slurm/README.md says of Open MPI's own connections, and what this machine needs: two cores for all ranks.
nodes_mpirun() {
    local ranks=$1
    shift
    on A env TMPDIR=/tmp OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_btl_vader_single_copy_mechanism=none \
        mpirun --allow-run-as-root --bind-to none --map-by "${MAP:-slot}" -H "nodeA:$ranks,nodeB:$ranks" -n $((2 * ranks)) \
        --mca plm_rsh_agent "$nodes_shared/tests/nodes/shell.py" --mca oob_tcp_if_include eth0 --mca btl_tcp_if_include eth0 \
        --mca pml ob1 --mca btl self,vader,tcp "${mpirun_options[@]}" "$@" </dev/null
}
mpirun_options=()
