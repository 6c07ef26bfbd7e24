#!/usr/bin/env bash
# Puts the tables of benches/results/ between their marks in README.md.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

for name in stages stream truth quality batch voxels scaling divided; do
    results=benches/results/$name.md
    [ -f "$results" ] || { echo "error: $results is not there: make bench, bench-stream, truth, quality, batch, voxels, scaling" >&2; exit 1; }
    # Only the table's lines: what is said around it stays with the results.
    awk -v mark="<!-- table: $name -->" -v file="$results" '
        $0 == mark {
            print
            while ((getline line <file) > 0) if (line ~ /^\|/) print line
            inside = 1
            next
        }
        inside && $0 == "<!-- /table -->" { inside = 0 }
        !inside { print }
    ' README.md >README.md.part
    mv README.md.part README.md
done
