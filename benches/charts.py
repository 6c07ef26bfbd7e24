#!/usr/bin/env python3
"""Draws the two charts of README.md from the tables in benches/results/. Needs the Python standard library only.

charts.py           writes benches/results/truth.svg (quality, from truth.md) and benches/results/speed.svg (from divided.md)
charts.py --check   writes nothing; fails where a chart is not the one that its table gives

Columns are found by their headings, and every number is checked: a table that has changed its form is an error.
"""

import re
import sys
from html import escape
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "results"

# Colours that stay distinct for colour-blind readers (Okabe and Ito 2008).
VOXELS, GAUSSIANS, THIRD = "#8a8a8a", "#0072b2", "#d55e00"
TEXT, FAINT, GRID = "#222222", "#666666", "#dddddd"


class Fault(Exception):
    """The data is not what a chart needs."""


def table(name, headings):
    """The rows of the only table of results/NAME that has all `headings`, as dictionaries."""
    path = RESULTS / name
    lines = path.read_text(encoding="utf-8").splitlines()
    rows, columns = [], None
    for line in lines:
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else None
        if cells is None:
            columns = None
        elif columns is None:
            columns = cells
        elif all(re.fullmatch(r":?-+:?", cell) for cell in cells):
            continue
        elif set(headings) <= set(columns):
            if len(cells) != len(columns):
                raise Fault(f"{path}: {len(cells)} cells under {len(columns)} headings: {line}")
            rows.append(cells_by_heading(columns, cells))
    if not rows:
        raise Fault(f"{path}: no table with the columns {', '.join(headings)}")
    return rows


def cells_by_heading(columns, cells):
    """A repeated heading gets the one before it as a prefix: `Two ranks / Speed-up`."""
    row, previous = {}, ""
    for column, cell in zip(columns, cells):
        row[f"{previous} / {column}" if columns.count(column) > 1 else column] = cell
        previous = column
    return row


def number(row, column, low, high):
    try:
        value = float(row[column])
    except (KeyError, ValueError):
        raise Fault(f"column {column}: no number in {row}") from None
    if not low <= value <= high:
        raise Fault(f"column {column}: {value} is not within {low} and {high}")
    return value


class Svg:
    def __init__(self, width, height, title):
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'font-family="Helvetica, Arial, sans-serif" font-size="12" role="img">',
            f"<title>{escape(title)}</title>",
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        ]

    def line(self, x1, y1, x2, y2, colour, width=1):
        self.parts.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width}"/>')

    def dot(self, x, y, colour):
        self.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>')

    def bar(self, x, y, width, height, colour):
        self.parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>')

    def text(self, x, y, words, anchor="start", colour=TEXT, size=12, weight="normal"):
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" font-size="{size}" '
                          f'font-weight="{weight}">{escape(words)}</text>')

    def document(self):
        return "\n".join([*self.parts, "</svg>", ""])


