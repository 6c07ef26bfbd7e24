# Two hosts on one machine. Source it after tests/slurm/cluster.sh, with the top folder of the repository as the working folder.
# shellcheck shell=bash
#
#   nodes_reason              prints why this machine cannot make them; nothing if it can
#   nodes_up FOLDER           starts nodeA (10.77.0.1) and nodeB (10.77.0.2), joined by a cable; their state is in FOLDER
#   on A COMMAND...           runs a command on node A (or B)
#   nodes_mpirun N COMMAND... runs a command on N ranks a node; MAP (default: slot) says how ranks are placed, see --map-by
#   nodes_cut, nodes_join     the cable loses every frame, without an error at either end; and no longer
#   nodes_kill B              kills all processes of a node at once, behind a cut cable
#   nodes_start B             starts a node that was killed
#   nodes_down                kills both
#
# A node has a network, host name, process numbers, shared memory, /dev/shm and /tmp of its own. FOLDER and the repository are shared,
# as on a cluster. Nothing of this is visible outside: no interface, name or address can clash with those of the machine or of
# another run, and a node is gone when its first process is. That process ends with the shell that started it.

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
    local node number=0
    nodes_folder=$(realpath "$1")
    mkdir -p "$nodes_folder"
    printf '%s\n' "127.0.0.1 localhost" "10.77.0.1 nodeA" "10.77.0.2 nodeB" >"$nodes_folder/hosts"
    # The network of a node outlives it, as its cable does.
    for node in A B; do
        setpriv --pdeathsig KILL unshare --net sleep infinity </dev/null >/dev/null 2>&1 &
        echo $! >"$nodes_folder/network$node.pid"
        disown $!
    done
    wait_for 10 separate A && wait_for 10 separate B || return 1
    network A ip link add eth0 type veth peer name eth0 netns "$(cat "$nodes_folder/networkB.pid")"
    for node in A B; do
        number=$((number + 1))
        # Fixed hardware addresses, so that nodes_join knows them.
        network "$node" sh -ec "
            ip link set lo up
            ip link set eth0 address 02:00:00:00:77:0$number
            ip addr add 10.77.0.$number/24 dev eth0
            ip link set eth0 up"
    done
    nodes_start A && nodes_start B
}
separate() { [ "$(readlink "/proc/$(cat "$nodes_folder/network$1.pid")/ns/net")" != "$(readlink /proc/self/ns/net)" ]; }

# network A COMMAND...: runs a command of this machine on the network of a node.
network() {
    local node=$1
    shift
    nsenter --target "$(cat "$nodes_folder/network$node.pid")" --net -- "$@"
}

# The number of a node's first process, as seen from outside.
node_process() { cat "$nodes_folder/node$1.pid"; }

nodes_start() {
    local name=$1 parent pid=""
    rm -f "$nodes_folder/node$name".{pid,ready}
    # nsenter and setpriv become unshare, so that its child is the first process.
    nsenter --target "$(cat "$nodes_folder/network$name.pid")" --net setpriv --pdeathsig KILL \
        unshare --uts --ipc --mount --pid --fork --kill-child \
        bash tests/nodes/boot.sh "$name" "$nodes_folder" "$nodes_shared" >"$nodes_folder/node$name.log" 2>&1 </dev/null &
    parent=$!
    disown "$parent"
    wait_for 20 test -e "$nodes_folder/node$name.ready" || return 1
    read -r pid _ <"/proc/$parent/task/$parent/children" || [ -n "$pid" ] || return 1
    echo "$pid" >"$nodes_folder/node$name.pid"
    nodes_join
}

on() {
    local node=$1
    shift
    nsenter --target "$(node_process "$node")" --net --uts --ipc --mount --pid --wd="$PWD" -- "$@"
}

# Frames to a hardware address that nobody has are lost in silence, as in a switch that has failed.
nodes_cut() { nodes_neighbours 02:00:00:00:66:66 02:00:00:00:66:66; }
nodes_join() { nodes_neighbours 02:00:00:00:77:01 02:00:00:00:77:02; }
nodes_neighbours() {
    network B ip neigh replace 10.77.0.1 lladdr "$1" dev eth0 nud permanent
    network A ip neigh replace 10.77.0.2 lladdr "$2" dev eth0 nud permanent
}

# A machine that loses its power closes no connection: the cable is cut first.
nodes_kill() {
    nodes_cut
    kill -KILL "$(node_process "$1")" 2>/dev/null || true
    rm -f "$nodes_folder/node$1.pid"
}

nodes_down() {
    local file
    [ -n "$nodes_folder" ] || return 0
    for file in "$nodes_folder"/{node,network}{A,B}.pid; do
        [ ! -s "$file" ] || kill -KILL "$(cat "$file")" 2>/dev/null || true
        rm -f "$file"
    done
}

# Open MPI with the keepalive settings of slurm/README.md, and with what this machine needs: two cores for all ranks.
nodes_mpirun() {
    local ranks=$1
    shift
    on A env TMPDIR=/tmp OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_btl_vader_single_copy_mechanism=none \
        mpirun --allow-run-as-root --bind-to none --map-by "${MAP:-slot}" -H "nodeA:$ranks,nodeB:$ranks" -n $((2 * ranks)) \
        --mca plm_rsh_agent "$nodes_shared/tests/nodes/shell.py" --mca oob_tcp_if_include eth0 --mca btl_tcp_if_include eth0 \
        --mca pml ob1 --mca btl self,vader,tcp "${keepalive[@]}" "$@" </dev/null
}
keepalive=(--mca oob_tcp_keepalive_time 5 --mca oob_tcp_keepalive_intvl 2 --mca oob_tcp_keepalive_probes 4)
