"""What a file says without times, versions, hosts and paths: entries of (class, key) -> value.

The class "data" must not change. The class "text" is for people: wording, which is compared and reported only.
"""

import csv
import hashlib
import html
import io
import json
import re

import h5py
import numpy as np

# Members of JSON objects that depend on the moment, the machine or the place.
VARIABLE = re.compile(
    r"^(seconds|.*_seconds|.*_seconds_alone|images_per_second.*|compute|reduce|update|wait|input_share|reduce_share|"
    r"bytes_read|host_bytes|device_bytes|host_memory_bytes|device_memory_bytes|host|version|creator|cores|imbalance|time|date|stamp)$"
)
VERSION = re.compile(rb"cryosplat-mpi \d+\.\d+\.\d+\S*")
# What a measurement counts and finds.
COUNTED = re.compile(r"^(images|steps|all_reduce|reading)$")
# Times, rates and sizes of memory in texts.
MEASURED = re.compile(r"[-+]?\d[\d.,e+-]*\s*(images/s|s\b|ms\b|µs\b|us\b|ns\b|[kMG]?B/s|[KMG]iB\b|GB\b|%)")
# The run in a file for Prometheus and its name, with a digest of the folder's path.
PROMETHEUS_RUN = re.compile(r',run="[^"]*"|(?<=cryosplat)_[\w.-]+-[0-9a-f]{8}(?=_\w+\.prom)')
STAMP = re.compile(r"^\s*\d+\.\d s\s+")
# Labels of the report's charts and tables that show times.
TIMED = re.compile(r"images/s|speed|seconds|\btime\b", re.IGNORECASE)


def sha(data):
    """The start of the SHA-256 of bytes."""
    return hashlib.sha256(data).hexdigest()[:16]