def quality():
    """One line per simulated set: mean FSC of the voxel map and of the Gaussian map against the truth, in the truth's mask."""
    sets = []
    for row in table("truth.md", ["Set", "Particles", "Map", "Voxels, mask", "Gaussians, mask"]):
        if row["Map"] == "map":
            sets.append((row["Set"], row["Particles"], number(row, "Voxels, mask", 0, 1), number(row, "Gaussians, mask", 0, 1)))
    if len({name for name, *_ in sets}) != len(sets) or len(sets) < 2:
        raise Fault(f"truth.md: {len(sets)} rows of whole maps, or a set named twice")
    sets.sort(key=lambda each: each[2])

    lowest = int(min(min(voxels, gaussians) for _, _, voxels, gaussians in sets) * 10) / 10
    left, right, top, step = 410, 740, 76, 19
    bottom = top + step * len(sets)
    svg = Svg(840, bottom + 46, "Mean FSC against the truth of voxel maps and of Gaussian maps, for each simulated set")

    def at(value):
        return left + (right - left) * (value - lowest) / (1 - lowest)

    svg.text(16, 24, "Simulated sets: mean FSC of the final map against the truth", size=15, weight="bold")
    svg.dot(20, 46, VOXELS)
    svg.text(30, 50, "voxels (backproject --no-wiener)")
    svg.dot(240, 46, GAUSSIANS)
    svg.text(250, 50, "Gaussians (train, default settings)")
    svg.text(824, 50, "difference", "end", FAINT)
    for tick in range(round(lowest * 10), 11):
        svg.line(at(tick / 10), top - 8, at(tick / 10), bottom - 4, GRID)
        svg.text(at(tick / 10), bottom + 12, f"{tick / 10:.1f}", "middle", FAINT)
    svg.text((left + right) / 2, bottom + 32, "mean over the shells below Nyquist, in the truth's mask", "middle", FAINT)
    for index, (name, particles, voxels, gaussians) in enumerate(sets):
        y = top + step * index + 4
        svg.text(16, y + 4, name)
        svg.text(left - 14, y + 4, particles.split(", ", 1)[-1].replace(" at SNR", ", SNR").replace(" A,", " Å,"), "end", FAINT, 11)
        svg.line(at(voxels), y, at(gaussians), y, GAUSSIANS if gaussians >= voxels else VOXELS, 2)
        svg.dot(at(voxels), y, VOXELS)
        svg.dot(at(gaussians), y, GAUSSIANS)
        svg.text(824, y + 4, f"{gaussians - voxels:+.4f}", "end")
    return svg.document()


def speed():
    """Images per second of one thread, and the speed-up of two threads and of two ranks, for four sizes of problem."""
    first = "Batch 64"
    kinds = [("Two threads", GAUSSIANS), ("Two ranks", THIRD), ("Two programs", VOXELS)]
    cases = []
    for row in table("divided.md", [first, "One thread, images/s", *(kind for kind, _ in kinds)]):
        cases.append((row[first], number(row, "One thread, images/s", 1, 1e9),
                      [(number(row, kind, 1, 1e9), number(row, f"{kind} / Speed-up", 0.1, 10), colour) for kind, colour in kinds]))

    left, top, height, group, width = 60, 84, 190, 195, 48
    bottom, most = top + height, max(2.2, *(up for _, _, bars in cases for _, up, _ in bars))
    svg = Svg(left + group * len(cases) + 20, bottom + 60, "Speed-up of a training step on two cores over one thread")
    svg.text(16, 24, "CPU device: speed-up of a training step on two cores over one thread", size=15, weight="bold")
    labels = ["two threads of one rank", "two ranks of one thread", "two independent programs (what the machine can give)"]
    for x, label, (_, colour) in zip((16, 186, 356), labels, kinds):
        svg.bar(x, 40, 10, 10, colour)
        svg.text(x + 16, 50, label)
    for tick in (0, 0.5, 1, 1.5, 2):
        y = bottom - height * tick / most
        svg.line(left, y, left + group * len(cases), y, GRID)
        svg.text(left - 8, y + 4, f"{tick:.1f}", "end", FAINT)
    for index, (name, rate, bars) in enumerate(cases):
        x = left + group * index + (group - 3 * width - 16) / 2
        for place, (images, up, colour) in enumerate(bars):
            tall = height * up / most
            svg.bar(x + place * (width + 8), bottom - tall, width, tall, colour)
            svg.text(x + place * (width + 8) + width / 2, bottom - tall - 5, f"{images:,.0f}/s", "middle", size=11)
        middle = left + group * (index + 0.5)
        svg.text(middle, bottom + 18, name, "middle")
        svg.text(middle, bottom + 36, f"one thread: {rate:,.0f} images/s", "middle", FAINT, 11)
    return svg.document()


CHARTS = {"truth.svg": quality, "speed.svg": speed}


def main():
    check = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not check:
        sys.exit(__doc__)
    failed = False
    for name, draw in CHARTS.items():
        path = RESULTS / name
        try:
            drawn = draw()
            if check and (not path.is_file() or path.read_text(encoding="utf-8") != drawn):
                raise Fault(f"{path} is not what its table gives: make charts")
        except (Fault, OSError) as fault:
            print(f"FAILED: chart {name}: {fault}")
            failed = True
            continue
        if not check:
            path.write_text(drawn, encoding="utf-8")
        print(f"ok: chart {name}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
