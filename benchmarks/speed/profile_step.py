"""Where the time of a local step goes: `python benchmarks/speed/profile_step.py 2nn [--rounds 3]`, one thread.

Every operation's share of a round's time, as PyTorch's profiler sees it; what is left is Python between operations.
"""

from __future__ import annotations

import argparse

import torch
import torch_models as work
from ours import rounds
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

from coterie.engines.sequential import Sequential
from coterie.processes.team import ALONE


def main() -> None:
    """One table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=list(work.EXAMPLES))
    parser.add_argument("--eager", action="store_true", help="do not compile the step")
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    going = rounds(chosen.model, Sequential(compile=not chosen.eager), ALONE)
    next(going)
    plain = min(next(going).seconds for _ in range(chosen.rounds))
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        next(going)
    steps = work.CLIENTS * work.EXAMPLES[chosen.model] / work.BATCH
    table = Table(
        "operation", "ms / step", "of the round", "calls / step", title=f"{chosen.model}: {plain:.3f} s / round"
    )
    for event in sorted(profiler.key_averages(), key=lambda e: -e.self_cpu_time_total)[:10]:
        seconds = event.self_cpu_time_total / 1e6
        name = event.key if len(event.key) < 50 else event.key[:47] + "..."
        row = (f"{seconds / steps * 1e3:.3f}", f"{seconds / plain:.0%}", f"{event.count / steps:.1f}")
        table.add_row(name, *row)
    Console().print(table)


if __name__ == "__main__":
    main()
