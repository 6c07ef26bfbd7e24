"""Compiles kernels/*.cu with NVRTC as the program does, reads the resources of each kernel from ptxas, and counts the
instructions of inner loops. Needs no GPU.

compile.py            checks every kernel on every architecture, and the tables of kernels/README.md
compile.py --table    writes those tables

A kernel passes if no set of constants causes a warning, a spill, a stack frame or other local memory: each is either a
mistake or a slow kernel. Prints one line per kernel and architecture, "ok: ..." or "FAILED: ...", and exits with 1 if any
failed.
"""

import argparse
import ctypes
import functools
import re
import struct
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import sass
import work
from program import COMPILE_RS, NAMES, Drift, read_program
from tables import MULTIPROCESSORS, README, kernel_table, loop_table, shown, with_table

# A compilation uses one core; continuous integration may have two.
PROCESSES = 2

# Each set is compiled for each architecture. Any two values of different constants but BOX and GRID occur together in some set, where
# VIEWS and CHAIN_PARTS count as one constant. A grid of 520 points has 33 tiles along an axis, more than the bits of a word.
SETS = [
    dict(zip(NAMES, values))
    for values in [
        # The first set is that of the table.
        (256, 320, 3.0, 0.6, 11, 1, 1, 4, 4, 0),
        (64, 64, 3.0, 0.0, 5, 1, 4, 16, 4, 1),
        (128, 128, 8.0, 0.0, 11, 24, 8, 16, 32, 0),
        (192, 192, 8.0, 0.0, 5, 24, 1, 4, 32, 1),
        (33, 48, 8.0, 0.6, 11, 24, 4, 4, 32, 1),
        (65, 90, 3.0, 0.6, 5, 1, 8, 4, 4, 1),
        (75, 75, 8.0, 0.0, 5, 1, 4, 4, 4, 0),
        (416, 520, 3.0, 0.6, 11, 24, 1, 16, 32, 1),
    ]
]


class Nvrtc:
    """NVRTC of the virtual environment."""

    def __init__(self):
        found = list(packages().glob("cuda_nvrtc/lib/libnvrtc.so.*"))
        self.library = ctypes.CDLL(str(found[0]))

    def call(self, name, *arguments):
        code = getattr(self.library, f"nvrtc{name}")(*arguments)
        if code != 0:
            raise RuntimeError(f"nvrtc{name} returned {code}")

    def text(self, program, what):
        size = ctypes.c_size_t()
        self.call(f"Get{what}Size", program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        self.call(f"Get{what}", program, buffer)
        return buffer.raw

    def compile(self, main, sources, options):
        """Returns the log, and PTX and machine code, or None where it fails."""

        def strings(texts):
            return (ctypes.c_char_p * len(texts))(*[text.encode() for text in texts])

        program = ctypes.c_void_p()
        self.call(
            "CreateProgram",
            ctypes.byref(program),
            main.encode(),
            b"cryosplat.cu",
            len(sources),
            strings(list(sources.values())),
            strings(list(sources)),
        )
        code = self.library.nvrtcCompileProgram(program, len(options), strings(options))
        log = self.text(program, "ProgramLog").rstrip(b"\0").decode()
        if code != 0:
            log = log or f"error: nvrtcCompileProgram returned {code}"
        made = (None, None) if code != 0 else (self.text(program, "PTX").rstrip(b"\0"), self.text(program, "CUBIN"))
        self.call("DestroyProgram", ctypes.byref(program))
        return log, *made


# Each process loads the library once, after it has started.
nvrtc = functools.cache(Nvrtc)


def packages():
    return Path(sysconfig.get_path("purelib"), "nvidia")


@dataclass
class Measured:
    """Resources of one compiled kernel; `wrong` lists its defects."""

    registers: int = 0
    shared_bytes: int = 0
    threads: int = 0
    # The inner loop with exponentials, if there is one.
    loop: sass.Loop | None = None
    wrong: list = field(default_factory=list)


def build(program, architecture, constants, counted=False):
    """Compiles all kernels with one set of constants; if `counted`, with their inner loops."""
    measured = {kernel: Measured() for kernel in program.kernels}
    log, ptx, code = nvrtc().compile(program.main, program.sources, program.arguments(architecture, constants))
    assign_messages(measured, program, log)
    if ptx is None:
        for one in measured.values():
            one.wrong = one.wrong or ["not compiled, for an error in another file"]
        return measured
    entries = dict(re.findall(r"\.entry (\w+)\([^()]*\)\s*\.maxntid (\d+)", ptx.decode()))
    for kernel in set(measured) ^ set(entries):
        measured.setdefault(kernel, Measured()).wrong.append("is missing in the source or, with its threads, in the PTX")
    for kernel, threads in entries.items():
        measured[kernel].threads = int(threads)
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder, "kernels.ptx"), Path(folder, "kernels.cubin")
        source.write_bytes(ptx)
        command = [packages() / "cuda_nvcc/bin/ptxas", "--verbose", "--gpu-name", architecture, "-o", output, source]
        report = subprocess.run(command, capture_output=True, text=True)
        read_report(measured, report.stdout + report.stderr)
        if report.returncode != 0:
            for one in measured.values():
                one.wrong.append(f"ptxas returned {report.returncode}")
            return measured
        assembled = sections(output.read_bytes())
    # The report of ptxas must be about the code that the program runs.
    loaded = sections(code)
    for kernel, one in measured.items():
        text = f".text.{kernel}"
        if text not in loaded or loaded[text] != assembled.get(text):
            one.wrong.append("the machine code of NVRTC is not that of ptxas")
        if f".nv.local.{kernel}" in loaded:
            one.wrong.append("local memory in the machine code")
    if counted:
        for kernel, text in sass.disassemble(packages() / "cu13/bin/nvdisasm", code).items():
            measured[kernel].loop = sass.leanest(text)
    return measured


