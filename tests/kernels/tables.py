"""The tables of kernels/README.md that compile.py writes and compares."""

from dataclasses import dataclass

from program import ROOT, Drift
from sass import KINDS

README = ROOT / "kernels/README.md"


@dataclass
class Multiprocessor:
    """Limits of a multiprocessor (CUDA C++ Programming Guide, technical specifications per compute capability)."""

    shared_bytes: int
    warps: int = 64
    blocks: int = 32
    registers: int = 65536


MULTIPROCESSORS = {
    "sm_80": Multiprocessor(shared_bytes=164 * 1024),
    "sm_90": Multiprocessor(shared_bytes=228 * 1024),
    "sm_100": Multiprocessor(shared_bytes=228 * 1024),
}
# Allocation units: registers per warp, warps in the four partitions of a multiprocessor, and shared memory per block, of which
# the system reserves a part.
WARP_REGISTERS = 256
PARTS = 4
SHARED_UNIT = 128
SHARED_RESERVED = 1024


def shown(path):
    return path.relative_to(ROOT)


def occupancy(kernel, multiprocessor):
    """Active warps as a percentage of the limit, and what limits them."""

    def units(value, unit):
        return -(-value // unit) * unit

    warps = kernel.threads // 32
    warps_by_registers = multiprocessor.registers // PARTS // units(kernel.registers * 32, WARP_REGISTERS) * PARTS
    limits = {
        "warps": multiprocessor.warps // warps,
        "blocks": multiprocessor.blocks,
        # The warps of a block are distributed over the partitions.
        "registers": warps_by_registers // units(warps, PARTS),
        "shared memory": multiprocessor.shared_bytes // units(kernel.shared_bytes + SHARED_RESERVED, SHARED_UNIT),
    }
    # The first of the smallest: at full occupancy the limit is "warps".
    limit = min(limits, key=limits.get)
    return f"{100 * limits[limit] * warps / multiprocessor.warps:g}%", limit


def kernel_table(measured):
    """Table of resources, from `measured[architecture][kernel]`."""
    kernels = list(next(iter(measured.values())))
    head, rule = "| Kernel | Threads |", "|---|--:|"
    for architecture in measured:
        head += f" {architecture}: registers | shared | occupancy |"
        rule += "--:|--:|---|"
    lines = [head, rule]
    for kernel in kernels:
        threads = {of_architecture[kernel].threads for of_architecture in measured.values()}
        line = f"| `{kernel}` | {', '.join(map(str, sorted(threads)))} |"
        for architecture, of_architecture in measured.items():
            one = of_architecture[kernel]
            share, limit = occupancy(one, MULTIPROCESSORS[architecture])
            line += f" {one.registers} | {one.shared_bytes} B | {share}, {limit} |"
        lines.append(line)
    return lines


def loop_table(measured):
    """Table of inner loops that evaluate exponentials, from `measured[architecture][kernel]`."""
    kinds = [*KINDS, "other"]
    lines = [
        "| Kernel | Architecture | exponentials per iteration | instructions per iteration |"
        + "".join(f" {kind} |" for kind in kinds if kind != "exponentials")
        + " instructions per exponential |",
        "|---|---|--:|--:|" + "--:|" * len(kinds),
    ]
    for kernel in next(iter(measured.values())):
        for architecture, kernels in measured.items():
            loop = kernels[kernel].loop
            if loop is not None:
                others = " | ".join(str(loop.counts[kind]) for kind in kinds if kind != "exponentials")
                lines.append(
                    f"| `{kernel}` | {architecture} | {loop.exponentials} | {loop.instructions} | {others} | {loop.each:.1f} |"
                )
    return lines


def with_table(text, name, lines):
    """Returns the text of kernels/README.md with these lines between the marks of that table."""
    start, end = f"<!-- table: {name} -->\n", "<!-- /table -->\n"
    before, mark, rest = text.partition(start)
    old, end_mark, after = rest.partition(end)
    if not mark or not end_mark:
        raise Drift(f"{shown(README)} has no marks {start.strip()} and {end.strip()}")
    return before + start + "\n".join(lines) + "\n" + end + after
