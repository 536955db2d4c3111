"""Engines on a GPU: whether they agree, and how long a round takes, in one command of at most eight minutes.

    python benchmarks/speed/gpu.py [--device cuda] [--minutes 8] [--results FILE] [--only TEXT ...]

It installs nothing. Parts run one after another, cheapest and most telling first; each writes its rows to FILE
(gpu.jsonl) as soon as they are known, and none starts without enough time. The same command goes on where it was
stopped: a part that FILE has for this machine, PyTorch and coterie is not run again. At the end it prints tables of all
that FILE has for them. `--tiny` shrinks the work, to try the program without a GPU; `--list` prints the parts.

Agreement: two rounds of a few ragged clients on each engine, uncompiled and compiled, beside the sequential engine. In
float64 all weights are within 1e-10 of one another, as the tests say of a CPU. In float32 they are within 1e-4, or four
times what the sequential engine's own float32 is away from its float64, if that is more: ResNet-20's BatchNorm over
batches of two or three makes it 0.008. All of it is without TF32 and with PyTorch's deterministic kernels. "same bits"
says whether a second run with the same rng seed gave the same weights bit for bit, and "by default" whether two did
with the kernels that PyTorch chooses itself.

Times: seconds of a FedAvg round, E = 1, B = 10, plain SGD, on random examples: a network of two convolutions with 50 of
1,000 clients that have 50 pictures of 3 x 32 x 32 each (the size of pfl-research's CIFAR-10 benchmark); ResNet-20 with
BatchNorm, and a small transformer, with 50 of 200 clients. The engines, and the peers that install_peers.sh has
installed, take turns; the GPU is waited for at both ends of a round; a first round warms up; medians count, the range
stands beside them. Memory is the most that was allocated on the GPU in a round beyond what lay there before it.
"Data there" has the examples on the GPU, in place of the host. "CUDA graphs" is what the engine could gain, not what it
does: see graphed.py.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch_models as work
from compare import VENVS, Contestant
from graphed import replay_steps
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import coterie
from coterie.core.engine import Engine
from coterie.engines.sequential import Sequential
from coterie.engines.vectorised import Vectorised
from coterie.loop.plan import Round
from coterie.models.registry import build

HERE = Path(__file__).parent
RESULTS = HERE / "gpu.jsonl"
ROUNDS = 7
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}
Row = dict[str, Any]


class OutOfTime(BaseException):
    """The minutes are over. No `except Exception`, such as that around the compiler, may take it for a failure."""


@dataclass(frozen=True)
class Place:
    """Where and how large.

    Attributes:
        device: where the engines compute.
        tiny: whether the work is small enough for a test on a CPU.
        end: when the minutes are over, in seconds of `time.monotonic`.
    """

    device: torch.device
    tiny: bool = False
    end: float = float("inf")

    @property
    def left(self) -> float:
        """Seconds until the end."""
        return self.end - time.monotonic()

    def wait(self) -> None:
        """Wait for all that the device has been asked to do."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


@dataclass(frozen=True)
class Part:
    """A piece of the program: its rows are made together.

    Attributes:
        name: for `--only`, and to know it again in the results.
        seconds: about how long it takes on a GPU; it does not start with less time.
        run: makes the rows.
    """

    name: str
    seconds: float
    run: Callable[[Place], Iterable[Row]]


# Agreement


