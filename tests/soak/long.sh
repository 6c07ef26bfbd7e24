#!/usr/bin/env bash
# Trains for some minutes with streamed particles. Measures whether memory stays constant, and the error of the remaining time
# that the log estimates after the first epoch. Prints a section of Markdown.
#
#   tests/soak/long.sh
#
# SOAK_EPOCHS=N       epochs (default: 120, which take four minutes on two cores)
# CRYOSPLAT=PROGRAM   the program to run (default: target/release/cryosplat-mpi)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=tests/scripts/lib.sh
. tests/scripts/lib.sh

program=${CRYOSPLAT:-target/release/cryosplat-mpi}
epochs=${SOAK_EPOCHS:-120}
[ -x "$program" ] || stop "$program is not there: make build"
mkdir -p target/soak
work=$(mktemp --directory "$PWD/target/soak/long.XXXXXX")
trap 'rm -rf "$work"' EXIT

"$program" --log-level warn simulate --phantom --box 64 --pixel-size 5 --particles 10000 --snr 0.1 --seed 1 -o "$work/p.h5"
train=(train "$work/p.h5" -o "$work/run" --device cpu --threads 1 --cache none --gaussians 1000 --epochs "$epochs"
    --checkpoint-minutes 0.25 --metrics-every 10)
mpirun --allow-run-as-root --oversubscribe --bind-to none -n 2 "$program" "${train[@]}" 2>"$work/log" ||
    { tail -n 20 "$work/log" >&2; stop "the run failed"; }

# memory MODEL: resident memory at the end of the first epoch, of a tenth of the run, and of the run, and the most, in MiB.
memory() {
    awk -F '"host_bytes":' -v tenth="$((epochs / 10))" '/"loss"/ && NF > 1 {
        split($2, value, /[,}]/); split($0, epoch, /"epoch":/)
        mib = value[1] / 1048576
        if (epoch[2] + 0 <= 1 || !first) first = mib
        if (epoch[2] + 0 <= tenth || !early) early = mib
        last = mib; if (mib > most) most = mib }
        END { printf "%.1f MiB | %.1f MiB | %.1f MiB | %.1f MiB", first, early, last, most }' "$work/run/metrics_$1.jsonl"
}

# Error of the estimated end in each log line "... N images/s, M min S s left" after the first epoch, in % of the first estimate.
estimates() {
    awk '
        /INFO half1 epoch 1 of/ { after = 1 }
        / left(,|$)/ && after {
            n = split($0, word, " "); left = 0
            for (i = 1; i < n && word[i] !~ /^left/; i++) {
                if (word[i + 1] == "h") left += 3600 * word[i]
                if (word[i + 1] == "min") left += 60 * word[i]
                if (word[i + 1] == "s" && word[i + 2] ~ /^left/) left += word[i]
            }
            at[++count] = $1; estimated[count] = $1 + left
        }
        /INFO train half1: / { end = $1 }
        END {
            for (i = 1; i <= count; i++) { if (end - at[i] < 10) continue
                off = 100 * (estimated[i] - end) / (end - at[0 + 1]); if (off < 0) off = -off
                if (off > worst) worst = off; sum += off; lines++ }
            printf "%d lines; error %.1f%% of the first estimate in the mean, %.1f%% at most", lines, sum / lines, worst
        }' "$work/log"
}

echo "## A long run"
echo
echo "10,000 particles of 64 px on two ranks, \`--cache none --gaussians 1000 --epochs $epochs --checkpoint-minutes 0.25\`:" \
    "resident memory of the first rank of each half."
echo
echo "| | After the first epoch | After a tenth of the run | At the end | At most |"
echo "|---|--:|--:|--:|--:|"
for model in half1 half2; do
    echo "| $model | $(memory "$model") |"
done
echo
echo "Estimates of the remaining time in the log: $(estimates)."
