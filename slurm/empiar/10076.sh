#!/usr/bin/env bash
# EMPIAR-10076: assembly intermediates of the bacterial 50S ribosome (Davis et al., Cell 2016). A mixture of structures:
# this makes the one map of all.
#
# 131,899 particles of 320 px of 1.31 A (54 GB), the specimen dark; box 256 px of 1.6375 A, Nyquist 3.28 A.
# The paper: 3.30 A. The published poses are of the other hand, so the map is, too.
# Variables and what is wanted: common.sh.
set -euo pipefail
entry=10076
# shellcheck source=slurm/empiar/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# A stack in spite of its name, which cryoDRGN goes by.
download L17Combine_weight_local.mrc
download_poses
ln -sf "$data/L17Combine_weight_local.mrc" "$work/L17Combine_weight_local.mrcs"
echo "$work/L17Combine_weight_local.mrcs" >"$work/stacks.txt"
convert
import "$work/particles.star" --box "${BOX:-256}" --invert
train
report 3.30