def normed() -> nn.Module:
    """Two convolutions with BatchNorm, for FBN."""
    first = (nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    second = (nn.Conv2d(8, 16, 3, 2, bias=False), nn.BatchNorm2d(16), nn.ReLU())
    return nn.Sequential(*first, *second, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(256, 10))


FEDAVG = coterie.fedavg(lr=work.LR, batch_size=work.BATCH)
CASES: dict[str, tuple[Callable[[], nn.Module], str, coterie.Recipe]] = {
    "2NN": (lambda: work.make("2nn"), "2nn", FEDAVG),
    "CNN": (lambda: work.make("cifar_cnn"), "gpu-cnn", FEDAVG),
    "LSTM": (lambda: build("char_lstm", [work.UNROLL], work.CHARACTERS, 0), "lstm", FEDAVG),
    "ResNet-20": (lambda: work.make("resnet20"), "resnet20", FEDAVG),
    "FBN": (normed, "resnet20", coterie.fbn(lr=work.LR, batch_size=work.BATCH)),
}
"""What engines must agree on: a model, the work whose examples it gets, and an algorithm."""


def ragged(name: str, compiled: bool) -> dict[str, coterie.Examples]:
    """Clients of unequal size. For compiled steps all have two steps, so that there are few programs to compile."""
    sizes = (20, 13, 17, 12) if compiled else (7, 23, 12, 16, 9)
    text = slice(0, 16) if name == "lstm" else slice(None)  # a step unrolls all of it
    made = [work.examples(name, client, n) for client, n in enumerate(sizes)]
    return {str(k): coterie.Examples(x[:, text], y[:, text] if y.dim() > 1 else y) for k, (x, y) in enumerate(made)}


def weights_after(case: str, engine: Engine, compiled: bool) -> dict[str, Tensor]:
    """Return the weights after two rounds, float64 on the CPU."""
    make, name, recipe = CASES[case]
    torch.manual_seed(0)
    *_, last = coterie.federate(recipe, make(), ragged(name, compiled), rounds=2, rng_seed=1, engine=engine)
    return {name: value.double().cpu() for name, value in last.weights().items()}


def distance(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    """Return the largest difference between two sets of weights."""
    return max(float((a[name] - b[name]).abs().max()) for name in a)


@contextmanager
def exact_kernels(device: torch.device) -> Iterator[None]:
    """Take deterministic kernels and no TF32 on a GPU in this block."""
    if device.type != "cuda":
        yield  # has both already, and the switch takes seconds: it loads the compiler
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    tf32 = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = tf32


def agreement(case: str, compiled: bool, place: Place) -> Iterator[Row]:
    """Compare the engines with the sequential one, in both types of number."""
    precise: dict[str, Tensor] | None = None  # of the sequential engine in float64, which comes first
    for dtype, tolerance in TOLERANCE.items():
        engine = partial(Sequential, place.device, dtype)
        with exact_kernels(place.device):
            reference = weights_after(case, engine(), compiled)
        precise = reference if precise is None else precise
        allowed = max(tolerance, 4 * distance(precise, reference))
        engines = {"sequential": engine, "vectorised": partial(Vectorised, place.device, dtype)}
        for name, make in engines.items():
            used = make(compile=compiled)
            with exact_kernels(place.device):
                found, again = (weights_after(case, each, compiled) for each in (used, make(compile=compiled)))
            default = [weights_after(case, make(compile=compiled), compiled) for _ in range(2)]
            far = distance(reference, found)
            yield {
                "work": case,
                "engine": name + ", compiled" * compiled,
                "dtype": str(dtype).removeprefix("torch."),
                "distance": far,
                "allowed": allowed,
                "agrees": far <= allowed,
                "same_bits": distance(found, again) == 0,
                "same_bits_by_default": distance(*default) == 0,
                "note": how_it_ran(used),
            }


def how_it_ran(engine: Engine) -> str:
    """Return why an engine ran clients one after another, or uncompiled; empty if it did what it was asked for."""
    one_by_one = engine.unbatched.values() if isinstance(engine, Vectorised) else ()
    programs = engine._compiled.values() if isinstance(engine, Sequential | Vectorised) else ()
    uncompiled = [why for program in programs if (why := getattr(program, "_failure", ""))]
    return "; ".join([*(f"one by one: {why}" for why in one_by_one), *(f"uncompiled: {why}" for why in uncompiled)])


# Times


@dataclass(frozen=True)
class Variant:
    """One way to run a work's rounds.

    Attributes:
        make: makes the engine for a device.
        cohort: clients a round; None: as many as the work says.
        around: what holds while a round of it runs.
        data_there: whether the examples lie on the device, in place of the host.
    """

    make: Callable[[torch.device], Engine]
    cohort: int | None = None
    data_there: bool = False
    around: Callable[[], AbstractContextManager[None]] = nullcontext


def vectorised(**options: Any) -> Variant:
    """Return a variant with the vectorised engine."""
    return Variant(lambda device: Vectorised(device, **options))


def sequential(**options: Any) -> Variant:
    """Return a variant with the sequential engine."""
    return Variant(lambda device: Sequential(device, **options))


def graphs(compiled: bool) -> Variant:
    """Return a variant that replays the steps of the vectorised engine as CUDA graphs."""
    return replace(vectorised(chunk=ALL, compile=True), around=partial(replay_steps, compiled=compiled))


ALL = 1000
"""More clients at once than any cohort has; by default the engine chooses fewer where a model is large."""

PLAIN = {
    "sequential": sequential(),
    "vectorised, 5 at once": vectorised(chunk=5),
    "vectorised, 10 at once": vectorised(chunk=10),
    "vectorised, 25 at once": vectorised(chunk=25),
    "vectorised, all at once": vectorised(chunk=ALL),
    "vectorised, all at once, data there": replace(vectorised(chunk=ALL), data_there=True),
    "vectorised, all at once, bf16": vectorised(chunk=ALL, precision="bf16"),
    "vectorised, all at once, CUDA graphs": graphs(compiled=False),
}
COMPILED = {
    "vectorised, all at once": vectorised(chunk=ALL),
    "vectorised, all at once, compiled": vectorised(chunk=ALL, compile=True),
    "vectorised, all at once, compiled, bf16": vectorised(chunk=ALL, compile=True, precision="bf16"),
    "vectorised, all at once, compiled, CUDA graphs": graphs(compiled=True),
    "sequential, compiled": sequential(compile=True),
}
COHORTS = {f"vectorised, cohort of {n}": replace(vectorised(), cohort=n) for n in (10, 50, 200)}


def tiny_work(name: str) -> work.Work:
    """Return a work of which a CPU runs a round in little time."""
    return work.WORKS[name]._replace(clients=6, cohort=4, examples=20)


class Running:
    """A federation that runs a round when asked."""

    def __init__(self, name: str, variant: Variant, place: Place) -> None:
        size = tiny_work(name) if place.tiny else work.WORKS[name]
        self.variant, self.place, self.seconds, self.memory = variant, place, list[float](), list[int]()
        self.engine = variant.make(place.device)
        self.cohort = min(variant.cohort or size.cohort, size.clients)
        torch.manual_seed(0)
        data = pool(name, size, place.device if variant.data_there else torch.device("cpu"))
        self.rounds: Iterator[Round] = coterie.federate(
            FEDAVG, work.make(size.model), data, rounds=10_000, cohort=self.cohort, engine=self.engine
        )

    def round(self) -> float:
        """Run a round, and return its seconds."""
        before = self._begin()
        started = time.perf_counter()
        with self.variant.around():
            next(self.rounds)
        self.place.wait()
        took = time.perf_counter() - started
        if before is not None:
            self.memory.append(torch.cuda.max_memory_allocated(self.place.device) - before)
        return took

    def _begin(self) -> int | None:
        """Wait until the device is idle; return the bytes that are allocated there."""
        self.place.wait()
        if self.place.device.type != "cuda":
            return None
        torch.cuda.reset_peak_memory_stats(self.place.device)
        return torch.cuda.memory_allocated(self.place.device)

    def facts(self) -> Row:
        """Return what else there is to say of it."""
        peak = max(self.memory) / 1e6 if self.memory else None
        return {"cohort": self.cohort, "peak_mb": peak, "note": how_it_ran(self.engine)}

    def stop(self) -> None:
        """End it."""
        self.rounds = iter(())


def pool(name: str, size: work.Work, device: torch.device) -> dict[str, coterie.Examples]:
    """Return the clients, whose examples lie in one pool on the device."""
    made = [work.examples(name, client, size.examples) for client in range(size.clients)]
    x, y = (torch.cat(each).to(device) for each in zip(*made, strict=True))
    rows = torch.arange(len(x)).split(size.examples)
    return {str(client): coterie.Examples(x, y, own) for client, own in enumerate(rows)}


class Peer:
    """Another library's program, which runs a round when asked."""

    def __init__(self, contestant: Contestant) -> None:
        self.contestant, self.seconds = contestant, list[float]()
        if not contestant.start():
            raise RuntimeError(f"{contestant.name} does not start; its log lies in the folder for temporary files")

    def round(self) -> float:
        """Run a round, and return its seconds, which the program takes itself."""
        return self.contestant.round()

    def facts(self) -> Row:
        """Return nothing more: its memory on the GPU is its own."""
        return {"cohort": None, "peak_mb": None, "note": ""}

    def stop(self) -> None:
        """End it."""
        self.contestant.process.kill()
        self.contestant.process.wait()


def times(name: str, variants: Mapping[str, Callable[[Place], Running | Peer]], place: Place) -> Iterator[Row]:
    """Let variants of a work take turns; yield a row for each, also for one that fails."""
    began, going, failed = time.monotonic(), dict[str, Running | Peer](), dict[str, str]()
    budget = min(60.0, place.left / 2)
    first: dict[str, float] = {}
    try:
        for title, make in variants.items():
            try:
                going[title] = make(place)
                first[title] = going[title].round()
            except Exception as error:  # whatever a GPU, a compiler or a peer refuses is a finding
                failed[title] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        for done in range(2 if place.tiny else ROUNDS):
            if done >= 3 and time.monotonic() - began > budget:
                break
            for title, each in going.items():
                if title not in failed:
                    each.seconds.append(each.round())
    finally:
        for each in going.values():
            each.stop()
    for title in variants:
        if title in failed:
            yield {"work": name, "engine": title, "error": failed[title]}
        else:
            yield {"work": name, "engine": title, **timed(going[title]), "first": first[title]}


def timed(each: Running | Peer) -> Row:
    """Return the median, the range and all of a contestant's seconds."""
    own = each.seconds
    return {"seconds": statistics.median(own), "range": [min(own), max(own)], "all": own, **each.facts()}


def ours(name: str, variants: Mapping[str, Variant], place: Place) -> Iterator[Row]:
    """Time variants of coterie."""
    return times(name, {title: partial(Running, name, variant) for title, variant in variants.items()}, place)


def beside_peers(name: str, place: Place) -> Iterator[Row]:
    """Time coterie beside the peers that are installed; without any there are no rows."""
    device = str(place.device)
    programs = {
        p: [str(VENVS / p.lower() / "bin/python"), str(HERE / f"peer_{p.lower()}.py"), name, device] for p in PEERS
    }
    there = {
        peer: (lambda place, peer=peer, command=command: Peer(Contestant(peer, command)))
        for peer, command in programs.items()
        if Path(command[0]).exists()
    }
    if not there:
        print(f"no peer is installed in {VENVS}; see install_peers.sh", flush=True)
        return iter(())
    return times(name, {"coterie": partial(Running, name, vectorised()), **there}, place)


PEERS = ("pfl", "Flower")

PARTS = [
    *(Part(f"agreement, {case}", 15, partial(agreement, case, False)) for case in ("2NN", "CNN")),
    Part("times, gpu-cnn", 40, partial(ours, "gpu-cnn", PLAIN)),
    Part("peers, gpu-cnn", 60, partial(beside_peers, "gpu-cnn")),
    *(Part(f"agreement, {case}", 15, partial(agreement, case, False)) for case in ("LSTM", "ResNet-20", "FBN")),
    Part("agreement, 2NN, compiled", 40, partial(agreement, "2NN", True)),
    Part("times, gpu-cnn, compiled", 60, partial(ours, "gpu-cnn", COMPILED)),
    Part("times, gpu-resnet20", 60, partial(ours, "gpu-resnet20", PLAIN)),
    Part("times, gpu-transformer", 40, partial(ours, "gpu-transformer", PLAIN)),
    Part("cohorts, gpu-cnn", 20, partial(ours, "gpu-cnn", COHORTS)),
    Part("times, gpu-transformer, compiled", 90, partial(ours, "gpu-transformer", COMPILED)),
    Part("agreement, CNN, compiled", 60, partial(agreement, "CNN", True)),
    Part("agreement, FBN, compiled", 60, partial(agreement, "FBN", True)),
    Part("times, gpu-resnet20, compiled", 120, partial(ours, "gpu-resnet20", COMPILED)),
    Part("agreement, ResNet-20, compiled", 120, partial(agreement, "ResNet-20", True)),
    Part("agreement, LSTM, compiled", 120, partial(agreement, "LSTM", True)),
    *(Part(f"peers, {name}", 60, partial(beside_peers, name)) for name in ("gpu-resnet20", "gpu-transformer")),
]
"""In the order in which they run."""


# Results


def machine(device: torch.device) -> Row:
    """Return the machine and the programs that figures belong to."""
    facts = {"device": device.type, "torch": torch.__version__, "coterie": coterie.__version__, "cores": os.cpu_count()}
    if device.type != "cuda":
        return facts
    properties = torch.cuda.get_device_properties(device)
    return facts | {
        "gpu": properties.name,
        "memory_gb": round(properties.total_memory / 1e9),
        "driver": driver(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "tf32": {"products": torch.backends.cuda.matmul.allow_tf32, "convolutions": torch.backends.cudnn.allow_tf32},
    }


def driver() -> str:
    """Return the version of NVIDIA's driver, or "unknown"."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return "unknown"
    command = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout.split()
    return told[0] if told else "unknown"


def read_rows(path: Path, here: Row, tiny: bool) -> list[Row]:
    """Return the rows of this machine that the file has, without a last one that was cut short."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return [row for row in rows if row["machine"] == here and row["tiny"] == tiny]


def add_row(path: Path, row: Row) -> None:
    """Append a row, on a line of its own even if the last one was cut short."""
    cut = path.exists() and path.stat().st_size and not path.read_bytes().endswith(b"\n")
    with path.open("a") as file:
        file.write("\n" * bool(cut) + json.dumps(row) + "\n")


def run_part(part: Part, place: Place, path: Path, here: Row) -> None:
    """Run one part, and write each of its rows at once; the last one says that it is whole."""
    common = {"part": part.name, "tiny": place.tiny, "machine": here, "date": time.strftime("%Y-%m-%d")}
    try:
        for row in part.run(place):
            add_row(path, {**common, **row})
            print(f"{part.name}: {summary(row)}", flush=True)
    except Exception as error:
        why = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        add_row(path, {**common, "error": why} | ({"agrees": False} if part.name.startswith("agreement") else {}))
        print(f"{part.name}: {why}", flush=True)
    add_row(path, {**common, "whole": True})


def summary(row: Row) -> str:
    """Return a row in a few words."""
    if "error" in row:
        return f"{row['engine']}: {row['error']}"
    if "seconds" in row:
        return f"{row['engine']}: {row['seconds']:.3f} s"
    return f"{row['engine']}, {row['dtype']}: {'agrees' if row['agrees'] else 'DIFFERS'} ({row['distance']:.1e})"


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise `OutOfTime` in this block after so many seconds, also in the middle of a part."""

    def stop(*_: object) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except OutOfTime:
        print("the minutes are over; run the same command again for the rest", flush=True)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run_parts(parts: Sequence[Part], place: Place, path: Path) -> list[Row]:
    """Run what the file does not have yet, as far as the time goes; return all rows of this machine."""
    here = machine(place.device)
    whole = {row["part"] for row in read_rows(path, here, place.tiny) if "whole" in row}
    with limited(place.left):
        for part in parts:
            if part.name in whole:
                continue
            if place.left < part.seconds and not place.tiny:
                print(f"{part.name}: {place.left:.0f} s are too few for it; run the same command again", flush=True)
                continue
            run_part(part, place, path, here)
    return read_rows(path, here, place.tiny)


def newest(rows: Iterable[Row]) -> list[Row]:
    """Return the last row of each part, work, engine and type of number: a part that was stopped ran again."""
    kept = {
        (row["part"], row.get("work"), row.get("engine"), row.get("dtype")): row for row in rows if "whole" not in row
    }
    return list(kept.values())


def is_check(row: Row) -> bool:
    """Return whether a row says if engines agree."""
    return "agrees" in row


def tables(rows: Sequence[Row]) -> Iterator[Table]:
    """Yield a table of what agrees, and one of times for each part that has some."""
    checked = [row for row in rows if is_check(row)]
    if checked:
        shown = Table(
            "model",
            "engine",
            "type",
            "furthest",
            "allowed",
            "agrees",
            "same bits",
            "by default",
            "note",
            title="Agreement",
        )
        for row in checked:
            if "error" in row:
                shown.add_row(row["part"], "", "", "", "", "no", "", "", row["error"])
                continue
            flags = ("yes" if row[key] else "NO" for key in ("agrees", "same_bits", "same_bits_by_default"))
            numbers = (f"{row[key]:.1e}" for key in ("distance", "allowed"))
            shown.add_row(row["work"], row["engine"], row["dtype"], *numbers, *flags, row["note"])
        yield shown
    for part in dict.fromkeys(row["part"] for row in rows if row not in checked):
        yield times_table(part, [row for row in rows if row["part"] == part])


def times_table(part: str, rows: Sequence[Row]) -> Table:
    """Return the table of one part's times; ratios are to the fastest."""
    best = min((row["seconds"] for row in rows if "seconds" in row), default=1.0)
    shown = Table("program", "s / round", "range", "times the fastest", "first, s", "peak, MB", "note", title=part)
    for row in rows:
        if "error" in row:
            shown.add_row(row.get("engine", ""), "", "", "", "", "", row["error"])
            continue
        low, high = row["range"]
        memory = "" if row["peak_mb"] is None else f"{row['peak_mb']:,.0f}"
        ratio = f"{row['seconds'] / best:.2f}"
        spread, first = f"{low:.4f} to {high:.4f}", f"{row['first']:.1f}"
        shown.add_row(row["engine"], f"{row['seconds']:.4f}", spread, ratio, first, memory, row["note"])
    return shown


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts, print the tables, and return 1 if engines do not agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--only", nargs="*", default=[""], help="parts whose name contains one of these")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--list", action="store_true")
    chosen = parser.parse_args(arguments)
    end = time.monotonic() + 60 * chosen.minutes
    parts = [part for part in PARTS if any(text in part.name for text in chosen.only)]
    if chosen.list:
        print("\n".join(f"{part.name} ({part.seconds:.0f} s)" for part in parts))
        return 0
    if chosen.device.startswith("cuda") and not torch.cuda.is_available():
        print("PyTorch finds no GPU; try the program with --device cpu --tiny", file=sys.stderr)
        return 2
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what deterministic products need
    place = Place(torch.device(chosen.device), chosen.tiny, end)
    rows = newest(run_parts(parts, place, chosen.results))
    console = Console()
    console.print(machine(place.device))
    for table in tables(rows):
        console.print(table)
    return int(not all(row["agrees"] for row in rows if is_check(row)))


if __name__ == "__main__":
    sys.exit(main())
