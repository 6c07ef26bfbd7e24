"""Particle sets with unusual optics, made independently of the program, with numpy.

optics.py columns IN.star OUT.star LABEL=VALUE...   adds columns to the optics table
optics.py odd     SET.star                          multiplies the images by the odd aberration that the optics table states
optics.py second  IN.star OUT.star STACK SIZE BOX   moves every second particle to a second optics group, with the images of
                                                    STACK, of SIZE angstrom a pixel in a box of BOX pixels
"""

import math
import os
import sys

import mrcfile
import numpy as np


def tables(path):
    """The lines of a STAR file as tuples: name of the table, kind (label, row or other), line."""
    table, found = "", []
    for line in open(path):
        words = line.split()
        if words and words[0].startswith("data_"):
            table = words[0]
        kind = "other"
        if words and words[0].startswith("_rln"):
            kind = "label"
        elif words and table and not words[0].startswith(("#", "loop_", "data_")):
            kind = "row"
        found.append((table, kind, line))
    return found


def columns(source, target, *pairs):
    pairs = [pair.split("=", 1) for pair in pairs]
    out, count = [], 0
    for table, kind, line in tables(source):
        if table == "data_optics" and kind == "label":
            count += 1
        if table == "data_optics" and kind == "row":
            if count:
                out += [f"_{label} #{count + 1 + place} \n" for place, (label, _) in enumerate(pairs)]
                count = 0
            line = " ".join([line.rstrip(), *(value for _, value in pairs)]) + " \n"
        out.append(line)
    open(target, "w").writelines(out)


def optics_of(star):
    labels, rows = [], []
    for table, kind, line in tables(star):
        if table == "data_optics" and kind == "label":
            labels.append(line.split()[0][1:])
        if table == "data_optics" and kind == "row":
            rows.append(dict(zip(labels, line.split())))
    return rows


def zernike(index, x, y):
    """Odd Zernike polynomial in RELION's order."""
    band = int((math.sqrt(1 + 4 * index) - 1) / 2)
    n = 2 * band + 1
    m = 2 * (index - band * (band + 1)) - n
    radius, azimuth = np.hypot(x, y), np.arctan2(y, x)
    radial = sum(
        (-1) ** k
        * math.factorial(n - k)
        / (math.factorial(k) * math.factorial((n + abs(m)) // 2 - k) * math.factorial((n - abs(m)) // 2 - k))
        * radius ** (n - 2 * k)
        for k in range((n - abs(m)) // 2 + 1)
    )
    return radial * (np.sin(-m * azimuth) if m < 0 else np.cos(m * azimuth))


def odd(star):
    [optics] = optics_of(star)
    number = lambda label, default=0.0: float(optics.get(label, default))
    path = os.path.splitext(star)[0] + ".mrcs"
    with mrcfile.open(path, mode="r+", permissive=True) as file:
        n = file.data.shape[1]
        k = np.fft.fftfreq(n, number("rlnImagePixelSize"))
        ky, kx = np.meshgrid(k, k, indexing="ij")
        x = number("rlnMagMat00", 1) * kx + number("rlnMagMat01") * ky
        y = number("rlnMagMat10") * kx + number("rlnMagMat11", 1) * ky
        volts, cs = 1e3 * number("rlnVoltage"), 1e7 * number("rlnSphericalAberration")
        wavelength = 12.2643247 / math.sqrt(volts + 0.978466e-6 * volts**2)
        tilt = 1e-3 * (number("rlnBeamTiltX") * x + number("rlnBeamTiltY") * y)
        phase = -2 * math.pi * cs * wavelength**2 * (x**2 + y**2) * tilt
        coefficients = optics.get("rlnOddZernike", "[]").strip("[]").split(",")
        for index, coefficient in enumerate(filter(None, coefficients)):
            # In RELION the beam tilt takes the place of the coma terms.
            if index in (3, 4) and "rlnBeamTiltX" in optics:
                continue
            phase += float(coefficient) * zernike(index, x, y)
        spectra = np.fft.fft2(file.data) * np.exp(1j * phase)
        file.set_data(np.fft.ifft2(spectra).real.astype(np.float32))


def second(source, target, stack, size, box):
    out, label = [], {}
    for table, kind, line in tables(source):
        if kind == "label":
            label.setdefault(table, []).append(line.split()[0])
        if kind == "row":
            words, place = line.split(), label[table].index
            if table == "data_optics":
                out.append(line)
                words[place("_rlnOpticsGroup")] = "2"
                words[place("_rlnOpticsGroupName")] = "second"
                words[place("_rlnImagePixelSize")] = size
                words[place("_rlnImageSize")] = box
                line = " ".join(words) + " \n"
            else:
                image = words[place("_rlnImageName")]
                if int(image.split("@")[0]) % 4 > 1:
                    words[place("_rlnImageName")] = image.split("@")[0] + "@" + stack
                    words[place("_rlnOpticsGroup")] = "2"
                    line = " ".join(words) + " \n"
        out.append(line)
    open(target, "w").writelines(out)


if __name__ == "__main__":
    {"columns": columns, "odd": odd, "second": second}[sys.argv[1]](*sys.argv[2:])
