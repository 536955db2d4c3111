"""What compiling costs and saves: `python benchmarks/speed/compiling.py [--turns 3] [MODEL ...]`, one thread.

For each model a process trains by two engines in turns, one of which compiles, with an empty cache on the disk. A
second process does the same with the cache that the first one left. Seconds are those that processors worked, the
compiler's own processes included. Beside them stands what "auto" supposes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile

CLIENTS = 2


def main() -> None:
    """One table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", default=["2nn", "cnn", "resnet20"])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.measure:
        return print(json.dumps(measure(chosen.models[0], chosen.turns)))
    print("| model | ms / step | compiled | saved | supposed ms | saved | s to compile | from the cache | supposed |")
    print("|---|---|---|---|---|---|---|---|---|")
    for model in chosen.models:
        with tempfile.TemporaryDirectory() as cache:
            first, second = (in_process(model, chosen.turns, cache) for _ in range(2))
        print(json.dumps(first), file=sys.stderr)
        plain, fast = first["plain"], first["compiled"]
        print(
            f"| {model} | {plain * 1e3:.2f} | {fast * 1e3:.2f} | {1 - fast / plain:.0%} | {first['says'] * 1e3:.2f} "
            f"| {first['says_gain']:.0%} | {first['to_compile']:.1f} | {second['to_compile']:.1f} "
            f"| {first['says_to_compile']:.0f} |",
            flush=True,
        )


def in_process(model: str, turns: int, cache: str) -> dict[str, float]:
    """Measure a model in a process of its own, whose compiled programs lie in the folder `cache`."""
    command = [sys.executable, __file__, model, "--turns", str(turns), "--measure"]
    env = os.environ | {"OMP_NUM_THREADS": "1", "TORCHINDUCTOR_CACHE_DIR": cache}
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def worked() -> float:
    """The seconds that processors have worked for this process and for those that it started and that ended."""
    own, started = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + started.ru_utime + started.ru_stime


def measure(name: str, turns: int) -> dict[str, float]:
    """The seconds of a step, plain and compiled; those to compile it; and what the choice of "auto" supposes."""
    import torch_models as work
    from ours import model, rounds

    import coterie
    from coterie.engines.sequential import Sequential
    from coterie.experiment import engine_choice
    from coterie.experiment.estimate_work import estimate_work
    from coterie.models.functional import make_task
    from coterie.objectives import cross_entropy
    from coterie.processes.team import ALONE

    work.CLIENTS = CLIENTS
    engines = {"plain": Sequential(), "compiled": Sequential(compile=True)}
    going = {kind: rounds(name, engine, ALONE) for kind, engine in engines.items()}
    seconds: dict[str, list[float]] = {kind: [] for kind in engines}
    for _ in range(turns + 1):
        for kind, each in going.items():
            before = worked()
            next(each)
            seconds[kind].append(worked() - before)
    middle = {kind: statistics.median(each[1:]) for kind, each in seconds.items()}
    steps = CLIENTS * -(-work.EXAMPLES[name] // work.BATCH)
    clients = {str(k): coterie.Examples(*work.examples(name, k)) for k in range(CLIENTS)}
    network = model(name)
    algorithm = coterie.fedavg(lr=work.LR, batch_size=work.BATCH)(make_task(network, loss=cross_entropy))
    guess = estimate_work(algorithm, [network], clients, rounds=1, cohort=CLIENTS)
    return {
        "says": guess.seconds / guess.steps,
        "says_gain": engine_choice.COMPILED_GAIN,
        "says_to_compile": engine_choice.COMPILATION_SECONDS + engine_choice.LAYER_SECONDS * guess.layers,
        "layers": guess.layers,
        "flops": guess.flops,
        "plain": middle["plain"] / steps,
        "compiled": middle["compiled"] / steps,
        "to_compile": seconds["compiled"][0] - middle["compiled"],
    }


if __name__ == "__main__":
    main()
