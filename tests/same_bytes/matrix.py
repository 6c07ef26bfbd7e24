"""The cases: commands of the program on the inputs of inputs.py, which lie in the folder `in` beside each case's outputs."""

import dataclasses

@dataclasses.dataclass(frozen=True)
class Run:
    """A command of the program on so many ranks, with environment variables; on the emulator of CUDA if `cuda`."""

    arguments: tuple
    ranks: int = 1
    environment: tuple = ()
    cuda: bool = False


@dataclasses.dataclass(frozen=True)
class Stop:
    """A command that gets a signal after its first checkpoint; it must exit with code 75."""

    run: Run
    signal: str


@dataclasses.dataclass(frozen=True)
class Copy:
    """A copy of an input."""

    source: str
    target: str


@dataclasses.dataclass(frozen=True)
class Undo:
    """Makes a finished run one that was killed before the last checkpoint of a model."""

    run: str
    model: str


@dataclasses.dataclass(frozen=True)
class Case:
    """A name, what is run one after the other, and what the machine must have: "avx2", "avx512f", "shared", "emulator"."""

    name: str
    steps: tuple
    needs: tuple = ()


def words(text):
    """The arguments in a text, split at spaces."""
    return tuple(text.split())


def merged(start, options):
    """The options in `start` and in `options`; those of the latter replace the former. All in `start` have values."""
    start, options = words(start), words(options)
    kept = [word for pair in zip(start[::2], start[1::2]) if pair[0] not in options for word in pair]
    return " ".join((*kept, *options))


def one(name, text, needs=(), **how):
    """A case of one command."""
    return Case(name, (Run(words(text), **how),), tuple(needs))


def imports():
    """Every format, option and MRC mode; what must be refused."""
    formats = {
        "star31": "in/formats/halves.star",
        "star31-drawn-halves": "in/formats/drawn.star --seed 3",
        "star30": "in/formats/old.star",
        "star-f16": "in/formats/halves.star --dtype f16",
        "star-invert": "in/formats/halves.star --invert --no-normalize",
        "star-radius": "in/formats/halves.star --background-radius 5 --threads 2",
        "star-first": "in/formats/halves.star --first 5",
        "star-datadir": "in/relion/particles.star --datadir in/relion",
        "star-smaller-box": "in/relion/particles.star --box 24",
        "star-refused": "in/formats/nan.star",
        **{f"cs-version{v}": f"in/formats/J2/whole{v}.cs" for v in (1, 2, 3)},
        "cs-dark": "in/formats/J2/dark.cs --no-normalize",
        "cs-drawn-halves": "in/formats/J2/unsplit.cs --seed 3",
        "cs-passthrough": "in/formats/J2/poses.cs --passthrough in/formats/J2/blob.cs --passthrough in/formats/J2/ctf.cs",
        "cs-refused": "in/formats/J2/poses.cs --passthrough in/formats/J2/blob.cs",
    }
    pickles = "--poses in/formats/poses.pkl --ctf in/formats/ctf.pkl"
    formats |= {
        "cryodrgn-stack": f"in/formats/mode2.mrcs {pickles}",
        "cryodrgn-list": f"in/formats/stacks.txt {pickles} --seed 3",
        "cryodrgn-star": f"in/formats/names.star {pickles}",
        "cryodrgn-chosen": f"in/formats/mode2.mrcs {pickles} --ind in/formats/ind.pkl",
        "cryodrgn-centred": "in/formats/mode2.mrcs --poses in/formats/rotations.pkl --ctf in/formats/ctf.pkl",
        "cryodrgn-no-ctf": "in/formats/mode2.mrcs --poses in/formats/poses.pkl --no-ctf --pixel-size 3.5",
        "cryodrgn-smaller-box": "in/formats/large.mrcs --poses in/formats/poses.pkl --ctf in/formats/ctf_large.pkl --box 16",
        "cryodrgn-refused": "in/formats/mode2.mrcs",
        **{f"mrc-mode{m}": f"in/formats/mode{m}.mrcs {pickles} --no-normalize" for m in (0, 1, 2, 6, 12)},
        "mrc-big-endian": f"in/formats/big_endian.mrcs {pickles} --no-normalize",
    }
    real = {
        "relion30": "in/real/sample_particles_relion30.star --box 64",
        "relion31": "in/real/sample_particles_relion31.star --box 64",
        "refused-one-half": "in/real/relion31.star",
        "refused-no-poses": "in/real/empiar_10076_7.star",
        "refused-no-poses-cs": "in/real/empiar_10076_7.cs",
        "refused-no-images-cs": "in/real/cryosparc_P12_J24_001_particles.cs",
        "toy": "in/real/toy_projections.mrcs --poses in/real/toy_rot_trans.pkl --ctf in/real/test_ctf.pkl --first 100",
        "hand": "in/real/hand.mrcs --poses in/real/hand_rot.pkl --no-ctf --pixel-size 1 --box 32",
    }
    return [one(f"import-{name}", f"import {text} -o p.h5") for name, text in formats.items()] + [
        one(f"import-real-{name}", f"import {text} -o p.h5", ["shared"]) for name, text in real.items()
    ]


