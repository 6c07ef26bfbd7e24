#!/usr/bin/env python3
"""Whether a report looked right to a browser: check.py light|dark|phone DOM, of a page with probe.js in it.

Prints what was seen; exit code 1 and a line for each thing that is wrong.
"""

import html
import json
import re
import sys


def problems(kind, seen):
    """What is wrong with what the probe saw, in words."""
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
        (turned["hash"] != first["hash"], "an arrow key does not turn the surface"),
        (near["share"] > 1.1 * turned["share"], "+ does not bring it nearer"),
        (higher["hash"] != near["hash"], "the slider changes nothing"),
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
        sys.exit("the page's probe did not come to its end")
    seen = json.loads(html.unescape(probe.group(1)))
    wrong = problems(kind, seen)
    print(f"{seen['triangles']} triangles over {seen['first']['share']:.2f} of the canvas, {seen['charts']} charts, "
          f"{seen['images_shown']} pictures in {seen['window']} px")
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
