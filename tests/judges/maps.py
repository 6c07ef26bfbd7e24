"""Compares maps independently of the program, with mrcfile and numpy.

maps.py files  --pixel-size A FILE...                      all files are valid MRC2014 with this pixel size and start at zero
maps.py agree  A.mrc B.mrc --to ANGSTROM --above FSC       the maps agree, and altered copies of A do not
maps.py curves POST.star... --within X --column CSV OURS THEIRS ...
                                                           our FSC curves equal RELION's (mean of several files)
maps.py sharpening POST.star OURS.json                     our B factor and resolution equal RELION's
maps.py same   A.mrc B.mrc                                 two masks are equal but for single voxels
maps.py beside TRUTH.mrc OURS.mrc THEIRS.mrc --within FSC  the maps have the same FSC against the truth; with --cells, for a
                                                           table: both means over shells 1 to D/2 - 1, the largest difference
maps.py win    TRUTH.mrc MASK.mrc VOXELS.mrc MAP.mrc        FSC against the truth of a voxel map and another, without and with
                                                           the mask: means over shells 1 to D/2 - 1 and, of the shells below
                                                           0.9 Nyquist, the one where the map does worst, as cells of a table
maps.py sphere LIKE.mrc OUT.mrc                            a soft spherical mask
maps.py mean   TRUTH.mrc MAP.mrc...                        mean FSC over shells 1 to D/2 - 1 and 1 to D/2, for a table

Prints a summary; exits with 1 and a message if a check fails.
"""

import argparse
import csv
import json
import sys

import mrcfile
import numpy as np

# An altered map is detected if its FSC falls below this somewhere in the range checked.
APART = 0.5


def wrong(message):
    print(f"wrong: {message}")
    sys.exit(1)


def read(path):
    """The map as [z][y][x] and its pixel size in angstrom."""
    with mrcfile.open(path) as file:
        size = file.voxel_size
        if not abs(size.x - size.y) + abs(size.x - size.z) < 1e-4:
            wrong(f"{path}: voxels of {size.x} x {size.y} x {size.z} A")
        return file.data.astype(np.float64), float(size.x)


