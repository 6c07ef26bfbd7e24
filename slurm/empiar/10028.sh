#!/usr/bin/env bash
# EMPIAR-10028: the 80S ribosome of Plasmodium falciparum with emetine (Wong et al., eLife 2014).
#
# 105,247 particles of 360 px of 1.34 A (55 GB); box 256 px of 1.884 A, Nyquist 3.77 A. The paper: 3.80 A.
# Variables and requirements: see common.sh.
set -euo pipefail
entry=10028
# shellcheck source=slurm/empiar/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# Line 5476 of this STAR file is known to contain a stray character; only image names are read from the file.
download Particles/
download_poses
stacks_of "$poses/shiny_2sets.star" >"$work/stacks.txt"
import_poses --box "${BOX:-256}"
train
report 3.80
