"""Seconds of one FedAvg round in this checkout and in another one, in turns, and their ratio.

    python benchmarks/speed/two_versions.py OTHER [--rounds 15] [--only TEXT]

OTHER is the folder of another checkout of coterie. The work is that of `compare.py`. Each version is a process that has
been started and warmed up by one round; rounds of both take turns, so that a machine whose speed drifts slows both
alike. The ratio is that of the medians, this checkout over the other: below 1 this one is faster. Nothing else should
run on the machine at the same time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from turns import MARK

ROOT = Path(__file__).resolve().parents[2]
CASES = {
    "2NN": ["2nn"],
    "2NN, compiled": ["2nn", "--compile"],
    "2NN, vectorised": ["2nn", "--vectorised"],
    "CNN": ["cnn"],
    "ResNet-20": ["resnet20"],
    "LSTM": ["lstm"],
}


class Version:
    """One checkout's process, which runs a round when asked."""

    def __init__(self, root: Path, arguments: list[str]) -> None:
        program = root / "benchmarks/speed/ours.py"
        env = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
        pipe, none = subprocess.PIPE, subprocess.DEVNULL
        command = [sys.executable, str(program), *arguments]
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=none, text=True, env=env, cwd=root)
        self._answer()

    def round(self) -> float:
        """Run a round and return its seconds."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return float(str(self._answer()["seconds"]))

    def _answer(self) -> dict[str, object]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if MARK in line:
                return dict(json.loads(line[line.index(MARK) + len(MARK) :]))
        raise RuntimeError("a version ended before its round")

    def stop(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()


def compare(other: Path, arguments: list[str], rounds: int) -> tuple[float, float]:
    """Return the median seconds of a round in the other checkout and in this one."""
    versions = [Version(other, arguments), Version(ROOT, arguments)]
    seconds: list[list[float]] = [[], []]
    for k in range(rounds + 1):
        for own, version in zip(seconds, versions, strict=True):
            took = version.round()
            if k:  # the first round warms up
                own.append(took)
    for version in versions:
        version.stop()
    return statistics.median(seconds[0]), statistics.median(seconds[1])


def main() -> None:
    """Print a line for each case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="")
    chosen = parser.parse_args()
    for name, arguments in CASES.items():
        if chosen.only in name:
            before, now = compare(chosen.other.resolve(), arguments, chosen.rounds)
            print(f"{name:16} {before:8.3f} s  {now:8.3f} s  ratio {now / before:.3f}", flush=True)


if __name__ == "__main__":
    main()
