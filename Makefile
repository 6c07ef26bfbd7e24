# `make help` lists the targets.
SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
PROGRAM := target/release/cryosplat-mpi
PICTURES := benches/results/demo
GPU_CHECK := target/gpu-check
RESULTS ?= $(GPU_CHECK)-results
CASES ?= 100000
SEED ?= $(or $(CRYOSPLAT_FUZZ_SEED),$(shell date +%s))

.PHONY: help setup setup-python setup-tests build demo test lint unit deny fuzz judges browser kernels slurm-test nodes-test mpich-test container-test dist same-bytes kernel-table bench bench-stream gpu-package gpu-check gpu-results quality refine-table symmetry-table truth batch ablations densify-table diagnose-table diagnose-sound diagnose-metadata estimate-table optics-table voxels scaling faults soak charts browser-screens readme-pictures clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | awk -F '\t' '{ printf "  make %-16s %s\n", $$1, $$2 }'

setup: ## Install missing system packages of the build
	@.ci/setup

setup-tests: ## Also install what the tests need: rustfmt, clippy, RELION, SLURM, Chromium, Python
	@.ci/setup --tests

# Compressed debug sections: backtraces still report file and line, and the program is less than half as large.
build: setup ## Build the program: target/release/cryosplat-mpi
	CRYOSPLAT_COMMIT=$$(git rev-parse --short HEAD 2>/dev/null) $(CARGO) build --release --locked
	@if [ -f $(PROGRAM) ] && command -v objcopy >/dev/null; then \
		objcopy --compress-debug-sections=zlib $(PROGRAM) $(PROGRAM).part && mv $(PROGRAM).part $(PROGRAM); fi

setup-python: ## Also install Python with venv, which the demonstration needs for its atomic model
	@.ci/setup --python

demo: setup-python build ## Reconstruct a simulated ribosome on two MPI ranks, in demo/ (minutes)
	@tests/demo/run.sh

test: setup-tests ## Lint and all tests, including those against other programs
	@tests/scripts/test.sh

lint: setup ## Check formatting, clippy and documentation; warnings are errors
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" \
		$(CARGO) doc --no-deps --document-private-items --locked

unit: setup ## Run the tests in Rust only
	$(CARGO) test --locked

deny: setup-python ## Check licences, sources and known vulnerabilities of dependencies (cargo-deny, needs network)
	@tests/deny/run.sh

fuzz: setup ## Feed damaged files to all readers, CASES of each kind, drawn with SEED (minutes)
	CRYOSPLAT_FUZZ_CASES=$(CASES) CRYOSPLAT_FUZZ_SEED=$(SEED) $(CARGO) test --locked --test fuzz -- --nocapture

judges: setup-tests ## Run the tests against RELION, mrcfile and gemmi only
	$(CARGO) build --locked
	@tests/judges/run.sh

browser: setup-tests ## Run the test of the report in headless Chromium only
	$(CARGO) build --locked
	@tests/browser/run.sh

kernels: setup-python ## Compile the CUDA kernels with NVRTC and ptxas only (needs no GPU)
	@tests/kernels/run.sh

slurm-test: setup-tests ## Run the batch templates of slurm/ on a one-node SLURM started for the test (as root)
	$(CARGO) build --locked
	@tests/slurm/run.sh

nodes-test: setup-tests ## Run over two hosts that are made on this machine, with mpirun and SLURM
	$(CARGO) build --locked
	@tests/nodes/run.sh

mpich-test: setup-tests ## Build with MPICH too, and compare it with Open MPI (a second build)
	$(CARGO) build --locked
	@tests/mpich/run.sh

container-test: setup ## Carry out slurm/apptainer.def in a chroot (as root; downloads 1 GB, and needs debootstrap)
	@tests/packages/container.sh

dist: setup-python ## Make the release archive in target/dist: program, manual, completions, templates, licences
	@slurm/packages/dist.sh

same-bytes: setup-python ## Compare all outputs with those of the commit BASE in about 230 small runs (ten minutes, and two builds)
	@test -n "$(BASE)" || { echo "make same-bytes BASE=COMMIT" >&2; exit 2; }
	@tests/same_bytes/run.sh "$(BASE)"

kernel-table: setup-python ## Write registers and instruction counts of the kernels into kernels/README.md
	@tests/kernels/run.sh --table

bench: setup ## Measure each stage of a step: benches/results/stages.md, and stages-avx2.md with AVX2 only
	$(CARGO) bench --locked --bench stages
	if grep -qw avx2 /proc/cpuinfo; then CRYOSPLAT_SIMD=avx2 $(CARGO) bench --locked --bench stages; fi

