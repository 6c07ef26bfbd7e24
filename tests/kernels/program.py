"""What the program passes to NVRTC, read from its source, so that tests compile the same."""

import functools
import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMPILE_RS = ROOT / "src/render/cuda/compile.rs"
# The constants that depend on the run.
NAMES = ("BOX", "GRID", "CUTOFF", "BLUR", "PLANES", "VIEWS", "DRAW_SLICES", "MOMENT_LANES", "CHAIN_PARTS", "KEPT_HALF")


class Drift(Exception):
    """The program is not as this script expects."""


@dataclass
class Program:
    """What compile.rs passes to NVRTC."""

    # Text by file name, in order.
    sources: dict
    # Templates of options, with {architecture} and the constants of NAMES, as {BOX}.
    options: list

    @property
    def main(self):
        return "".join(f'#include "{name}"\n' for name in self.sources if name.endswith(".cu"))

    def arguments(self, architecture, constants):
        return [option.format(architecture=architecture, **constants) for option in self.options]

    @functools.cached_property
    def kernels(self):
        """The file of each kernel."""
        head = re.compile(r"__global__ void\s+(?:__launch_bounds__\([^()]*\)\s+)?(\w+)\(")
        return {kernel: name for name, text in self.sources.items() for kernel in head.findall(text)}


def read_program():
    """Reads sources and options from compile.rs."""
    text = COMPILE_RS.read_text()
    listed = re.search(r"const SOURCES: .*?; (\d+)\] = \[\n(.*?)\n\];", text, re.DOTALL)
    found = listed and re.findall(r'\("([\w.]+)", include_str!\("([\w./]+)"\)\)', listed[2])
    if not found or len(found) != int(listed[1]):
        raise Drift("its list SOURCES is not as expected")
    sources = {name: (COMPILE_RS.parent / path).read_text() for name, path in found}
    there = {path.name for path in (ROOT / "kernels").glob("*.cu*")}
    if there != set(sources):
        raise Drift(f"its list SOURCES and the folder kernels differ by {', '.join(sorted(there ^ set(sources)))}")

    body = re.search(r"fn options\(.*?vec!\[\n(.*?)\n +\]\n", text, re.DOTALL)
    if not body:
        raise Drift("its function options is not as expected")
    options = []
    for line in body[1].splitlines():
        line = line.strip()
        if line.startswith("//"):
            continue
        option = re.fullmatch(r'(?:format!\("(.*?)"(?:, .*)?\)|"(.*?)"\.into\(\)),', line)
        if not option:
            raise Drift(f"this line of its options is not understood: {line}")
        options.append(template(option[1] or option[2], text))
    unused = [name for name in NAMES if f"-D{name}={{{name}}}" not in options]
    if unused:
        raise Drift(f"its options do not give {', '.join(unused)}")
    return Program(sources, options)


def template(option, text):
    """Converts an option in Rust to a template with this script's names; constants of Rust are inserted."""
    name, _, value = option.partition("=")
    if "{" not in option or option == "--gpu-architecture={architecture}":
        return option
    constant = re.fullmatch(r"\{([A-Z_]+)\}", value)
    if constant:
        number = re.search(rf"const {constant[1]}: usize = (\d+);", text)
        if number:
            return f"{name}={number[1]}"
    elif name.removeprefix("-D") in NAMES and value in ("{}", "{:?}"):
        # Python writes 3.0 as 3.0, as Rust does.
        return f"{name}={{{name.removeprefix('-D')}}}"
    raise Drift(f"its option {option} is unknown here: give it values")
