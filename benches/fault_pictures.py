#!/usr/bin/env python3
"""Draws the pictures of docs/reading.md: what a run looks like if its particles or settings have a fault.

fault_pictures.py [WORK]   reads the runs that benches/diagnose.sh has made in WORK (default: target/diagnose), and writes docs/faults/*.svg

Each picture shows the central slice of the map along z and along y, its projection along z, and its FSC curves. Needs the Python
standard library only.
"""

import base64
import csv
import struct
import sys
import zlib
from array import array
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Picture, run in WORK, title.
PICTURES = [
    ("sound", "sound/a03-hexon", "Sound"),
    ("contrast-inverted", "fault/a1-contrast-inverted", "Contrast inverted"),
    ("origins-sign", "fault/a1-origins-sign", "Origins with the wrong sign"),
    ("poses", "fault/a1-poses-5", "Poses wrong by 5 degrees"),
    ("defocus", "fault/a1-defocus-1.6", "Defocus 1.6 times too large"),
    ("pixel-size", "fault/a1-pixel-size-0.5", "Pixel size halved"),
    ("missing-cone", "fault/a1-cone-top-45", "No views within 45 degrees of z"),
    ("model-too-small", "fault/a1-small-64", "64 Gaussians, one epoch"),
    ("junk", "fault/a1-junk-0.5", "Half of the particles are none"),
]
PANEL, GAP, TOP = 128, 8, 26
CHART = 220
# Colours that stay distinct for colour-blind readers (Okabe and Ito 2008).
CURVES = [
    ("half maps corrected for a mask", "#0072b2", "half maps, in the mask"),
    ("cross-validated under the mask", "#d55e00", "cross-validated, in the mask"),
]


def read_map(path):
    """The box size and the values, z slowest, of an MRC file of mode 2."""
    data = path.read_bytes()
    nx, ny, nz, mode = struct.unpack_from("<4i", data)
    extended = struct.unpack_from("<i", data, 92)[0]
    if mode != 2 or not nx == ny == nz:
        raise SystemExit(f"{path}: expected a cube of mode 2")
    values = array("f", data[1024 + extended : 1024 + extended + 4 * nx**3])
    if sys.byteorder != "little":
        values.byteswap()
    return nx, values


def png(rows):
    """A grey picture as the bytes of a PNG file."""
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">2I5B", len(rows[0]), len(rows), 8, 0, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + bytes(row) for row in rows), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def grey(rows):
    """Values from 0 to 255 between the first and the last half per cent."""
    ordered = sorted(value for row in rows for value in row)
    low, high = ordered[len(ordered) // 200], ordered[-1 - len(ordered) // 200]
    scale = 255 / ((high - low) or 1)
    return [[min(255, max(0, round((value - low) * scale))) for value in row] for row in rows]


def panels(n, values):
    """Central slices along z and y, and the projection along z; the first row is at the top."""
    half = n // 2
    along_z = [[values[(half * n + y) * n + x] for x in range(n)] for y in reversed(range(n))]
    along_y = [[values[(z * n + half) * n + x] for x in range(n)] for z in reversed(range(n))]
    sums = [[sum(values[(z * n + y) * n + x] for z in range(n)) for x in range(n)] for y in reversed(range(n))]
    return [("slice along z", along_z), ("slice along y", along_y), ("projection", sums)]


def curves(path):
    """Name, colour and points (spatial frequency over Nyquist, FSC) of the curves that are drawn."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    nyquist = float(rows[-1]["spatial_frequency_1_per_A"])
    found = []
    for column, colour, name in CURVES:
        points = [(float(row["spatial_frequency_1_per_A"]) / nyquist, row[column]) for row in rows if row.get(column)]
        found.append((name, colour, [(x, min(1.0, max(-0.1, float(y)))) for x, y in points]))
    return found, 1 / nyquist


def draw(run, title):
    """The picture of a run, as SVG."""
    n, values = read_map(run / "map.mrc")
    width, height = 3 * (PANEL + GAP) + CHART + 48, TOP + PANEL + 40
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="11" fill="#222222">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="{GAP}" y="17" font-size="14" font-weight="bold">{title}</text>',
    ]
    for index, (name, rows) in enumerate(panels(n, values)):
        x = GAP + index * (PANEL + GAP)
        data = base64.b64encode(png(grey(rows))).decode("ascii")
        out.append(
            f'<image x="{x}" y="{TOP}" width="{PANEL}" height="{PANEL}" style="image-rendering:pixelated" '
            f'href="data:image/png;base64,{data}"/>'
        )
        out.append(f'<text x="{x}" y="{TOP + PANEL + 14}">{name}</text>')
    left, top, tall = 3 * (PANEL + GAP) + 44, TOP + 4, PANEL - 8
    found, finest = curves(run / "fsc.csv")

    def place(x, y):
        return f"{left + x * (CHART - 10):.1f},{top + (1 - y) / 1.1 * tall:.1f}"

    for level in (1, 0.5, 0.143, 0):
        start, end = place(0, level).split(","), place(1, level).split(",")
        out.append(f'<line x1="{start[0]}" y1="{start[1]}" x2="{end[0]}" y2="{end[1]}" stroke="#dddddd"/>')
        out.append(f'<text x="{left - 4}" y="{float(start[1]) + 4:.1f}" text-anchor="end">{level}</text>')
    for index, (name, colour, points) in enumerate(found):
        path = " ".join(place(x, y) for x, y in points)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
        out.append(f'<text x="{left}" y="{TOP + PANEL + 26 + 12 * (index - 1)}" fill="{colour}">FSC, {name}</text>')
    out.append(f'<text x="{left + CHART - 10}" y="{top + tall + 12}" text-anchor="end">{finest:.3g} Å</text>')
    return "\n".join(out + ["</svg>", ""])


def main():
    work = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "target/diagnose"
    folder = ROOT / "docs/faults"
    folder.mkdir(exist_ok=True)
    for name, run, title in PICTURES:
        (folder / f"{name}.svg").write_text(draw(work / run / "run", title), encoding="utf-8")


if __name__ == "__main__":
    main()