def simulations():
    """Every kind of truth and option."""
    small = "simulate -o p.h5 --box 24 --pixel-size 4 -n 40"
    variants = {
        "phantom": "--phantom --star relion --snr -5dB",
        "mmcif": "--model in/model.cif",
        "pdb": "--model in/model.pdb --star relion --b-factor 60",
        "map": "--map in/p_truth.mrc --truth other.mrc",
        "preference": "--phantom --preference 3 --seed 9",
        "f16": "--phantom --dtype f16",
        "clean": "--phantom --no-noise --max-shift 0",
        "microscope": "--phantom --voltage 200 --cs 1.4 --amplitude-contrast 0.07 --defocus-median 12000 "
        "--defocus-spread 0.1 --astigmatism 900",
        "threads": "--phantom --threads 3",
    }
    odd = one("simulate-odd-box", "simulate --phantom -o p.h5 --box 25 --pixel-size 4.3 -n 20 --star relion")
    return [odd] + [one(f"simulate-{name}", f"{small} {text}") for name, text in variants.items()]


def trainings():
    """Recipes, settings, starts, caches, ranks and SIMD levels."""
    base = "--threads 1 --device cpu --metrics-every 1 --seed 7"
    small = f"{base} --gaussians 201 --epochs 3"

    def train(name, options, particles="p", start=small, needs=(), **how):
        return one(f"train-{name}", f"train in/{particles}.h5 -o run {merged(start, options)}", needs, **how)

    settings = {
        "plain": "--mixtures 1", "paper": "--recipe paper", "ensemble": "--mixtures 3 --maps epoch",
        "truth": "--truth in/p_truth.mrc", "batch1": "--batch 1", "batch64": "--batch 64",
        "half1": "--half 1", "half2": "--half 2 --mixtures 2", "all": "--half all", "isotropic": "--isotropic",
        "points": "--sampling points", "uniform": "--weighting uniform", "published": "--start published",
        "density": "--start density", "constant": "--schedule constant", "step": "--schedule step",
        "cutoff": "--cutoff 4", "rates": "--learning-rate 2e-3 --rate-factors 1,0.5,2,5",
        "threads2": "--threads 2", "threads3": "--threads 3 --batch 16", "no-voxels": "--voxel-particles 0",
        "few-voxels": "--voxel-particles 50", "paper-isotropic": "--recipe paper --isotropic --batch 4",
        "init-mixture": "--init in/run/gmm_half1.h5", "init-ply": "--init in/run/gmm_half1.ply",
        "init-cif": "--init in/half1.cif", "init-pdb": "--init in/half1.pdb",
        "init-map": "--init in/run/map.mrc --init-lowpass 20",
        "prometheus": "--prometheus prometheus", "streamed": "--cache none", "host": "--cache host",
        "scratch": "--cache scratch --scratch scratch",
        "every-tenth": "--metrics-every 10",
    }
    own_count = f"{base} --epochs 2"
    cases = [train(name, text, start=own_count if name.startswith("init-m") or name in (
        "init-ply", "init-cif", "init-pdb") else small) for name, text in settings.items()]
    cases += [
        train("all-defaults", "", start="--threads 2 --device cpu --epochs 8"),
        train("all-defaults-noisy", "--mixtures 2", "noisy", start="--threads 2 --device cpu --epochs 4"),
        train("odd-box", "--mixtures 2", "odd"),
        train("f16", "", "half"),
        train("f16-streamed", "--cache none", "half"),
        train("large", "--gaussians 1500 --epochs 2 --threads 2", "large"),
        train("imported", "", "imported"),
        train("skip-overflow", "--skip-bad-particles 8", "overflow"),
        train("skip-corrupt", "--skip-bad-particles 2 --cache none", "corrupt"),
        train("refused-overflow", "", "overflow"),
        train("refused-corrupt", "", "corrupt"),
        train("refused-option", "--gaussians 0"),
        train("batch-per-rank", "--batch-per-rank 4", ranks=2),
        train("skip-overflow-ranks2", "--half 1 --skip-bad-particles 8", "overflow", ranks=2),
        train("paper-ranks2", "--recipe paper --batch 4", ranks=2),
        train("streamed-ranks2", "--cache none", ranks=2),
        train("scratch-ranks2", "--cache scratch --scratch scratch", ranks=2),
        train("all-ranks2", "--half all --mixtures 2", ranks=2),
        train("init-map-ranks2", "--init in/run/map.mrc", ranks=2),
        *(train(f"ranks{n}", "--mixtures 2 --truth in/p_truth.mrc --maps epoch", ranks=n) for n in (2, 3, 4)),
    ]
    levels = {"portable": (), "avx2": ("avx2",), "avx512": ("avx512f",)}
    variants = {"": "--mixtures 2", "-paper": "--recipe paper --batch 3", "-isotropic": "--isotropic --threads 2",
                "-wide": "--cutoff 5 --epochs 1"}
    for level, needs in levels.items():
        cases += [train(f"{level}{name}", text, needs=needs, environment=(("CRYOSPLAT_SIMD", level),))
                  for name, text in variants.items()]
    return cases


