#!/usr/bin/env bash
# The demonstration: simulates particles of the 70S ribosome, trains both half maps over MPI and prints their FSC. Writes to demo/.
# A second call keeps the particles and repeats the training.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=tests/scripts/lib.sh
. tests/scripts/lib.sh

program=${CRYOSPLAT:-target/release/cryosplat-mpi}
particles=demo/particles.h5
truth=demo/particles_truth.mrc
settings=(--box 72 --pixel-size 5 --particles 10000 --snr 0.05 --seed 1)

mkdir -p demo
if tests/demo/model.sh; then
    source=(--model target/demo/4v5d.cif)
    subject="the 70S ribosome (PDB entry 4V5D)"
else
    source=(--phantom)
    subject="a built-in phantom"
    say "demo: the model of the ribosome is not available (see above): using a phantom instead"
fi

# Keeps particles of the same options and program. The record is written last, so it proves that the files are complete.
record="${source[*]} ${settings[*]} $("$program" --version)"
if [ -f "$particles" ] && [ -f "$truth" ] && [ "$(cat demo/simulated.txt 2>/dev/null)" = "$record" ]; then
    say "demo: keeping $particles"
else
    rm -f demo/simulated.txt
    say "demo: simulating 10,000 images of $subject"
    "$program" simulate "${source[@]}" -o "$particles" "${settings[@]}"
    echo "$record" >demo/simulated.txt
fi

rm -rf demo/run
say "demo: training both half maps on 2 MPI ranks: a few minutes on two cores"
run_ranks 2 "$program" train "$particles" -o demo/run --gaussians 5120 --truth "$truth"

# crossing COLUMN THRESHOLD: the resolution, interpolated, where that column of fsc.csv first falls below the threshold.
crossing() {
    awk -F , -v column="$1" -v threshold="$2" '
        NR == 1 { for (i = 1; i <= NF; i++) if ($i == column) c = i; next }
        !done && $c < threshold {
            f = NR == 2 ? $2 : f0 + ($2 - f0) * (v0 - threshold) / (v0 - $c)
            printf "%.2f A", 1 / f
            done = 1
        }
        { f0 = $2; v0 = $c }
        END { if (!done) printf "finer than %.2f A, the last shell of this box", 1 / f0 }' demo/run/fsc.csv
}

# by_shell: the rows of fsc.csv nearest to round resolutions, and the last row.
by_shell() {
    awk -F , '
        NR == 1 { for (i = 1; i <= NF; i++) column[$i] = i }
        NR > 1 { n++; resolution[n] = $3; halves[n] = $column["half maps"]; checked[n] = $column["cross-validated"]; truth[n] = $column["map against truth"] }
        END {
            count = split("60 30 20 15 12", wanted, " ")
            for (i = 1; i <= count + 1; i++) {
                best = n
                for (j = 1; i <= count && j <= n; j++) {
                    d = resolution[j] - wanted[i]; e = resolution[best] - wanted[i]
                    if (d * d < e * e) best = j
                }
                if (best != shown) printf "  %8.1f A %15.3f %18s %22.3f\n", resolution[best], halves[best], checked[best] == "" ? "-" : sprintf("%.3f", checked[best]), truth[best]
                shown = best
            }
        }' demo/run/fsc.csv
}

cat <<END

Done: $subject from 10,000 noisy images.

  Resolution (half maps, FSC 0.143):     $(crossing "half maps" 0.143)
  Map against the truth (FSC 0.5):       $(crossing "map against truth" 0.5)

  Resolution   FSC of half maps   cross-validated   FSC against the truth
$(by_shell)

  Cross-validated: the half maps compared with voxel maps of the other half's particles, without using the truth. The FSC of the
  final map against the truth is higher than that between its half maps, because it contains all particles.

Results:
  demo/run/report.html   the run on one page
  demo/run/slices.png    slices of the half maps, the map and the truth
  demo/run/fsc.png       the FSC curves
  demo/run/map.mrc       the map, for ChimeraX, RELION or cryoSPARC
END
