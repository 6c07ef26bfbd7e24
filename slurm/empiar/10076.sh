#!/usr/bin/env bash
# EMPIAR-10076: assembly intermediates of the bacterial 50S ribosome (Davis et al., Cell 2016). It has several
# structures; this script makes one map of all.
#
# 131,899 particles of 320 px of 1.31 A (54 GB), dark particles; box 256 px of 1.6375 A, Nyquist 3.28 A.
# The paper: 3.30 A. The published poses have the opposite hand, so the map has it too.
# Variables and requirements: see common.sh.
set -euo pipefail
entry=10076
# shellcheck source=slurm/empiar/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# The file is a stack, but cryoDRGN recognises stacks by the name .mrcs.
download L17Combine_weight_local.mrc
download_poses
ln -sf "$data/L17Combine_weight_local.mrc" "$work/L17Combine_weight_local.mrcs"
echo "$work/L17Combine_weight_local.mrcs" >"$work/stacks.txt"
import_poses --box "${BOX:-256}" --invert
train
report 3.30