def resumed():
    """Runs that are stopped by a signal, or that lack their last checkpoint, and go on."""
    text = "train in/p.h5 -o run --threads 1 --device cpu --metrics-every 1 --seed 7"
    long = f"{text} --gaussians 500 --epochs 60 --mixtures 2 --checkpoint-minutes 0"

    def stopped(name, ranks, signal, options=""):
        start = words(f"{long} {options}")
        steps = (Stop(Run(start, ranks), signal), Run((*start, "--resume", "auto"), ranks))
        return Case(f"resume-{name}", steps)

    def undone(name, options, ranks=1, again=None, often=True):
        start = words(f"{text} --gaussians 120 --epochs 3 {options}")
        first = (*start, "--checkpoint-minutes", "1e-9") if often else start
        steps = (Run(first, ranks), Undo("run", "half1"), Run((*start, "--resume"), again or ranks))
        return Case(f"resume-{name}", steps)

    old = Case("resume-run-of-base", (Copy("run", "run"), Undo("run", "half2"), Run(words(
        "train in/p.h5 -o run --threads 1 --device cpu --metrics-every 1 --gaussians 200 --epochs 4 --seed 5 --resume "
        "--truth in/p_truth.mrc"))))
    done = Case("resume-done", (Copy("run", "run"), Run(words(
        "train in/p.h5 -o run --threads 1 --device cpu --metrics-every 1 --gaussians 200 --epochs 4 --seed 5 --resume "
        "--truth in/p_truth.mrc"))))
    other = Case("resume-refused", (Copy("run", "run"), Undo("run", "half2"), Run(words(
        f"{text} --gaussians 200 --epochs 5 --resume"))))
    taken = Case("train-refused-folder", (Copy("run", "run"), Run(words(f"{text} --gaussians 100 --epochs 1"))))
    over = Case("train-overwrite", (Copy("run", "run"), Run(words(f"{text} --gaussians 100 --epochs 1 --overwrite"))))
    return [
        stopped("signal", 1, "TERM"), stopped("signal-ranks2", 2, "USR1"), stopped("signal-all", 1, "USR1", "--half all"),
        undone("middle", "--mixtures 2"), undone("paper", "--recipe paper --batch 4"), undone("ranks2", "--mixtures 2", 2),
        undone("isotropic", "--isotropic", often=False), undone("more-ranks", "--half 1", 1, 2),
        old, done, other, taken, over,
    ]


