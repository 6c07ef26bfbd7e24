"""Work of a step by count: bytes of every kernel from its arrays, and exponentials of `draw` and `moments` with the
instructions of their inner loops. Counted for the random start (docs/method.md, section 2), whose splats are round and the same in
every view."""

import math
import random
from dataclasses import dataclass

from program import ROOT, Drift

# Box size and number of Gaussians: those of the paper, and of small cases of benches/gpu.
CASES = [(64, 2048), (128, 5120), (256, 30000)]
ARCHITECTURE = "sm_90"
WITH_LOOPS = ("draw", "moments")
CUTOFF, BLUR = 3.0, 0.6
# Standard deviations of the start: of the means and of each Gaussian, in box units.
SPREAD, DEVIATION = 0.075, 0.0075
# As in the kernels, interface.rs and buffer_plan.rs: `agrees` compares.
TILE, QUARTER, PADDING, MOMENT_LANES, CHAIN_PARTS, SPLAT_BYTES = 16, 8, 256, 4, 4, 48
PLANES = 11
# Per cycle of every multiprocessor since 2014, for the floor of docs/method.md, section 6.
EXPONENTIALS_PER_CYCLE, INSTRUCTIONS_PER_CYCLE = 16, 4


def agrees(sources):
    """Checks that the constants here are those of the program."""
    interface, plan, render = ((ROOT / "src/render" / name).read_text() for name in ("cuda/interface.rs", "cuda/buffer_plan.rs", "mod.rs"))
    for what, there in (
        (f"#define TILE {TILE}\n", sources["common.cuh"]),
        (f"#define PADDING {PADDING}\n", sources["common.cuh"]),
        (f"#define QUARTER (TILE / {TILE // QUARTER})\n", sources["draw.cu"]),
        ("#define MOMENT_COLUMNS (GRID % 2 == 0 ? 2 : 1)\n", sources["moments.cu"]),
        (f"SPLAT_BYTES: usize = {SPLAT_BYTES};", interface),
        (f"            moment_lanes: {MOMENT_LANES},\n", plan),
        (f"            chain_parts: {CHAIN_PARTS} * views", plan),
        (f"            Self::BandLimited => {BLUR},\n", render),
        ("(box_size + box_size.div_ceil(4)..)", render),
    ):
        if what not in there:
            raise Drift(f"{what.strip()} is what tests/kernels/work.py assumes, and is no longer in the source")


def grid_of(box):
    """Points along an edge of the grid, a quarter more than pixels, as Sampling::grid gives for the boxes above."""
    return box * 5 // 4


def constants(box):
    """Constants of the kernels for a case with enough images to fill a device."""
    return dict(
        BOX=box,
        GRID=grid_of(box),
        CUTOFF=CUTOFF,
        BLUR=BLUR,
        PLANES=PLANES,
        VIEWS=1,
        DRAW_SLICES=1,
        MOMENT_LANES=MOMENT_LANES,
        CHAIN_PARTS=CHAIN_PARTS,
        KEPT_HALF=0,
    )


def moment_columns(grid):
    """MOMENT_COLUMNS of moments.cu."""
    return 2 if grid % 2 == 0 else 1


@dataclass
class Support:
    """A rectangle of points x0 to x1 and y0 to y1, inclusive."""

    x0: int
    x1: int
    y0: int
    y1: int

    @property
    def points(self):
        return (self.x1 - self.x0 + 1) * (self.y1 - self.y0 + 1)


def supports(box, count):
    """Supports of the Gaussians of the random start in one view."""
    draw = random.Random(1)
    grid = grid_of(box)
    reach = CUTOFF * math.hypot(DEVIATION * grid, BLUR)

    def axis():
        centre = draw.gauss(0.0, SPREAD) * grid + grid // 2
        return max(math.ceil(centre - reach), 0), min(math.floor(centre + reach), grid - 1)

    found = (Support(*axis(), *axis()) for _ in range(count))
    return [support for support in found if support.x0 <= support.x1 and support.y0 <= support.y1]


