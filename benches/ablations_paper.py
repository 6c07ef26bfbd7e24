#!/usr/bin/env python3
"""Compares the statements of the paper with the rows of a table: ablations_paper.py TABLE prints ablations_paper.md with the
figures of the table in place of {RECIPE COLUMN ROW...}."""

import re
import sys
import textwrap
from pathlib import Path

COLUMNS = {"truth": 5, "resolution": 6, "halves": 7, "voxels": 11}


def rows(lines):
    """Cells by row and recipe."""
    found = {}
    for line in lines:
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) > max(COLUMNS.values()):
            found[cells[0], cells[2]] = cells
    return found


def numbers(words, found):
    recipe, column, *names = words.split()
    cells = [found.get((name, recipe)) for name in names]
    return ", ".join(its[COLUMNS[column]] if its else "not run" for its in cells)


def main():
    found = rows(Path(sys.argv[1]).read_text().splitlines())
    text = Path(__file__).with_suffix(".md").read_text()
    text = re.sub(r"\{(.*?)\}", lambda place: numbers(place[1], found), text)
    for line in text.splitlines():
        wrapped = textwrap.wrap(line, 124, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
        print("\n".join(wrapped if line.startswith("- ") else [line]))


main()
