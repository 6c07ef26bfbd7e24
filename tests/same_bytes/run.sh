#!/usr/bin/env bash
# Proves that a refactoring changes no result: runs the cases of matrix.py (import of every format, simulate, train with its
# recipes, caches, ranks, SIMD levels and resumptions, CUDA on the emulator, backproject, and what reads their outputs) with
# two programs, and compares all outputs without times, versions, hosts and paths. Exit code 1: a case differs or failed.
#
#   tests/same_bytes/run.sh COMMIT                    builds COMMIT and the working tree (release), and compares them
#   tests/same_bytes/run.sh --base-binary A --binary B   compares two programs that are built
#   ... [--only 'train-*'] [--expect FILE] [--text] [--fresh] [--jobs N] [--values N] [--list] [--self-test]
#
# Class "data" must be the same. Class "text" (logs, help, captions, comments) is reported, shown with --text, and never fails.
# --expect FILE states exceptions, one a line: CASE FILE KEY REASON, the first three with * and ? as wildcards, quoted if they
# hold spaces: `* run.json "*identity*" the identity of a set is a SHA-256 now`. Outputs are kept by the program's hash in
# target/same-bytes/cache, so that only a new program runs (some minutes on two cores). The inputs are made by Python and the
# base program; both programs read the same ones, and the real files of ../shared/data where they are there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=tests/scripts/lib.sh
. tests/scripts/lib.sh

out=target/same-bytes
mkdir -p "$out"

# build COMMIT: its release binary, kept as $out/binaries/HASH; prints the path.
build() {
    local commit binary source=$out/source
    commit=$(git rev-parse --verify "$1^{commit}")
    binary=$out/binaries/$commit
    if [ ! -x "$binary" ]; then
        say "building $1 ($commit)" >&2
        rm -rf "$source"
        mkdir -p "$source" "$out/binaries"
        git archive "$commit" | tar --extract --directory "$source"
        # A target folder of its own: the working tree's stays warm.
        (cd "$source" && CARGO_TARGET_DIR=../build cargo build --release --locked --quiet) >&2
        cp "$out/build/release/cryosplat-mpi" "$binary.part"
        mv "$binary.part" "$binary"
        rm -rf "$source"
    fi
    echo "$binary"
}

programs=()
if [ "$#" -gt 0 ] && [ "${1#-}" = "$1" ]; then
    base=$(build "$1")
    shift
    cargo build --release --locked
    programs=(--base-binary "$base" --binary "${CARGO_TARGET_DIR:-target}/release/cryosplat-mpi")
fi
make_venv "$out/venv" tests/same_bytes/requirements.txt ||
    stop "pip could not install $(requirement_names tests/same_bytes/requirements.txt)"
tests/emulator/build.sh target/emulator
shared=()
if [ -d ../shared/data/real ]; then
    shared=(--shared ../shared)
fi
export PYTHONDONTWRITEBYTECODE=1
exec "$out/venv/bin/python" tests/same_bytes/same_bytes.py --cache "$out/cache" --emulator target/emulator \
    "${shared[@]}" "${programs[@]}" "$@"
