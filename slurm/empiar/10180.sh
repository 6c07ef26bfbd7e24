#!/usr/bin/env bash
# EMPIAR-10180: the pre-catalytic spliceosome (Plaschka et al., Nature 2017). A mixture of conformations: this makes the
# one map of all.
#
# 327,490 particles of 320 px of 1.699 A (134 GB); box 256 px of 2.124 A, Nyquist 4.25 A. The paper: 4.26 A.
# The entry's STAR file of the consensus refinement has poses, CTFs and halves: nothing is converted.
# Variables and what is wanted: common.sh.
set -euo pipefail
entry=10180
# shellcheck source=slurm/empiar/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# The entry also has masks and maps: all of its folder, less what is no particle, is what its STAR file names.
download ""
import "$data/Example/consensus_data.star" --box "${BOX:-256}"
train
report 4.26
