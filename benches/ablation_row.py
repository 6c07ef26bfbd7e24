#!/usr/bin/env python3
"""Prints a row of the table of ablations: ablation_row.py NAME DB RECIPE RUN, from run.json and the output of `fsc --json` in RUN."""

import json
import sys


def load(folder, name):
    with open(f"{folder}/{name}.json") as file:
        return json.load(file)


def curve(document, label):
    return next((curve for curve in document["curves"] if curve["label"] == label), None)


def resolution(crossing):
    sign = {"crossed": "", "never below": "< ", "below from start": "> "}[crossing["outcome"]]
    return f"{sign}{crossing['resolution']:.1f}"


def main():
    name, db, recipe, folder = sys.argv[1:]
    run, truth, halves, voxels = (load(folder, part) for part in ("run", "truth", "halves", "voxels"))
    settings = run["settings"]
    truth, agreed, voxels = curve(truth, "no mask"), curve(halves, "no mask"), curve(voxels, "no mask")
    confirmed = curve(halves, "cross-validated")
    known = halves["cross_validation"]["known_to"]
    cells = [name, db, recipe, f"{settings['gaussians']:,}", f"{run['particles']['models'][0]['particles'] * settings['epochs']:,}",
             f"{truth['mean']:.4f}", resolution(truth["fsc_0.5"]), f"{agreed['mean']:.4f}", resolution(agreed["fsc_0.143"]),
             f"{confirmed['mean']:.4f}" if confirmed else "-", f"{known:.1f}" if known else "-", f"{voxels['mean']:.4f}"]
    print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