bench-stream: setup ## Measure the speed of reading particles: benches/results/stream.md
	$(CARGO) bench --locked --bench stream

gpu-package: setup ## Make a folder with the GPU check, for a machine without cargo, MPI and HDF5
	@tests/gpu/package.sh $(GPU_CHECK)

gpu-check: gpu-package ## Run tests, compute-sanitizer, NCCL and a bench on the GPU of this machine
	@$(GPU_CHECK)/run.sh $(GPU_CHECK)-results

gpu-results: ## Write the results of gpu-check (folder RESULTS) to benches/results/gpu-DEVICE.md
	@tests/gpu/keep.sh $(RESULTS)

quality: build ## Compare the recipes and RELION with the truth (minutes): benches/results/quality.md
	@benches/quality.sh

symmetry-table: setup-tests build ## Train symmetric particles with and without --symmetry (minutes): benches/results/symmetry.md
	@benches/symmetry.sh

refine-table: setup-tests build ## Refine wrong poses, shifts and defoci, beside RELION (hours): benches/results/refine.md
	@benches/refine.sh

truth: setup-tests build ## Compare the default recipe and voxels with the truth on many sets (hours): benches/results/truth.md
	@benches/truth.sh

batch: setup-tests build ## Quality at batches from 1 to 512 (20 minutes): benches/results/batch.md
	@benches/batch.sh

ablations: setup-tests build ## Vary one setting at a time (an hour): benches/results/ablations.md
	@benches/ablations.sh

densify-table: setup-tests build ## Compare train with and without --densify (ten minutes): benches/results/densify.md
	@benches/densify.sh

diagnose-table: setup-tests build ## Count false alarms and named faults of `diagnose` (an hour): benches/results/diagnose.md
	@benches/diagnose.sh

diagnose-sound: setup-tests build ## Count false alarms of `diagnose` on 150 simulated sets without a fault (half an hour)
	@benches/diagnose_sound.sh

diagnose-metadata: setup-tests build ## Print which faults of edited metadata `diagnose` names on four simulated sets (an hour)
	@for model in 3jb9.cif 4v1w.cif 4v5d.cif; do tests/demo/model.sh $$model; done
	@python3 benches/diagnose_metadata.py target/release/cryosplat-mpi target/diagnose-metadata 4 $(or $(SEED),9003) target/demo/{3jb9,4v1w,4v5d}.cif

defects-table: setup-tests build ## Compare losses on sets with unlike noise, contrast and junk (an hour): benches/results/defects.md
	@benches/defects.sh

estimate-table: build ## Compare the estimated time of runs with the time they take (ten minutes): benches/results/estimate.md
	@benches/estimate.sh

optics-table: setup-tests build ## Take a beam tilt back, beside RELION (minutes): benches/results/optics.md
	@benches/optics.sh

voxels: setup-tests build ## Compare `backproject` with RELION (minutes): benches/results/voxels.md
	@benches/voxels.sh

faults: build ## Try faults and attacks on the program (minutes): benches/results/faults.md
	@benches/faults.sh

soak: build ## Test large sets, long runs and repeated kills (up to an hour): benches/results/soak.md
	@echo "# Size and endurance" >target/soak.md
	@for script in tests/soak/*.sh; do echo; "$$script" || exit 1; done >>target/soak.md
	@mv target/soak.md benches/results/soak.md && cat benches/results/soak.md

scaling: build ## Measure scaling over ranks and threads (minutes): benches/results/scaling.md and divided.md
	@benches/scaling.sh
	@benches/divided.sh

charts: ## Draw the charts of README.md from benches/results/truth.md and divided.md
	@python3 benches/charts.py

browser-screens: setup-tests ## Update the screenshots of the pages in tests/browser/screens
	$(CARGO) build --locked
	tests/browser/screens.sh

readme-pictures: ## Update the pictures in README.md and docs/guide.md from the demonstration
	@test -f demo/run/slices.png || { echo "run make demo first" >&2; exit 1; }
	@mkdir -p $(PICTURES)
	cp demo/run/slices.png $(PICTURES)/
	tests/browser/picture.sh demo/run/report.html $(PICTURES)/report.png
	@size=$$(cat $(PICTURES)/*.png | wc -c); echo "$$size bytes of pictures"; \
		test "$$size" -lt 700000 || { echo "more than 700 kB: too large for the repository" >&2; exit 1; }

clean: ## Remove all build outputs and the demonstration
	$(CARGO) clean
	rm -rf demo
