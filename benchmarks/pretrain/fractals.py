"""Measure how fast fractals and pairs are drawn, and how much of a picture 10,000 fractals cover.

    python benchmarks/pretrain/fractals.py

Speeds are those of one core: the best of several repetitions, by the clock and by processor time ("cpu"), on which
other programs have no influence. Results go to fractals.json, with the machine's description.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import torch

import coterie
from coterie.core import rng
from coterie.experiment.resolve_engine import this_machine
from coterie.pretrain.fps import FPS
from coterie.pretrain.fractals import orbit, render
from coterie.pretrain.iterated_functions import Systems, draw_systems, jitter_systems
from coterie.pretrain.pair_batches import PairBatches

RESULTS = Path(__file__).with_name("fractals.json")
CODES, TOGETHER, REPEATS = 10_000, 1000, 7
SHARES = (0.0, 0.001, 0.01, 0.5, 0.99, 0.999, 1.0)


def speed(work: Callable[[], int]) -> dict[str, float]:
    """Return images per second, by the clock and by processor time: the best of some repetitions, after a warm-up."""
    work()
    clock, cpu = [], []
    for _ in range(REPEATS):
        began, used = time.perf_counter(), time.process_time()
        images = work()
        clock.append(images / (time.perf_counter() - began))
        cpu.append(images / (time.process_time() - used))
    return {"clock": round(max(clock)), "cpu": round(max(cpu))}


def render_thousand(first: int = 0) -> torch.Tensor:
    """Render a thousand jittered fractals of 32 x 32 pixels, like `coterie pretrain`."""
    index = torch.arange(first, first + TOGETHER)
    keys = rng.fold(rng.key("benchmark"), index)
    return render(jitter_systems(draw_systems(0, index), keys), keys, 1000, 32)


def speeds() -> dict[str, dict[str, float]]:
    """Return the speeds of fractals, of the images of pairs, and of the views that are trained on."""
    batches = PairBatches(FPS(steps=1).sizes, rng_seed=0)
    steps = iter(range(10_000))
    return {
        "fractals": speed(lambda: len(render_thousand())),
        "images of pairs": speed(lambda: 2 * len(batches.pairs(next(steps)).first)),
        "images as trained on": speed(lambda: 2 * len(batches.views(next(steps)))),
    }


def shapes() -> dict[str, object]:
    """Measure how far the orbits of 10,000 systems go, and how much of a picture they cover."""
    coverage, farthest = [], 0.0
    for first in range(0, CODES, TOGETHER):
        grey = render_thousand(first)
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
    """Measure the speed of one core, then the shapes of many fractals."""
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
