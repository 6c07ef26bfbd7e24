# `make help` lists the targets.
SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
PICTURES := benches/results/demo
GPU_CHECK := target/gpu-check
RESULTS ?= $(GPU_CHECK)-results
CASES ?= 100000
SEED ?= $(or $(CRYOSPLAT_FUZZ_SEED),$(shell date +%s))

.PHONY: help setup setup-python setup-tests build demo test lint unit deny fuzz judges browser kernels slurm-test kernel-table bench bench-stream gpu-package gpu-check gpu-results quality truth batch ablations voxels scaling soak charts readme-pictures clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | awk -F '\t' '{ printf "  make %-16s %s\n", $$1, $$2 }'

setup: ## Install the system packages that the build needs, where any is missing
	@.ci/setup

setup-tests: ## The same, and what the tests need: rustfmt, clippy, RELION, SLURM, Chromium, Python
	@.ci/setup --tests

build: setup ## Build the program: target/release/cryosplat-mpi
	$(CARGO) build --release --locked

setup-python: ## The same, and Python with venv, with which the demonstration gets its atomic model
	@.ci/setup --python

demo: setup-python build ## Reconstruct a simulated ribosome over two MPI ranks, into demo/ (some minutes)
	@tests/demo/run.sh

test: setup-tests ## Lint, all tests, and the tests against other programs
	@tests/scripts/test.sh

lint: setup ## Formatting, clippy and documentation, warnings denied
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" \
		$(CARGO) doc --no-deps --document-private-items --locked

unit: setup ## Only the tests in Rust
	$(CARGO) test --locked

deny: setup-python ## Licences, sources and known vulnerabilities of the dependencies (cargo-deny, needs the network)
	@tests/deny/run.sh

fuzz: setup ## All readers on damaged files, CASES of each kind, drawn with SEED (some minutes)
	CRYOSPLAT_FUZZ_CASES=$(CASES) CRYOSPLAT_FUZZ_SEED=$(SEED) $(CARGO) test --locked --test fuzz -- --nocapture

judges: setup-tests ## Only the tests against RELION and mrcfile
	$(CARGO) build --locked
	@tests/judges/run.sh

browser: setup-tests ## Only the test of the report in a browser (Chromium, without a screen)
	$(CARGO) build --locked
	@tests/browser/run.sh

kernels: setup-python ## Only the kernels against the real compiler (NVRTC and ptxas, without a GPU)
	@tests/kernels/run.sh

slurm-test: setup-tests ## Only the batch templates of slurm/, on a SLURM of one node that is started for it (as root)
	$(CARGO) build --locked
	@tests/slurm/run.sh

kernel-table: setup-python ## Write what the kernels use and cost by count, as that compiler says, into kernels/README.md
	@tests/kernels/run.sh --table

bench: setup ## Where the time of a step goes, stage by stage, into benches/results/stages.md; with AVX2 alone into stages-avx2.md
	$(CARGO) bench --locked --bench stages
	if grep -qw avx2 /proc/cpuinfo; then CRYOSPLAT_SIMD=avx2 $(CARGO) bench --locked --bench stages; fi

bench-stream: setup ## How fast particles are read, against what the machine can read, into benches/results/stream.md
	$(CARGO) bench --locked --bench stream

gpu-package: setup ## A folder with all that a check on a GPU needs, for a machine without cargo, MPI and HDF5
	@tests/gpu/package.sh $(GPU_CHECK)

gpu-check: gpu-package ## The same, and the check: tests, compute-sanitizer, NCCL and a bench on this machine's GPU
	@$(GPU_CHECK)/run.sh $(GPU_CHECK)-results

gpu-results: ## Keep what gpu-check found, in RESULTS, as benches/results/gpu-DEVICE.md, to be committed
	@tests/gpu/keep.sh $(RESULTS)

quality: build ## The long quality runs (some minutes to an hour), into benches/results/quality.md
	@benches/quality.sh

truth: setup-tests build ## The default recipe beside voxels, against the truth, on many sets (hours), into benches/results/truth.md
	@benches/truth.sh

batch: setup-tests build ## The default recipe at batches from 1 to 512, against the truth (20 minutes), into benches/results/batch.md
	@benches/batch.sh

ablations: setup-tests build ## One setting at a time, against the truth (an hour), into benches/results/ablations.md
	@benches/ablations.sh

voxels: setup-tests build ## `backproject` beside RELION: FSC and speed (some minutes), into benches/results/voxels.md
	@benches/voxels.sh

soak: build ## The long tests of size and endurance (minutes to an hour), into benches/results/soak.md
	@echo "# Size and endurance" >target/soak.md
	@for script in tests/soak/*.sh; do echo; "$$script" || exit 1; done >>target/soak.md
	@mv target/soak.md benches/results/soak.md && cat benches/results/soak.md

scaling: build ## Strong and weak scaling over the ranks of this machine (some minutes), into benches/results/scaling.md and divided.md
	@benches/scaling.sh
	@benches/divided.sh

charts: ## Draw the two charts of README.md from benches/results/truth.md and divided.md
	@python3 benches/charts.py

readme-pictures: ## Copy the demonstration's pictures to where README.md and docs/guide.md show them
	@test -f demo/run/slices.png || { echo "run make demo first" >&2; exit 1; }
	@mkdir -p $(PICTURES)
	cp demo/run/slices.png $(PICTURES)/
	tests/browser/picture.sh demo/run/report.html $(PICTURES)/report.png
	@size=$$(cat $(PICTURES)/*.png | wc -c); echo "$$size bytes of pictures"; \
		test "$$size" -lt 700000 || { echo "more than 700 kB: too large for the repository" >&2; exit 1; }

clean: ## Remove everything built, and the demonstration
	$(CARGO) clean
	rm -rf demo