class Normal:
    """Collects the entries of one case."""

    def __init__(self, places, measurement=False):
        # Paths to replace, longest first: (path, word).
        self.places = sorted(places, key=lambda place: -len(place[0]))
        self.entries = {}
        # Is this what `bench` finds, of which the settings and the names of results alone repeat?
        self.measurement = measurement

    def clean(self, text):
        """A text without paths and versions."""
        for path, word in self.places:
            text = text.replace(path, word)
        return VERSION.sub(b"cryosplat-mpi VERSION", text.encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")

    def data(self, key, value):
        """An entry that must not change."""
        self.entries[("data", key)] = value

    def text(self, key, value):
        """An entry of wording; empty ones are left out."""
        if value:
            self.entries[("text", key)] = value

    def value(self, key, value):
        """A JSON value: objects and arrays by their members, prose as text."""
        if isinstance(value, dict):
            if not value:
                self.data(key, "{}")
            for name, member in value.items():
                if not VARIABLE.match(name) and not (self.measurement and COUNTED.match(name)):
                    self.value(f"{key}.{name}" if key else name, member)
        elif isinstance(value, list):
            self.data(f"{key}.length", len(value))
            for number, member in enumerate(value):
                self.value(f"{key}[{number}]", member)
        elif isinstance(value, str):
            if value.startswith("{"):
                # Settings in an attribute, or in an identity.
                try:
                    self.value(key, json.loads(value))
                    return
                except ValueError:
                    pass
            value = self.clean(value)
            (self.text if " " in value else self.data)(key, value)
        else:
            self.data(key, repr(value))

    def json(self, raw, key=""):
        """A JSON document."""
        self.value(key, json.loads(raw))

    def json_lines(self, raw):
        """One JSON object a line."""
        lines = raw.decode().splitlines()
        self.data("lines", len(lines))
        for number, line in enumerate(lines):
            self.value(f"[{number}]", json.loads(line))

    def hdf5(self, path):
        """Data sets by type, shape and hash; attributes; the bytes of the whole file as text."""
        self.text("layout", sha(VERSION.sub(lambda found: b"X" * len(found.group()), path.read_bytes())))

        def attributes(name, item):
            for key, value in item.attrs.items():
                if name == "/" and key == "creator":
                    continue
                if isinstance(value, np.ndarray):
                    value = value.tolist()
                elif isinstance(value, np.generic):
                    value = f"{value.dtype} {value.item()!r}"
                    self.data(f"{name}@{key}", value)
                    continue
                self.value(f"{name}@{key}", value)

        def visit(name, item):
            attributes(name, item)
            if isinstance(item, h5py.Dataset):
                values = item[()]
                if values.dtype == object:
                    texts = [self.clean(text.decode()) for text in values.ravel()]
                    self.value(name, texts)
                else:
                    self.data(name, f"{item.dtype.str} {item.shape} {sha(np.ascontiguousarray(values).tobytes())}")

        with h5py.File(path, "r", locking=False) as file:
            attributes("/", file)
            file.visititems(visit)

    def mrc(self, raw):
        """The header without its labels, the labels, and the data."""
        labels = [raw[224 + 80 * k : 304 + 80 * k].decode("latin-1").strip(" \0") for k in range(10)]
        self.data("header", sha(raw[:220]))
        self.text("labels", self.clean("\n".join(filter(None, labels))))
        self.data("data", f"{len(raw)} bytes {sha(raw[1024:])}")

    def csv(self, raw):
        """The columns of a table, by their names."""
        rows = list(csv.reader(io.StringIO(raw.decode())))
        if not rows:
            self.data("table", "empty")
            return
        self.data("shape", f"{len(rows) - 1} x {len(rows[0])}")
        for number, name in enumerate(rows[0]):
            cells = [self.clean(row[number]) if number < len(row) else None for row in rows[1:]]
            # Few cells are shown as they are.
            self.data(name, " ".join(map(str, cells)) if len(cells) < 8 else sha(repr(cells).encode()))

    def svg(self, text, key=""):
        """A drawing without its words, and its words."""
        shapes = re.sub(r"<(text|title|desc)\b[^>]*>.*?</\1>", "", text, flags=re.DOTALL)
        shapes = re.sub(r'aria-label="[^"]*"', "", shapes)
        self.data(f"{key}drawing", sha(shapes.encode()))
        words = re.findall(r"<(?:text|title|desc)\b[^>]*>(.*?)</(?:text|title|desc)>", text, re.DOTALL)
        self.text(f"{key}words", html.unescape("\n".join(words)))

    def report(self, raw, timed):
        """A report: pictures, the volume, drawings, and words; without drawings of speed unless their times are inputs."""
        text = raw.decode()
        for kind, pattern in (
            ("picture", r"data:image/png;base64,([^\"]*)"),
            ("volume", r"<script type=\"text/plain\">(.*?)</script>"),
        ):
            for number, found in enumerate(re.findall(pattern, text, re.DOTALL)):
                self.data(f"{kind}[{number}]", sha(found.encode()))
        for number, found in enumerate(re.findall(r"<svg\b.*?</svg>", text, re.DOTALL)):
            if timed or not TIMED.search(found):
                self.svg(found, f"chart[{number}].")
        for name, found in re.findall(r"(data-[a-z-]+)=\"([^\"]*)\"", text):
            self.data(name, found)
        words = re.sub(r"<(script|style|svg)\b.*?</\1>", "", text, flags=re.DOTALL)
        words = html.unescape(re.sub(r"<[^>]*>", "\n", words))
        lines = [MEASURED.sub("MEASURED", self.clean(line).strip()) for line in words.splitlines()]
        self.text("words", "\n".join(filter(None, lines)))

    def lines(self, raw, remark):
        """A text file: lines that `remark` matches are wording."""
        lines = self.clean(raw.decode("utf-8", "surrogateescape")).splitlines()
        self.text("remarks", "\n".join(line for line in lines if remark.match(line)))
        rest = "\n".join(line for line in lines if not remark.match(line))
        self.data("lines", f"{rest.count(chr(10))} lines {sha(rest.encode('utf-8', 'surrogateescape'))}")

    def prometheus(self, raw):
        """The names of the metrics."""
        names = [line.rsplit(" ", 1)[0] for line in raw.decode().splitlines() if not line.startswith("#")]
        self.data("metrics", "\n".join(PROMETHEUS_RUN.sub("", name) for name in map(self.clean, names)))

    def markdown(self, raw):
        """A table for people, without what was measured."""
        self.text("table", MEASURED.sub("MEASURED", self.clean(raw.decode())))

    def stdout(self, raw):
        """What a command prints: JSON as data, all else as text."""
        text = raw.decode("utf-8", "surrogateescape")
        if text.lstrip().startswith("{"):
            decoder, at, number = json.JSONDecoder(), 0, 0
            try:
                while text[at:].strip():
                    at += len(text[at:]) - len(text[at:].lstrip())
                    value, at = decoder.raw_decode(text, at)
                    self.value(f"[{number}]", value)
                    number += 1
                return
            except ValueError:
                pass
        text = MEASURED.sub("MEASURED", self.clean(text))
        self.text("print", re.sub(r"\d[\d.,]*", "N", text) if self.measurement else text)

    def exit_code(self, raw):
        """The exit code of a command."""
        self.data("code", raw.decode().strip())

    def stderr(self, raw):
        """Warnings and errors of the log."""
        lines = [STAMP.sub("", self.clean(line)) for line in raw.decode("utf-8", "surrogateescape").splitlines()]
        lines = [MEASURED.sub("MEASURED", line) for line in lines if re.match(r"(\[?rank|\s*WARN|\s*ERROR|error)", line)]
        self.text("warnings", "\n".join(sorted(lines)))


REMARKS = {
    ".star": re.compile(r"^#"),
    ".cif": re.compile(r"^#"),
    ".pdb": re.compile(r"^REMARK 999 (?!cryosplat\.)"),
}
NOTHING = re.compile(r"(?!)")


def entries(path, name, places, case):
    """The entries of a file of a case: `name` is its path there."""
    normal, raw, end = Normal(places, case.startswith("bench")), path.read_bytes(), path.suffix.lower()
    try:
        if name.startswith(".log/"):
            {".stdout": normal.stdout, ".stderr": normal.stderr, ".exit": normal.exit_code}[end](raw)
        elif end == ".json":
            normal.json(raw)
        elif end == ".jsonl":
            normal.json_lines(raw)
        elif end == ".h5":
            normal.hdf5(path)
        elif end in (".mrc", ".mrcs"):
            normal.mrc(raw)
        elif end == ".csv":
            normal.csv(raw)
        elif end == ".svg":
            normal.svg(raw.decode())
        elif end == ".html":
            # Reports of inputs show times, which are the same for both programs.
            normal.report(raw, case.startswith("report"))
        elif end == ".prom":
            normal.prometheus(raw)
        elif end == ".md":
            normal.markdown(raw)
        elif end in REMARKS:
            normal.lines(raw, REMARKS[end])
        else:
            normal.data("bytes", f"{len(raw)} bytes {sha(raw)}")
    except (ValueError, OSError, KeyError, IndexError) as error:
        # Not of its format: a file that is cut short, or another program's.
        normal.entries = {("data", "bytes"): f"{len(raw)} bytes {sha(raw)} (unreadable: {error})"}
    return normal.entries


def folder_entries(folder, places, case):
    """The entries of all files of a case: {file: entries}; without links, and without a log that an error cuts short."""
    files = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".prom":
            name = PROMETHEUS_RUN.sub("", name)
        if not path.is_file() or path.is_symlink() or ("refused" in case and path.name.startswith("metrics_")):
            continue
        files[name] = entries(path, name, places, case)
    return files
