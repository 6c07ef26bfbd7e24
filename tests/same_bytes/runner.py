"""Runs the cases with one program, and keeps their outputs: CACHE/PROGRAM'S HASH/{inputs,cases}."""

import concurrent.futures
import hashlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import inputs
from matrix import Copy, Run, Stop, Undo

HERE = pathlib.Path(__file__).resolve().parent
LIMIT = 300  # seconds for one command


def digest(*parts):
    """SHA-256 of the parts, which are bytes or paths of files."""
    value = hashlib.sha256()
    for part in parts:
        value.update(part if isinstance(part, bytes) else pathlib.Path(part).read_bytes())
    return value.hexdigest()


# Read once: the working tree may change while cases run.
INPUTS = digest(HERE / "inputs.py")


class Failure(Exception):
    """A case could not be run as it is meant; no statement about its outputs."""


class Program:
    """A program under test, with what it needs to run."""

    def __init__(self, binary, cache, emulator, shared):
        self.binary = pathlib.Path(binary).resolve()
        self.hash = digest(self.binary)
        self.folder = pathlib.Path(cache).resolve() / self.hash[:16]
        self.cases = self.folder / "cases"
        self.cases.mkdir(parents=True, exist_ok=True)
        # All paths that it had: outputs in the cache name them.
        self.paths = self.folder / "paths"
        known = self.paths.read_text().splitlines() if self.paths.exists() else []
        self.paths.write_text("\n".join(dict.fromkeys((*known, str(self.binary)))) + "\n")
        # The folders of the programs that ran last are kept.
        os.utime(self.folder)
        self.emulator, self.shared = emulator, shared

    def command(self, run):
        """The command line of a run."""
        command = [str(self.binary), *run.arguments]
        if run.ranks == 1:
            return command
        root = ["--allow-run-as-root"] if os.getuid() == 0 else []
        return ["mpirun", *root, "--oversubscribe", "--bind-to", "none", "-n", str(run.ranks), *command]

    def environment(self, run):
        """The environment of a run: without the caller's settings of this program."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("CRYOSPLAT")}
        environment |= {"OMPI_MCA_btl_vader_single_copy_mechanism": "none", "OMPI_MCA_orte_base_help_aggregate": "0",
                        "LC_ALL": "C", "XDG_CACHE_HOME": str(self.folder / "cache")}
        if run.cuda:
            lines = (self.emulator / "environment").read_text().splitlines()
            environment |= dict(line.split("=", 1) for line in lines if "=" in line)
            environment |= {"CRYOSPLAT_EMULATOR_STRICT": "1"}
        return environment | dict(run.environment)

    def execute(self, run, folder, number, wait=None):
        """Runs one command in `folder`; keeps what it prints and its exit code. `wait(process)` acts while it runs."""
        log = folder / ".log"
        log.mkdir(exist_ok=True)
        with open(log / f"{number}.stdout", "wb") as stdout, open(log / f"{number}.stderr", "wb") as stderr:
            process = subprocess.Popen(self.command(run), cwd=folder, env=self.environment(run), stdin=subprocess.DEVNULL,
                                       stdout=stdout, stderr=stderr, start_new_session=True)
            try:
                if wait is not None:
                    wait(process)
                code = process.wait(timeout=LIMIT)
            except (subprocess.TimeoutExpired, Failure) as error:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise Failure(f"{' '.join(run.arguments)}: {error}") from error
        (log / f"{number}.exit").write_text(f"{code}\n")
        return code

    def stop(self, step, folder, number):
        """Sends the signal to the last rank of a run after its first checkpoint."""
        checkpoints = folder / step.run.arguments[step.run.arguments.index("-o") + 1] / "checkpoints"

        def wait(process):
            start = time.monotonic()
            while not list(checkpoints.glob("[!.]*.h5")):
                if process.poll() is not None or time.monotonic() - start > LIMIT:
                    raise Failure("no checkpoint appeared")
                time.sleep(0.002)
            target = process.pid
            if step.run.ranks > 1:
                children = pathlib.Path(f"/proc/{target}/task/{target}/children").read_text().split()
                target = int(children[-1])
            os.kill(target, getattr(signal, f"SIG{step.signal}"))

        code = self.execute(step.run, folder, number, wait)
        if code != 75:
            raise Failure(f"exit code {code} after the signal, expected 75")

    def make_inputs(self):
        """Makes the inputs where this program has not made them; returns their folder."""
        folder, mark = self.folder / "inputs", self.folder / "inputs.done"
        wanted = INPUTS + str(self.shared)
        if mark.exists() and mark.read_text() == wanted:
            return folder
        mark.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        number = iter(range(1000))

        def run(arguments, ranks=1):
            k = next(number)
            code = self.execute(Run(tuple(arguments), ranks), folder, k)
            if code != 0:
                error = (folder / ".log" / f"{k}.stderr").read_text()
                raise SystemExit(f"error: the base program failed on the inputs: {' '.join(arguments)}\n{error}")

        inputs.make(folder, run, self.shared)
        mark.write_text(wanted)
        return folder

    def run_case(self, case, data):
        """Runs a case unless its outputs are there; returns the seconds it took, 0 where they were."""
        folder, mark = self.cases / case.name, self.cases / f"{case.name}.done"
        wanted = digest(repr(case).encode()) + INPUTS + str(data)
        if mark.exists() and mark.read_text() == wanted:
            return 0.0
        start = time.monotonic()
        mark.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        os.symlink(data, folder / "in")
        for number, step in enumerate(case.steps):
            if isinstance(step, Run):
                self.execute(step, folder, number)
            elif isinstance(step, Stop):
                self.stop(step, folder, number)
            elif isinstance(step, Copy):
                shutil.copytree(data / step.source, folder / step.target)
            elif isinstance(step, Undo):
                checkpoints = sorted((folder / step.run / "checkpoints").glob(f"{step.model}*.h5"))
                if not checkpoints:
                    raise Failure(f"no checkpoint of {step.model} to remove")
                checkpoints[-1].unlink()
                (folder / step.run / "run.json").write_text(json.dumps({"state": "training"}))
        mark.write_text(wanted)
        return time.monotonic() - start

    def run_cases(self, cases, data, jobs):
        """Runs cases, `jobs` at a time; returns the failures by the case's name, and the seconds of all."""
        failures, seconds, done = {}, {}, 0
        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            futures = {pool.submit(self.run_case, case, data): case for case in cases}
            for future in concurrent.futures.as_completed(futures):
                case, done = futures[future], done + 1
                try:
                    seconds[case.name] = future.result()
                except Failure as error:
                    failures[case.name] = str(error)
                if sys.stdout.isatty():
                    print(f"\r  {done} of {len(cases)} cases", end="", flush=True)
        if sys.stdout.isatty():
            print()
        return failures, seconds

    def unexpected(self, cases):
        """The cases whose last command failed, or did not: those with "refused" in their name must fail."""
        wrong = {}
        for case in cases:
            codes = sorted((self.cases / case.name / ".log").glob("*.exit"), key=lambda file: int(file.stem))
            if codes and ("refused" in case.name) != (codes[-1].read_text() != "0\n"):
                lines = codes[-1].with_suffix(".stderr").read_text(errors="replace").strip().splitlines()
                wrong[case.name] = f"exit code {codes[-1].read_text().strip()}: {lines[-1] if lines else 'nothing logged'}"
        return wrong
