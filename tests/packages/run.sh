#!/usr/bin/env bash
# Makes the release archive and uses it as a stranger would; checks the recipes of slurm/packages. One line each: "ok: ...",
# "skipped: ..." or "FAILED: ...".
#
#   tests/packages/run.sh
#
# CRYOSPLAT names the program that the archive gets (default: target/debug/cryosplat-mpi).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=tests/scripts/lib.sh
. tests/scripts/lib.sh

program=$(realpath "${CRYOSPLAT:-target/debug/cryosplat-mpi}")
[ -x "$program" ] || stop "$program is not there: cargo build"
make_work "${TMPDIR:-/tmp}/cryosplat-packages.XXXXXX"
require() {
    "$@" && return
    say "wrong: condition not met: $*"
    return 1
}

test_archive() {
    local first second
    first=$(PROGRAM=$program slurm/packages/dist.sh "$work/first")
    # Another time, another mask, files of another age.
    second=$(umask 077 && PROGRAM=$program slurm/packages/dist.sh "$work/second")
    require cmp "$first" "$second"
    require test "$(tar --list --verbose --file "$first" | awk '{ print $2 }' | sort -u)" = 0/0
}

# An empty folder and environment, with the system's programs on the PATH.
stranger() { (cd "$work/stranger" && env -i PATH="$PWD/bin:/usr/bin:/bin" HOME="$work/stranger" "$@"); }
test_use() {
    local archive file
    archive=$(find "$work/first" -name '*.tar.gz')
    mkdir "$work/stranger"
    (cd "$work/first" && sha256sum --check --quiet ./*.sha256)
    tar --extract --file "$archive" --directory "$work/stranger" --strip-components=1
    stranger sha256sum --check --quiet SHA256SUMS
    require test "$(stranger cryosplat-mpi --version)" = "cryosplat-mpi $(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)"
    require grep -q '^\.TH cryosplat-mpi 1' "$work/stranger/share/man/man1/cryosplat-mpi.1"
    if command -v man >/dev/null; then
        stranger man --local-file --warnings share/man/man1/cryosplat-mpi.1 >"$work/man" 2>"$work/man.warnings"
        require grep -q SYNOPSIS "$work/man"
    fi
    stranger bash -c '. share/bash-completion/completions/cryosplat-mpi && complete -p cryosplat-mpi'
    for file in README LICENSE share/doc/cryosplat-mpi/{LICENSE,LICENCES-OF-CRATES.txt,guide.md} share/zsh/site-functions/_cryosplat-mpi \
        share/fish/vendor_completions.d/cryosplat-mpi.fish share/cryosplat-mpi/slurm/{README.md,single-node.sbatch,empiar/common.sh}; do
        require test -s "$work/stranger/$file"
    done
    # Stripped, and with the kernels inside.
    require test -z "$(objdump --section-headers "$work/stranger/bin/cryosplat-mpi" | grep debug_info)"
    require grep -q "__global__" "$work/stranger/bin/cryosplat-mpi"
    stranger cryosplat-mpi simulate --phantom --box 32 --pixel-size 6 --particles 64 -o p.h5
    stranger cryosplat-mpi train p.h5 -o run --device cpu --gaussians 24 --epochs 1 --mixtures 1
    require test -s "$work/stranger/run/map.mrc"
}
test_licences() {
    cargo metadata --locked --format-version 1 --filter-platform "$(rustc -vV | sed -n 's/^host: //p')" >"$work/metadata.json"
    python3 slurm/packages/licences.py <"$work/metadata.json" >"$work/licences"
    require grep -q '^rayon ' "$work/licences"
    # A crate without a text, under a licence that needs one.
    sed 's|"license":"[^"]*","license_file":null|"license":"MIT","license_file":null|g' "$work/metadata.json" >"$work/mit.json"
    ! python3 slurm/packages/licences.py <"$work/mit.json" >/dev/null 2>"$work/problems" || return 1
    require grep -q 'error: .*: MIT, but no text is there' "$work/problems"
}
test_recipes() { python3 tests/packages/recipes.py; }

failed=0
perform() {
    local name=$1 code
    set +e
    (
        set -e
        "test_$name"
    ) >"$work/$name.test" 2>&1
    code=$?
    set -e
    if [ "$code" -eq 0 ]; then
        say "ok: $2"
    else
        cat "$work/$name.test"
        say "FAILED: $2"
        failed=$((failed + 1))
    fi
}
perform archive "release archive: the same bytes twice"
perform use "release archive: unpacked in an empty folder, it simulates and trains; manual, completions, templates and licences are there"
perform licences "release archive: licences of all crates; a crate without one is an error"
perform recipes "recipes of slurm/packages: version, files, hashes, digests, search paths"
[ "$failed" -eq 0 ]