def fsc(first, second):
    """The FSC in shells 0 to D/2; the last is cut by the faces of the box."""
    n = first.shape[0]
    a, b = np.fft.fftn(first), np.fft.fftn(second)
    k = np.fft.fftfreq(n, 1 / n)
    shell = np.rint(np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2)).astype(int).ravel()

    def total(values):
        return np.bincount(shell, values.ravel())[: n // 2 + 1]

    power = np.sqrt(total(np.abs(a) ** 2) * total(np.abs(b) ** 2))
    return total((a * b.conj()).real) / power


def mirrored(volume):
    """The opposite hand: x to -x about the origin, which is voxel D/2."""
    n = volume.shape[2]
    return volume[:, :, (2 * (n // 2) - np.arange(n)) % n]


def files(arguments):
    """Validation by mrcfile, kind of file, and pixel size."""
    for path in arguments.files:
        if not mrcfile.validate(path):
            wrong(f"{path} is not valid MRC2014 (mrcfile's report is above)")
        with mrcfile.open(path) as file:
            size = file.voxel_size
            stack = path.endswith(".mrcs")
            if stack != file.is_image_stack() or stack == file.is_volume():
                wrong(f"{path}: mrcfile takes it for {'a volume' if file.is_volume() else 'a stack of images'}")
            found = [size.x, size.y] if stack else [size.x, size.y, size.z]
            if any(abs(value - arguments.pixel_size) > 1e-4 for value in found):
                wrong(f"{path}: pixel size {size.x} x {size.y} x {size.z} A, expected {arguments.pixel_size} A")
            header = file.header
            start = [int(header[name]) for name in ("nxstart", "nystart", "nzstart")]
            origin = [float(header.origin[axis]) for axis in "xyz"]
            axes = [int(header[name]) for name in ("mapc", "mapr", "maps")]
            if start != [0, 0, 0] or origin != [0, 0, 0] or axes != [1, 2, 3]:
                wrong(f"{path}: start {start}, origin {origin}, axes {axes}: programs would place it differently")
            if not file.get_labels()[0].startswith("cryosplat-mpi "):
                wrong(f"{path}: its first label is {file.get_labels()[0]!r}, and does not name the program")
            if not np.isfinite(file.data).all() or file.data.std() == 0:
                wrong(f"{path}: values that are not finite, or all the same")
    print(f"{len(arguments.files)} files valid, {arguments.pixel_size:g} A")


def agree(arguments):
    """High FSC of the maps; low FSC somewhere in the same range for the opposite hand and for a shifted copy."""
    (first, size_a), (second, size_b) = read(arguments.first), read(arguments.second)
    if first.shape != second.shape or abs(size_a - size_b) > 1e-4:
        wrong(f"{first.shape} at {size_a} A and {second.shape} at {size_b} A cannot be compared")
    # The shells with a resolution of arguments.to or coarser.
    last = int(first.shape[0] * size_a / arguments.to)
    if not 4 <= last < first.shape[0] // 2:
        wrong(f"{arguments.to} A is shell {last} of {first.shape[0] // 2}: nothing to check")

    def lowest(volume):
        curve = fsc(volume, second)[1 : last + 1]
        return curve.min(), 1 + int(curve.argmin())

    low, at = lowest(first)
    if not low > arguments.above:
        wrong(f"FSC {low:.4f} in shell {at} (of 1 to {last}, to {arguments.to:g} A); more than {arguments.above} expected")
    found = [f"lowest FSC to {arguments.to:g} A is {low:.4f} (above {arguments.above:g} wanted)"]
    altered = {"mirrored": mirrored(first), "shifted by 2 voxels": np.roll(first, 2, axis=2)}
    for name, volume in altered.items():
        low, at = lowest(volume)
        if not low < APART:
            wrong(f"the {name} map passes as well: its FSC is never below {low:.4f} (shell {at})")
        found.append(f"{name} {low:.2f} (below {APART:g} wanted)")
    print("; ".join(found))


def win(arguments):
    """Mean FSC of both maps, and the difference in the shell where the map compares worst with voxels."""
    truth, mask, voxels, ours = (read(path)[0] for path in (arguments.truth, arguments.mask, arguments.voxels, arguments.map))
    n = truth.shape[0]
    last = int(0.9 * n / 2)
    k = (np.arange(n) - n // 2) / (n / 2)
    radius = np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2)
    # As by programs that window the images: outside the inscribed sphere there is only noise.
    window = np.clip((0.99 - radius) / (0.99 - 0.85), 0, 1)
    plain = np.maximum(fsc(voxels, truth), fsc(voxels * window, truth))
    curves = [(plain, fsc(ours, truth)), (fsc(voxels * mask, truth * mask), fsc(ours * mask, truth * mask))]
    cells = [f"{curve[1 : n // 2].mean():.4f}" for pair in curves for curve in pair]
    for theirs, mine in curves:
        gain = (mine - theirs)[1 : last + 1]
        cells.append(f"{gain.min():+.4f} ({1 + int(gain.argmin())})")
    print(" | ".join(cells))


def beside(arguments):
    """FSC of both maps against the ground truth in every shell below Nyquist; the maps must not be identical."""
    truth, _ = read(arguments.truth)
    (ours, theirs) = (read(path)[0] for path in (arguments.ours, arguments.theirs))
    a, b = (fsc(volume, truth)[1:-1] for volume in (ours, theirs))
    worst = int(np.abs(a - b).argmax())
    found = f"FSC against the truth {a[worst]:.4f} and {b[worst]:.4f} in shell {worst + 1}"
    if not abs(a[worst] - b[worst]) < arguments.within:
        wrong(f"{found}; expected within {arguments.within}")
    if np.array_equal(ours, theirs) or not b.mean() > 0.5:
        wrong(f"nothing to check: the mean FSC is {b.mean():.4f}")
    if arguments.cells:
        print(f"{a.mean():.4f} | {b.mean():.4f} | {abs(a[worst] - b[worst]):.4f}")
        return
    print(f"largest difference of {len(a)} shells: {found}; means {a.mean():.4f} and {b.mean():.4f}")


def better(arguments):
    """A higher mean FSC of the first map against the ground truth than of the second."""
    truth, first, second = (read(path)[0] for path in (arguments.truth, arguments.first, arguments.second))
    a, b = (fsc(volume, truth)[1:-1].mean() for volume in (first, second))
    if not a > b + arguments.by:
        wrong(f"mean FSC against the truth {a:.4f} and {b:.4f}; expected better by {arguments.by}")
    print(f"mean FSC against the truth {a:.4f} and {b:.4f}")


def star_table(path, name):
    """The rows of a table in a STAR file, as dictionaries."""
    labels, rows, inside = [], [], False
    for line in open(path):
        words = line.split()
        if line.startswith("data_"):
            inside = words[0] == f"data_{name}"
        elif not inside or not words or words[0] in ("loop_", "#"):
            continue
        elif words[0].startswith("_"):
            labels.append(words[0])
        else:
            rows.append(dict(zip(labels, map(float, words))))
    if not rows:
        wrong(f"{path} has no table {name}")
    return rows


def curves(arguments):
    """Compares each pair of columns by shell."""
    tables = [star_table(star, "fsc") for star in arguments.star]
    theirs = {}
    for rows in zip(*tables):
        theirs[int(rows[0]["_rlnSpectralIndex"])] = {label: np.mean([row[label] for row in rows]) for label in rows[0]}
    found = []
    for path, column, label in arguments.column:
        with open(path) as file:
            ours = {int(row["shell"]): float(row[column]) for row in csv.DictReader(file)}
        if len(ours) < 8 or not set(ours) <= set(theirs):
            wrong(f"{path}: shells {sorted(ours)}, RELION's: {sorted(theirs)}")
        worst = max(ours, key=lambda shell: abs(ours[shell] - theirs[shell][label]))
        difference = abs(ours[worst] - theirs[worst][label])
        if not difference < arguments.within:
            wrong(f"{column}: {ours[worst]:.5f} here and {theirs[worst][label]:.5f} from RELION in shell {worst}")
        found.append(f"{column}: within {difference:.1e} in {len(ours)} shells")
    print("; ".join(found))


def star_value(path, label):
    """The value of a label outside of loops."""
    for line in open(path):
        words = line.split()
        if len(words) == 2 and words[0] == label:
            return float(words[1])
    wrong(f"{path} has no {label}")


def sharpening(arguments):
    """B factors agree within 3%. The shell of the resolution depends on random phases: it may differ by one."""
    with open(arguments.ours) as file:
        ours = json.load(file)
    b_factor = star_value(arguments.star, "_rlnBfactorUsedForSharpening")
    if not abs(ours["b_factor"] / b_factor - 1) < 0.03:
        wrong(f"the B factor is {ours['b_factor']:.1f} here and {b_factor:.1f} from RELION")
    resolution = star_value(arguments.star, "_rlnFinalResolution")
    shell = round(ours["box_size"] * ours["pixel_size"] / resolution)
    if abs(ours["resolution_shell"] - shell) > 1:
        wrong(f"the last shell above 0.143 is {ours['resolution_shell']} here and {shell} from RELION")
    print(f"B {ours['b_factor']:.1f}, RELION's {b_factor:.1f}; last shell {ours['resolution_shell']}, RELION's {shell}")


def same(arguments):
    """Rounding may move a voxel across the threshold, which affects a few hundred voxels around it."""
    (first, _), (second, _) = read(arguments.first), read(arguments.second)
    if first.shape != second.shape or not 0.01 < second.mean() < 0.9:
        wrong(f"{first.shape} and {second.shape}, covering {first.mean():.3f} and {second.mean():.3f} of the box")
    share = (abs(first - second) > 1e-4).mean()
    if not share < 1e-3:
        wrong(f"{share:.2e} of the voxels differ, by up to {abs(first - second).max():.3f}")
    print(f"{share:.1e} of the voxels differ; {second.mean():.3f} of the box is covered")


def sphere(arguments):
    """1 within 0.32 of the box, 0 beyond 0.42, a cosine between: what a particle of 0.4 box edges half fills."""
    volume, pixel_size = read(arguments.like)
    n = volume.shape[0]
    x = np.arange(n) - n // 2
    radius = np.sqrt(x[:, None, None] ** 2 + x[:, None] ** 2 + x**2) / n
    step = np.clip((radius - 0.32) / 0.10, 0, 1)
    with mrcfile.new(arguments.output, overwrite=True) as file:
        file.set_data((0.5 + 0.5 * np.cos(np.pi * step)).astype(np.float32))
        file.voxel_size = pixel_size


def mean(arguments):
    """The mean over the maps of the mean over the shells, without and with the one at Nyquist."""
    truth, _ = read(arguments.truth)
    curves = np.array([fsc(read(path)[0], truth) for path in arguments.maps])
    print(f"{curves[:, 1:-1].mean():.4f} | {curves[:, 1:].mean():.4f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("files")
    command.add_argument("files", nargs="+")
    command.add_argument("--pixel-size", type=float, required=True)
    command.set_defaults(run=files)
    command = commands.add_parser("agree")
    command.add_argument("first")
    command.add_argument("second")
    command.add_argument("--to", type=float, required=True)
    command.add_argument("--above", type=float, required=True)
    command.set_defaults(run=agree)
    command = commands.add_parser("beside")
    command.add_argument("truth")
    command.add_argument("ours")
    command.add_argument("theirs")
    command.add_argument("--within", type=float, required=True)
    command.add_argument("--cells", action="store_true")
    command.set_defaults(run=beside)
    command = commands.add_parser("better")
    for name in ("truth", "first", "second"):
        command.add_argument(name)
    command.add_argument("--by", type=float, required=True)
    command.set_defaults(run=better)
    command = commands.add_parser("curves")
    command.add_argument("star", nargs="+")
    command.add_argument("--column", nargs=3, action="append", metavar=("CSV", "OURS", "THEIRS"), required=True)
    command.add_argument("--within", type=float, required=True)
    command.set_defaults(run=curves)
    command = commands.add_parser("sharpening")
    command.add_argument("star")
    command.add_argument("ours")
    command.set_defaults(run=sharpening)
    command = commands.add_parser("same")
    command.add_argument("first")
    command.add_argument("second")
    command.set_defaults(run=same)
    command = commands.add_parser("win")
    for name in ("truth", "mask", "voxels", "map"):
        command.add_argument(name)
    command.set_defaults(run=win)
    command = commands.add_parser("sphere")
    command.add_argument("like")
    command.add_argument("output")
    command.set_defaults(run=sphere)
    command = commands.add_parser("mean")
    command.add_argument("truth")
    command.add_argument("maps", nargs="+")
    command.set_defaults(run=mean)
    arguments = parser.parse_args()
    arguments.run(arguments)


main()
