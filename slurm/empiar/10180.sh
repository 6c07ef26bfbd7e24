#!/usr/bin/env bash
# EMPIAR-10180: the pre-catalytic spliceosome (Plaschka et al., Nature 2017). It has several
# conformations; this script makes one map of all.
#
# 327,490 particles of 320 px of 1.699 A (134 GB); box 256 px of 2.124 A, Nyquist 4.25 A. The paper: 4.26 A.
# The entry's STAR file of the consensus refinement has poses, CTFs and halves: nothing is converted.
# Variables and requirements: see common.sh.
set -euo pipefail
entry=10180
# shellcheck source=slurm/empiar/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# The folder of the entry contains the particles of the STAR file, and also masks and maps.
download ""
import "$data/Example/consensus_data.star" --box "${BOX:-256}"
train
report 4.26