def drawn(splats):
    """Exponentials of `draw`: all pixels of every quarter of a tile that a splat touches."""

    def quarters(first, last):
        return last // QUARTER - first // QUARTER + 1

    return sum(quarters(s.x0, s.x1) * quarters(s.y0, s.y1) for s in splats) * QUARTER**2


def gathered(splats, box):
    """Exponentials of `moments`: a warp continues until its tallest and widest splat is done."""
    columns = moment_columns(grid_of(box))
    total = 0
    for first in range(0, len(splats), 32 // MOMENT_LANES):
        warp = splats[first : first + 32 // MOMENT_LANES]
        strips = [(s.x1 - (s.x0 - s.x0 % columns)) // (4 * columns) + 1 for s in warp]
        for strip in range(max(strips)):
            rows = max(s.y1 - s.y0 + 1 for s, its in zip(warp, strips) if its > strip)
            total += 32 * columns * rows
    return total


def bytes_of(box, count):
    """Tuples (kernel, per what, bytes read, bytes written), with each array counted once, as for a perfect cache. Pass records and
    tables that all images share are excluded; particles are in single precision."""
    padded = -(-count // PADDING) * PADDING
    grid = grid_of(box)
    tiles = (-(-grid // TILE)) ** 2
    target, image, spectrum = 4 * box**2, 4 * grid**2, 8 * grid * (grid // 2 + 1)
    bits, splats, whitening, moments = tiles * padded // 8, SPLAT_BYTES * padded, 24 * padded, 24 * padded
    activated, parameters = 80 * padded, 4 * PLANES * count
    return [
        ("project", "image", activated, splats + whitening + bits),
        ("draw", "image", splats + bits, image),
        ("forward FFT", "image", image, spectrum),
        ("residual", "image", spectrum + target, spectrum),
        ("inverse FFT", "image", spectrum, image),
        ("moments", "image", splats + image, moments),
        ("chain", "image", whitening + moments, 0),
        ("chain", "step", parameters + activated * 7 // 10, parameters),
        ("outcome", "step", parameters, 0),
        ("adam", "step", 4 * parameters, 3 * parameters + activated),
    ]


def kib(value):
    return f"{value / 1024:,.0f}"


def bytes_table():
    head, rule = "| Kernel | per |", "|---|---|"
    for box, count in CASES:
        head += f" {box} px, {count:,}: read | written |"
        rule += "--:|--:|"
    columns = [bytes_of(*case) for case in CASES]
    lines = [head, rule]
    for rows in zip(*columns):
        cells = " | ".join(f"{kib(read)} | {kib(written)}" for *_, read, written in rows)
        name, each = rows[0][:2]
        lines.append(f"| {name if 'FFT' in name else f'`{name}`'} | {each} | {cells} |")
    for each in ("image", "step"):
        sums = [[sum(row[k] for row in rows if row[1] == each) for k in (2, 3)] for rows in columns]
        cells = " | ".join(kib(value) for pair in sums for value in pair)
        lines.append(f"| all | {each} | {cells} |")
    return lines


def work_table(loops):
    """Table of exponentials and cycles, with the inner loops `loops[box][kernel]`."""
    lines = [
        "| Case | m | Kernel | needed | evaluated | instructions per exponential | floor | special-function units | instructions |",
        "|---|--:|---|--:|--:|--:|--:|--:|--:|",
    ]
    for box, count in CASES:
        splats = supports(box, count)
        needed = sum(splat.points for splat in splats)
        for kernel, evaluated in (("draw", drawn(splats)), ("moments", gathered(splats, box))):
            each = loops[box][kernel].each
            cycles = [needed / EXPONENTIALS_PER_CYCLE, evaluated / EXPONENTIALS_PER_CYCLE]
            cycles.append(evaluated / 32 * each / INSTRUCTIONS_PER_CYCLE)
            lines.append(
                f"| {box} px, {count:,} | {needed / count:.0f} | `{kernel}` | {needed:,} | {evaluated:,} | {each:.1f} | "
                + " | ".join(f"{value:,.0f}" for value in cycles)
                + " |"
            )
    return lines
