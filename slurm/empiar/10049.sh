#!/usr/bin/env bash
# EMPIAR-10049: the RAG1-RAG2 complex (Ru et al., Cell 2015).
#
# 108,544 particles of 192 px of 1.23 A (16 GB); their own box, Nyquist 2.46 A. The paper: 2.49 A.
# Variables and requirements: see common.sh.
set -euo pipefail
entry=10049
# shellcheck source=slurm/empiar/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

download ragSEC_150309.mrcs ragSEC_150311.mrcs
download_poses
stacks_of "$poses/allimg.star" >"$work/stacks.txt"
import_poses --box "${BOX:-192}"
train
report 2.49
