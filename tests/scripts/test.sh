#!/usr/bin/env bash
# Everything that `make test` checks, one part after the other; the last line counts. A part that fails does not keep
# the others from running, and makes the exit code 1.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

log=target/test.log
mkdir -p target
: >"$log"
failed_parts=()

part() {
    local name=$1
    shift
    echo "== $name"
    if ! "$@" 2>&1 </dev/null | tee -a "$log"; then
        failed_parts+=("$name")
        echo "== $name FAILED"
    fi
}

# The documentation is for those who work on the program, so private items may be linked to.
documentation() {
    RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" \
        cargo doc --no-deps --document-private-items --locked
}

part "format" cargo fmt --check
part "clippy" cargo clippy --all-targets --locked -- -D warnings
part "documentation" documentation
part "charts" python3 benches/charts.py --check
# --no-fail-fast: a failure in one test program hides no other.
part "tests" cargo test --locked --no-fail-fast
# They have taken the widest instructions of this processor; what others will take, against the same reference.
levels=(portable)
! grep -qsw avx2 /proc/cpuinfo || levels+=(avx2)
for level in "${levels[@]}"; do
    part "instructions: $level" env "CRYOSPLAT_SIMD=$level" cargo test --locked --lib --test render
done
# What stands in for CUDA in those tests, by itself; and once more with the compiler's sanitizers in it and in the kernels.
part "emulator" tests/emulator/self_test.sh target/emulator
part "sanitizers" env CRYOSPLAT_EMULATOR_SANITIZE=1 cargo test --locked --test cuda
# cargo test has left the program of the same profile.
part "judges" tests/judges/run.sh
part "browser" tests/browser/run.sh
part "kernels" tests/kernels/run.sh
part "slurm" tests/slurm/run.sh

# cargo: "test result: ok. 12 passed; 0 failed; ..."; judges, browser, kernels and slurm: "ok: ..." and "FAILED: ...".
sum() { awk -v word="$1" '/^test result:/ { for (i = 2; i <= NF; i++) if ($i ~ "^" word) n += $(i - 1) } END { print n + 0 }' "$log"; }
passed=$(($(sum passed) + $(grep -c '^ok: ' "$log" || true)))
failed=$(($(sum failed) + $(grep -c '^FAILED: ' "$log" || true)))
skipped=$(($(sum ignored) + $(grep -c '^skipped: ' "$log" || true)))
for name in "${failed_parts[@]}"; do
    echo "failed: $name"
done
# A part can fail without a count: a warning, a program that does not build.
if [ "${#failed_parts[@]}" -gt "$failed" ]; then
    failed=${#failed_parts[@]}
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "${#failed_parts[@]}" -eq 0 ]
