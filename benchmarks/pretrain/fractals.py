"""How fast fractals and pairs are drawn, and whether 10,000 fractals are neither specks nor blots.

    python benchmarks/pretrain/fractals.py

Speeds are those of one core: the best of several repetitions, by the clock and by processor time ("cpu"), which other
programs on the machine do not lengthen. Results go to fractals.json, with the machine's description.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import torch

import coterie
from coterie.core import rng
from coterie.experiment.engine import this_machine
from coterie.pretrain.fps import FPS
from coterie.pretrain.fractals import orbit, render
from coterie.pretrain.iterated_functions import Systems, draw_systems, jitter_systems
from coterie.pretrain.pair_batches import PairBatches

RESULTS = Path(__file__).with_name("fractals.json")
CODES, TOGETHER, REPEATS = 10_000, 1000, 7
SHARES = (0.0, 0.001, 0.01, 0.5, 0.99, 0.999, 1.0)


def speed(work: Callable[[], int]) -> dict[str, float]:
    """Images a second, by the clock and by processor time: the best of some repetitions, after one to warm up."""
    work()
    clock, cpu = [], []
    for _ in range(REPEATS):
        began, used = time.perf_counter(), time.process_time()
        images = work()
        clock.append(images / (time.perf_counter() - began))
        cpu.append(images / (time.process_time() - used))
    return {"clock": round(max(clock)), "cpu": round(max(cpu))}


def rendered(first: int = 0) -> torch.Tensor:
    """A thousand fractals of 32 x 32 pixels, jittered, as `coterie pretrain` renders them."""
    index = torch.arange(first, first + TOGETHER)
    keys = rng.fold(rng.key("benchmark"), index)
    return render(jitter_systems(draw_systems(0, index), keys), keys, 1000, 32)


def speeds() -> dict[str, dict[str, float]]:
    """Fractals; both images of each pair; and these, changed as they are trained on."""
    batches = PairBatches(FPS(steps=1).sizes, rng_seed=0)
    steps = iter(range(10_000))
    return {
        "fractals": speed(lambda: len(rendered())),
        "images of pairs": speed(lambda: 2 * len(batches.pairs(next(steps)).first)),
        "images as trained on": speed(lambda: 2 * len(batches.views(next(steps)))),
    }


def shapes() -> dict[str, object]:
    """What 10,000 systems look like: how far their orbits go, and how much of a picture they cover."""
    coverage, farthest = [], 0.0
    for first in range(0, CODES, TOGETHER):
        grey = rendered(first)
        assert torch.isfinite(grey).all()
        assert bool((grey.amax((1, 2)) == 1).all())
        coverage.append((grey > 0).float().mean((1, 2)))
        index = torch.arange(first, first + TOGETHER)
        for part in torch.split(index, 100):
            drawn: Systems = draw_systems(0, part)
            farthest = max(farthest, float(orbit(drawn, rng.fold(rng.key("benchmark"), part), 1000).abs().max()))
    quantiles = torch.quantile(torch.cat(coverage), torch.tensor(SHARES))
    shown = {f"{share:g}": round(float(q), 4) for share, q in zip(SHARES, quantiles, strict=True)}
    return {"codes": CODES, "covered, by share of fractals": shown, "farthest coordinate": round(farthest, 1)}


def main() -> None:
    """Measure one core, then look at many fractals."""
    torch.set_num_threads(1)
    found: dict[str, object] = {"date": time.strftime("%Y-%m-%d"), "version": coterie.__version__}
    found["machine"] = f"{this_machine()}, torch {torch.__version__}"
    found["images a second, one core"] = speeds()
    found["shapes"] = shapes()
    text = json.dumps(found, indent=1)
    print(text)
    RESULTS.write_text(text + "\n")


if __name__ == "__main__":
    main()