def cuda():
    """The CUDA device on the emulator."""
    text = "train in/few.h5 -o run --threads 1 --device cuda --metrics-every 1 --seed 7 --gaussians 50 --epochs 2 --batch 8"
    two = (("CRYOSPLAT_EMULATOR_DEVICES", "2"),)
    variants = {
        "plain": ("", 1), "paper": ("--recipe paper", 1), "isotropic": ("--isotropic", 1), "ensemble": ("--mixtures 2", 1),
        "uniform": ("--weighting uniform --start published", 1), "streamed": ("--cache none", 1), "host": ("--cache host", 1),
        "cache-half": ("--cache device --cache-half", 1), "all": ("--half all --maps epoch", 1),
        "nccl": ("--half 1 --collective nccl", 1), "cutoff": ("--cutoff 5", 1), "init-map": ("--init in/few_truth.mrc", 1),
        "ranks2-mpi": ("--half 1 --collective mpi", 2), "ranks2-nccl": ("--half 1 --collective nccl", 2),
        "ranks2-halves": ("--mixtures 2", 2), "ranks2-streamed": ("--half all --cache none", 2),
    }
    cases = [
        Case(f"cuda-{name}", (Run(words(f"{text} {options}"), ranks, two, True),), ("emulator",))
        for name, (options, ranks) in variants.items()
    ]
    for name, particles, options in (("skip-overflow", "few_overflow", "--skip-bad-particles 8"), ("odd-box", "few_odd", ""),
                                     ("f16", "few_half", ""), ("refused-overflow", "few_overflow", "")):
        steps = (Run(words(f"{text} {options}".replace("in/few.h5", f"in/{particles}.h5")), 1, two, True),)
        cases.append(Case(f"cuda-{name}", steps, ("emulator",)))
    start = words(text)
    # Checkpoints at the ends of epochs only: on the emulator, the steps of others depend on the time.
    again = (Run(start, 1, two, True), Undo("run", "half1"), Run((*start, "--resume"), 1, two, True))
    return cases + [Case("cuda-resume", again, ("emulator",))]


