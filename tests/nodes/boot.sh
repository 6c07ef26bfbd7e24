#!/usr/bin/env bash
# The first process of a node, started by nodes.sh in namespaces of its own: boot.sh NAME FOLDER SHARED. FOLDER and SHARED stay
# visible; the rest of /tmp does not.
set -euo pipefail
name=$1
folder=$2
shared=$3
hostname "node$name"
mount -t proc proc /proc
mount --bind "$folder/hosts" /etc/hosts
mkdir -p "$folder/tmp$name"
mount -t tmpfs -o size=1g tmpfs "$folder/tmp$name"
for kept in "$folder" "$shared"; do
    if [[ $kept == /tmp/* ]]; then
        mkdir -p "$folder/tmp$name/${kept#/tmp/}"
        mount --bind "$kept" "$folder/tmp$name/${kept#/tmp/}"
    fi
done
mount --move "$folder/tmp$name" /tmp
chmod 1777 /tmp
mount -t tmpfs -o size=1g tmpfs /dev/shm
python3 "$shared/tests/nodes/shell.py" serve &
: >"$folder/node$name.ready"
# Collects processes whose parents are gone, as any first process must.
while true; do
    sleep 1000 &
    wait $! || true
done