def assign_messages(measured, program, log):
    """Assigns each line of NVRTC's log to the kernels of the file that it names, or to all for a header."""
    places = re.findall(r"^(\S+?)\((\d+)\): (.*)$", log, re.MULTILINE)
    if log.strip() and not places:
        places = [("", "", log.strip().splitlines()[0])]
    for file, line, message in places:
        of_file = [kernel for kernel, its in program.kernels.items() if its == file]
        for kernel in of_file or measured:
            measured[kernel].wrong.append(f"{file}:{line}: {message}" if file else message)


def read_report(measured, report):
    """Reads `ptxas --verbose`, where the lines of a kernel and of the functions that it calls follow its name."""
    kernel = None
    for line in report.splitlines():
        start = re.search(r"Compiling entry function '(\w+)'", line)
        kernel = measured.get(start[1]) if start else kernel
        if re.match(r"ptxas .*(warning|error|fatal)", line):
            for one in [kernel] if kernel else measured.values():
                one.wrong.append(line.strip())
        if kernel is None:
            continue
        used = re.search(r"Used (\d+) registers", line)
        if used:
            kernel.registers = int(used[1])
            shared = re.search(r"(\d+) bytes smem", line)
            kernel.shared_bytes = int(shared[1]) if shared else 0
        for size, what in re.findall(r"(\d+) bytes (stack frame|spill stores|spill loads|lmem|cumulative stack)", line):
            if int(size) > 0:
                kernel.wrong.append(f"{size} bytes {what}")


def sections(elf):
    """Contents of the sections of a 64-bit ELF file, by name."""
    (table,) = struct.unpack_from("<Q", elf, 0x28)
    size, count, names = struct.unpack_from("<HHH", elf, 0x3A)
    # Name, type, flags, address, offset, size.
    headers = [struct.unpack_from("<IIQQQQ", elf, table + index * size) for index in range(count)]
    strings = headers[names][4]

    def name(at):
        return elf[strings + at : elf.index(b"\0", strings + at)].decode()

    empty = 8
    return {name(h[0]): b"" if h[1] == empty else elf[h[4] : h[4] + h[5]] for h in headers}


class Lines:
    """Prints results and counts failures."""

    failed = 0

    def ok(self, what, detail):
        print(f"ok: {what}: {detail}", flush=True)

    def wrong(self, what, reason):
        print(f"FAILED: {what}: {reason}", flush=True)
        self.failed += 1


def named(constants):
    return ", ".join(f"{name} {value}" for name, value in constants.items())


