# Two nodes, made on this machine by tests/nodes. Sourced by benches/faults.sh.
# shellcheck shell=bash disable=SC2034,SC2154 # variables of benches/faults.sh
title="Nodes"
# shellcheck source=tests/nodes/nodes.sh
. tests/nodes/nodes.sh
top=$PWD

# over_nodes TIMEOUT FAULT...: a long training on both nodes, which FAULT strikes after the first checkpoint.
over_nodes() {
    local timeout=$1 job code=0
    shift
    cd "$top" || return
    MAP=node nodes_mpirun 2 "$program" train "$sets/p.h5" -o "$work/case/run" --device cpu --threads 1 --gaussians 400 \
        --epochs 4000 --timeout "$timeout" &
    job=$!
    wait_for 60 compgen -G "$work/case/run/checkpoints/half2_*.h5"
    "$@"
    wait "$job" || code=$?
    nodes_join
    return "$code"
}

stop_beyond() { kill -STOP "$(pgrep -f "train $sets/p.h5" | while read -r process; do
    [ "$(nsenter --target "$process" --uts hostname 2>/dev/null)" != nodeB ] || echo "$process"
done | tail -n 1)"; }

reason=$(nodes_reason)
if [ -n "$reason" ]; then
    echo "| not tried: $reason | | | | |" | tee -a "$rows"
elif nodes_up "$work"; then
    trap 'nodes_down; finish_work' EXIT
    # mpirun waits for TCP's retransmissions to the lost node: seconds here, 15 minutes by default (slurm/README.md).
    network A sh -c 'echo 4 >/proc/sys/net/ipv4/tcp_retries2'
    keep "$sets/p.h5"
    fault "four ranks on two nodes: a rank of the other node is stopped, timeout 5 s" over_nodes 5 stop_beyond
    fault "four ranks on two nodes: the cable is cut, timeout 5 s" over_nodes 5 nodes_cut
    fault "four ranks on two nodes: a node loses its power, Open MPI's keepalive of 13 s" over_nodes 600 nodes_kill B
    nodes_down
else
    stop "the two nodes do not start"
fi
