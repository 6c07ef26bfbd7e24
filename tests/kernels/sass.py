"""The instructions of a kernel's inner loops, from machine code, by nvdisasm (a Python package of NVIDIA's)."""

import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

# Instructions by unit; everything else is "other": integers, bits, predicates, branches, moves.
KINDS = {
    "FP32": r"F(FMA|ADD|MUL|SETP|SEL|MNMX|CHK)",
    "exponentials": r"MUFU\.EX2",
    "loads, shared": r"LDS",
    "loads, global": r"LDG",
}
LABEL = re.compile(r"^(\.L_x_\d+):")
INSTRUCTION = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+ )?\s*([A-Z][\w.]*)(.*?);")


@dataclass
class Loop:
    """An innermost loop that evaluates exponentials."""

    counts: Counter
    instructions: int

    @property
    def exponentials(self):
        """Exponentials per iteration and lane."""
        return self.counts["exponentials"]

    @property
    def each(self):
        """Instructions per exponential."""
        return self.instructions / self.exponentials


def disassemble(tool, code):
    """Disassembly of each kernel of a loadable image."""
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder, "kernels.cubin")
        image.write_bytes(code)
        command = [tool, "--print-code", image]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    parts = re.split(r"^\.text\.(\w+):\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2]))


def loops(text):
    """All Loops of a kernel: from a label to the last branch back to it."""
    names, labels, ends = [], {}, {}
    for line in text.splitlines():
        # The next section.
        if line.startswith("//-"):
            break
        label, instruction = LABEL.match(line), INSTRUCTION.match(line)
        if label:
            labels[label[1]] = len(names)
        elif instruction:
            names.append(instruction[1])
            target = re.search(r"`\((\.L_x_\d+)\)", instruction[2])
            # A known label lies before: the branch goes back.
            if instruction[1].startswith("BRA") and target and target[1] in labels:
                ends[labels[target[1]]] = len(names)
    found = []
    for start, end in ends.items():
        inner = any(start <= s and e <= end and (s, e) != (start, end) for s, e in ends.items())
        counts = Counter(kind_of(name) for name in names[start:end])
        if not inner and counts["exponentials"]:
            found.append(Loop(counts, end - start))
    return found


def kind_of(name):
    return next((kind for kind, names in KINDS.items() if re.match(names, name)), "other")


def leanest(text):
    """The loop with the fewest instructions per exponential: that of splats that are not `fine`."""
    return min(loops(text), key=lambda loop: loop.each, default=None)