def spread(values, unit):
    low, high = min(values), max(values)
    return f"{low} {unit}" if low == high else f"{low} to {high} {unit}"


def report_kernel(lines, architecture, kernel, runs):
    """Prints one line for all sets; `runs` are pairs of constants and resources."""
    what = f"{architecture} {kernel}"
    wrong = [(constants, one.wrong) for constants, one in runs if one.wrong]
    if wrong:
        constants, reasons = wrong[0]
        more = f" ({len(wrong)} of {len(runs)} sets of constants fail)" if len(runs) > 1 else ""
        lines.wrong(what, f"{'; '.join(dict.fromkeys(reasons))}; with {named(constants)}{more}")
        return
    registers = spread([one.registers for _, one in runs], "registers")
    shared = spread([one.shared_bytes for _, one in runs], "bytes shared")
    lines.ok(what, f"{registers}, {shared}, no local memory and no warning in {len(runs)} sets of constants")


def check_names(lines, program):
    """Checks that the program loads all kernels and no others: it finds them by name only when it starts on a GPU."""
    loaded = set(re.findall(r"^    (\w+)\(\w+Arguments\),$", (COMPILE_RS.parent / "kernels.rs").read_text(), re.MULTILINE))
    differing = loaded ^ set(program.kernels)
    if differing:
        lines.wrong("kernels that the program loads", f"not both loaded and defined: {', '.join(sorted(differing))}")
    else:
        lines.ok("kernels that the program loads", f"all {len(loaded)} are defined, and no other")


def check_tables(lines, tables, write):
    """Compares or writes the tables of kernels/README.md; `tables[name]` has the lines of each."""
    text = README.read_text()
    for name, its in tables.items():
        what = f"table {name} of {shown(README)}"
        try:
            new = with_table(text, name, its)
        except Drift as drift:
            lines.wrong(what, drift)
            continue
        if write:
            lines.ok(what, "written")
        elif new == text:
            lines.ok(what, "as measured")
        else:
            lines.wrong(what, "not as measured: run `make kernel-table`, and look at what has changed")
        text = new
    if write:
        README.write_text(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    lines = Lines()
    try:
        compiled = read_program()
        work.agrees(compiled.sources)
    except Drift as drift:
        lines.wrong(f"options and sources of {shown(COMPILE_RS)}", drift)
        sys.exit(1)

    sets = SETS[:1] if arguments.table else SETS
    with ProcessPoolExecutor(PROCESSES) as pool:
        jobs = {
            architecture: [pool.submit(build, compiled, architecture, constants, constants is sets[0]) for constants in sets]
            for architecture in MULTIPROCESSORS
        }
        of_cases = {
            box: pool.submit(build, compiled, work.ARCHITECTURE, work.constants(box), True) for box, _ in work.CASES
        }
        loops = {box: {kernel: one.loop for kernel, one in job.result().items()} for box, job in of_cases.items()}
        runs = {architecture: [job.result() for job in of_sets] for architecture, of_sets in jobs.items()}
    of_table = {architecture: of_sets[0] for architecture, of_sets in runs.items()}
    complete = all(one.registers and one.threads for kernels in of_table.values() for one in kernels.values())

    if not arguments.table:
        lines.ok(
            f"options and sources of {shown(COMPILE_RS)}",
            f"{len(compiled.options)} options, {len(compiled.sources)} files",
        )
        check_names(lines, compiled)
    if not arguments.table or not complete:
        for architecture, of_sets in runs.items():
            for kernel in of_sets[0]:
                report_kernel(lines, architecture, kernel, [(c, run[kernel]) for c, run in zip(sets, of_sets)])
    if complete and all(loops[box][kernel] for box in loops for kernel in work.WITH_LOOPS):
        tables = {
            "kernels": kernel_table(of_table),
            "loops": loop_table(of_table),
            "work": work.work_table(loops),
            "bytes": work.bytes_table(),
        }
        check_tables(lines, tables, write=arguments.table)
    else:
        lines.wrong(f"tables of {shown(README)}", "not all kernels could be measured")
    sys.exit(1 if lines.failed else 0)


if __name__ == "__main__":
    main()
