#!/usr/bin/env bash
# Makes the release archive: target/dist/cryosplat-mpi-VERSION-MACHINE.tar.gz, and its SHA-256 beside it.
#
#   slurm/packages/dist.sh [FOLDER]      writes to FOLDER (default: target/dist)
#
# The same sources, toolchain and libraries give the same bytes: paths of this machine are removed from the program, the archive is
# sorted, and all times are that of the commit (or SOURCE_DATE_EPOCH). PROGRAM=FILE packs a program that is already built.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=tests/scripts/lib.sh
. tests/scripts/lib.sh

output=${1:-target/dist}
mkdir -p "$output"
output=$(realpath "$output")
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
name=cryosplat-mpi-$version-$(uname -m)-linux
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
program=${PROGRAM:-}
if [ -z "$program" ]; then
    # Its own folder of outputs, because other flags rebuild every crate.
    RUSTFLAGS="--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo --remap-path-prefix=$PWD=/cryosplat-mpi ${RUSTFLAGS:-}" \
        cargo build --release --locked --bin cryosplat-mpi --target-dir target/dist-build
    program=target/dist-build/release/cryosplat-mpi
fi

make_work "${TMPDIR:-/tmp}/cryosplat-dist.XXXXXX"
top=$work/$name
umask 022
install -D --mode 755 "$program" "$top/bin/cryosplat-mpi"
strip --strip-all "$top/bin/cryosplat-mpi"
run() { "$top/bin/cryosplat-mpi" "$@"; }
share=$top/share

mkdir -p "$share"/{man/man1,bash-completion/completions,zsh/site-functions,fish/vendor_completions.d} "$share/doc/cryosplat-mpi"
run man >"$share/man/man1/cryosplat-mpi.1"
run completions bash >"$share/bash-completion/completions/cryosplat-mpi"
run completions zsh >"$share/zsh/site-functions/_cryosplat-mpi"
run completions fish >"$share/fish/vendor_completions.d/cryosplat-mpi.fish"

doc=$share/doc/cryosplat-mpi
cp LICENSE CHANGELOG.md docs/guide.md docs/method.md "$doc"
cp LICENSE "$top"
cargo metadata --locked --format-version 1 --filter-platform "$(rustc -vV | sed -n 's/^host: //p')" |
    python3 slurm/packages/licences.py >"$doc/LICENCES-OF-CRATES.txt"
{
    echo "cryosplat-mpi $version, $(uname -m), built with $(rustc --version)"
    echo
    echo "It opens these libraries of the system when it starts. Its MPI is the one it was built with:"
    objdump -p "$top/bin/cryosplat-mpi" | awk '$1 == "NEEDED" { print "    " $2 }'
    echo "    C library: at least $(objdump -T "$top/bin/cryosplat-mpi" | grep -o 'GLIBC_[0-9.]*' | sort -Vu | tail -n 1)"
    echo "On NVIDIA GPUs also libcuda, libnvrtc, libcufft and, for the all-reduce, libnccl. The kernels are inside the program."
    echo
    echo "    export PATH=\$PWD/bin:\$PATH"
    echo "    export MANPATH=\$PWD/share/man:"
    echo "    cryosplat-mpi --help; man cryosplat-mpi; batch templates: share/cryosplat-mpi/slurm"
} >"$top/README"

mkdir -p "$share/cryosplat-mpi/slurm/empiar"
cp slurm/README.md slurm/*.sbatch "$share/cryosplat-mpi/slurm"
cp slurm/empiar/* "$share/cryosplat-mpi/slurm/empiar"
(cd "$top" && find . -type f -printf '%P\n' | LC_ALL=C sort | xargs sha256sum) >"$work/sums"
mv "$work/sums" "$top/SHA256SUMS"

chmod -R u=rwX,go=rX "$top"
tar --create --directory "$work" --sort=name --format=posix --pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime \
    --owner=0 --group=0 --numeric-owner --mtime="@$epoch" "$name" | gzip --no-name --best >"$output/$name.tar.gz.part"
mv "$output/$name.tar.gz.part" "$output/$name.tar.gz"
(cd "$output" && sha256sum "$name.tar.gz" >"$name.tar.gz.sha256")
say "$output/$name.tar.gz"
