#!/usr/bin/env bash
# Carries out slurm/apptainer.def without Apptainer: its root file system is made with debootstrap, and %post, %environment and %test
# run in it by chroot. Needs root, debootstrap and the network (2 GB); not part of `make test`.
#
#   tests/packages/container.sh [ROOT]     ROOT: the folder to make it in, or one that debootstrap has made; default: a temporary one
#
# PROGRAM=FILE is put into the archive in place of a new release build. MIRROR is a mirror of Debian's packages.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=tests/scripts/lib.sh
. tests/scripts/lib.sh

what="apptainer.def: debootstrap, %post and %test in a chroot"
if [ "$(id -u)" -ne 0 ] || ! command -v debootstrap >/dev/null; then
    say "skipped: $what: needs root and debootstrap"
    exit 0
fi
make_work "${TMPDIR:-/tmp}/cryosplat-container.XXXXXX"
root=${1:-$work/root}
mirror=${MIRROR:-$({ grep -rhoE '^(URIs:|deb) *(\[[^]]*\] *)?[^ ]+' /etc/apt/sources.list /etc/apt/sources.list.d 2>/dev/null || true; } |
    grep -oE '[a-z]+://[^ ]+' | head -n 1)}
section() { awk -v name="%$1" '/^%/ { inside = $1 == name; next } inside' slurm/apptainer.def; }
inside() { chroot "$root" env -i PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin HOME=/root OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 "$@"; }

[ -d "$root/etc/apt" ] || debootstrap --variant=minbase "$(sed -n 's/^OSVersion: //p' slurm/apptainer.def)" "$root" "$mirror"
archive=$(slurm/packages/dist.sh "$work")
while read -r from to; do
    cp "$from" "$root$to"
done < <(section files | sed "s|{{ archive }}|$archive|" | awk 'NF == 2')
# What Apptainer makes available while it builds.
cp /etc/resolv.conf "$root/etc/resolv.conf"
mounts=(/proc /dev)
for mount in "${mounts[@]}"; do mount --rbind "$mount" "$root$mount"; mount --make-rslave "$root$mount"; done
finish() {
    for mount in "${mounts[@]}"; do umount --recursive --lazy "$root$mount" || true; done
    finish_work
}
trap finish EXIT
# Certificates and settings of this machine's pip, where it needs some.
settings=()
for variable in PIP_CERT PIP_INDEX_URL; do [ -z "${!variable:-}" ] || settings+=("$variable=${!variable}"); done
if [ -n "${PIP_CERT:-}" ]; then install -D "$PIP_CERT" "$root$PIP_CERT"; fi

section post | inside "${settings[@]}" sh -s
{
    section environment
    # shellcheck disable=SC2016 # the shell in the chroot expands it
    echo 'case $LD_LIBRARY_PATH: in *::*) echo "an empty element in LD_LIBRARY_PATH"; exit 1 ;; esac; set -e'
    section test
} | inside sh -s
say "ok: $what ($(du -sh --exclude=proc --exclude=dev "$root" | cut -f 1))"