def evaluations():
    """What reads maps, mixtures and runs."""
    halves = "fsc in/run/half1.mrc in/run/half2.mrc"
    post = "postprocess in/run/half1.mrc in/run/half2.mrc -o post"
    mixture = "in/run/gmm_half1"
    texts = {
        "backproject": "backproject in/p.h5 -o run --threads 1",
        "backproject-threads": "backproject in/noisy.h5 -o run --threads 2",
        "backproject-truth": "backproject in/p.h5 -o run --threads 1 --truth in/p_truth.mrc --no-wiener",
        "backproject-odd-box": "backproject in/odd.h5 -o run --threads 1",
        "fsc": f"{halves} -o fsc",
        "fsc-sphere": f"{halves} -o fsc --mask sphere --radius 40 --edge 12 --mask-output mask.mrc --json",
        "fsc-auto": f"{halves} -o fsc --mask auto --mask-output mask.mrc --json",
        "fsc-auto-options": f"{halves} -o fsc --mask auto --mask-lowpass 20 --threshold 0.05 --components all --extend 8 "
        "--edge 10 --mask-output mask.mrc --draws 3 --seed 4 --randomize-below 0.9 --json",
        "fsc-file": f"{halves} -o fsc --mask in/mask.mrc --json",
        "fsc-directional": f"{halves} -o fsc --mask auto --directional --json",
        "fsc-voxels": f"{halves} -o fsc --mask auto --voxels in/voxels --json",
        "fsc-reference": "fsc in/run/map.mrc in/p_truth.mrc --reference --json --mask sphere -o fsc",
        "fsc-model": "fsc in/run/map.mrc in/fitted.cif -o fsc --json",
        "fsc-model-centred": "fsc in/run/map.mrc in/model.pdb --center-model -o fsc --json",
        "fsc-mixture": f"fsc in/run/map.mrc {mixture}.h5 -o fsc --json --pixel-size 3.9",
        "fsc-refused-model": "fsc in/run/map.mrc in/model.cif",
        "fsc-refused": "fsc in/run/half1.mrc in/odd_truth.mrc",
        "postprocess": f"{post} --json",
        "postprocess-options": f"{post} --mask in/mask.mrc --b-factor -80 --low-pass 12 --json",
        "postprocess-fit": f"{post} --mask sphere --fit-from 20 --fit-to 9 --low-pass none --skip-fsc-weighting --seed 2",
        "compare": "compare in/run in/other in/voxels -o compare",
        "compare-json": "compare in/run in/voxels --truth in/p_truth.mrc --mask sphere -o compare --json",
        "voxelize": f"voxelize {mixture}.h5 -o map.mrc --threads 2",
        "voxelize-finer": f"voxelize {mixture}.h5 -o map.mrc --box 45 --pixel-size 2.5",
        "voxelize-ply": f"voxelize {mixture}.ply -o map.mrc --box 32 --pixel-size 4",
        "voxelize-cif": "voxelize in/half1.cif -o map.mrc",
        "voxelize-pdb": "voxelize in/half1.pdb -o map.mrc",
        **{f"export-{to}": f"export gmm {mixture}.h5 -o mixture.{to}" for to in ("cif", "pdb", "ply", "h5")},
        "export-in-map": f"export gmm {mixture}.h5 -o mixture.cif --map in/p_truth.mrc",
        "export-from-ply": f"export gmm {mixture}.ply -o mixture.h5 --box 32 --pixel-size 4",
        "export-from-cif": "export gmm in/half1.cif -o mixture.h5",
        "export-from-pdb": "export gmm in/half1.pdb -o mixture.ply",
        "export-star": "export star in/p.h5 -o out.star",
        "export-star-f16": "export star in/half.h5 -o out.star",
        "export-star-original": "export star in/imported.h5 -o out.star --original in/relion/particles.star",
        "export-star-excluded": "export star in/corrupt.h5 -o out.star --run in/excluded",
        "info-particles": "info in/p.h5 in/half.h5 in/imported.h5 --verify --json",
        "info-particles-text": "info in/p.h5 --verify --gaussians 5000 --batch 4",
        "info-directions": "info in/p.h5 --json --directions directions.svg",
        "info-refused-corrupt": "info in/corrupt.h5 --verify",
        "info-maps": "info in/run/map.mrc in/relion/particles.mrcs in/formats/mode0.mrcs --json",
        "info-mixture": f"info {mixture}.h5 --json",
        "info-text": f"info {mixture}.h5 in/run/map.mrc in/formats/big_endian.mrcs",
        "scaling": "scaling in/ranks1 in/ranks2 in/ranks4 -o study",
        "scaling-one": "scaling in/ranks1 -o study",
        "bench": "bench --device cpu --threads 1 --box 32 --gaussians 100 --seconds 0.05 --json bench.json",
        "bench-particles": "bench in/p.h5 --device cpu --threads 1 --gaussians 100 --seconds 0.05 --isotropic --json bench.json",
        "completions": "completions bash",
        "man": "man",
    }
    checkpoints = "info in/run/checkpoints/half1_step000000040.h5"
    reports = {
        "report": ("run", "report run"), "report-baseline": ("other", "report other --baseline in/run in/voxels"),
        "report-all": ("all", "report all"), "report-excluded": ("excluded", "report excluded"),
        "report-voxels": ("voxels", "report voxels --particles in/p.h5"),
    }
    return (
        [one(name, text) for name, text in texts.items()]
        + [one(f"backproject-ranks{n}", "backproject in/p.h5 -o run --threads 1", ranks=n) for n in (2, 3)]
        + [one("info-checkpoint", checkpoints), one("info-checkpoint-json", f"{checkpoints} --json")]
        + [one("bench-ranks2", texts["bench"], ranks=2)]
        + [Case(name, (Copy(run, run), Run(words(text)))) for name, (run, text) in reports.items()]
    )


def cases():
    """All cases; their names differ."""
    every = [*imports(), *simulations(), *trainings(), *resumed(), *cuda(), *evaluations()]
    assert len({case.name for case in every}) == len(every)
    return every
