#!/usr/bin/env python3
"""Checks a report in a browser: check.py light|dark|phone DOM, with the dumped DOM of a page with probe.js.

Prints a summary; exits with 1 and one line per problem.
"""

import html
import json
import re
import sys


def problems(kind, seen):
    """Descriptions of all problems in the results of the probe."""
    first, turned, near, higher = (seen[name] for name in ("first", "turned", "near", "higher"))
    dark = sum(seen["paper"]) < 3 * 60 and sum(seen["ink"]) > 3 * 180
    light = sum(seen["paper"]) > 3 * 220 and sum(seen["ink"]) < 3 * 80
    checks = [
        (not seen["errors"], f"errors: {seen['errors']}"),
        (seen["triangles"] > 1000, f"the surface has {seen['triangles']} triangles"),
        (seen["triangles_higher"] != seen["triangles"], "another level gives the same surface"),
        (0.03 < first["share"] < 0.7, f"the surface covers {first['share']:.3f} of its canvas"),
        (first["shades"] > 30, f"the surface has {first['shades']} shades"),
        (all(0.3 < place < 0.7 for place in first["centre"]), f"the surface lies at {first['centre']}"),
        (turned["hash"] != first["hash"], "an arrow key does not rotate the surface"),
        (near["share"] > 1.1 * turned["share"], "+ does not zoom in"),
        (higher["hash"] != near["hash"], "the slider has no effect"),
        (seen["images"] == seen["images_shown"] >= 2, f"{seen['images_shown']} of {seen['images']} pictures are shown"),
        (seen["charts"] >= 7, f"{seen['charts']} charts are shown"),
        (seen["wide"] <= seen["window"], f"the page is {seen['wide']} px wide in a window of {seen['window']}"),
        (dark if kind == "dark" else light, f"paper {seen['paper']} and ink {seen['ink']} are not {kind}"),
        (kind != "phone" or seen["window"] <= 400, f"the phone is {seen['window']} px wide"),
    ]
    return [text for holds, text in checks if not holds]


def main():
    kind, path = sys.argv[1:]
    with open(path, encoding="utf-8") as file:
        probe = re.search(r'data-probe="([^"]*)"', file.read())
    if not probe:
        sys.exit("the probe did not finish")
    seen = json.loads(html.unescape(probe.group(1)))
    wrong = problems(kind, seen)
    print(f"{seen['triangles']} triangles over {seen['first']['share']:.2f} of the canvas, {seen['charts']} charts, "
          f"{seen['images_shown']} pictures in {seen['window']} px")
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
