"""Accuracy against bytes for each codec, on MNIST with the 2NN of the FedAvg paper, non-IID.

    python benchmarks/communication/codecs.py [--rounds 60] [--seeds 2]

Each run is one line of results.jsonl; those that are there are not run again. At the end it prints the table of
docs/communication.md. MNIST lies in $COTERIE_DATA.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from pathlib import Path

import torch

import coterie
from coterie.core.codecs.affine_bytes import uint8
from coterie.core.codecs.subtrees import on_subtrees
from coterie.core.transforms import Transform
from coterie.data import deal, load
from coterie.engines.vectorised import Vectorised
from coterie.models import build

RESULTS = Path(__file__).with_name("results.jsonl")
PARAMETERS = [("delta", "params")]
CODECS: dict[str, coterie.Communication | Transform] = {
    "none": coterie.Communication(),
    "float16": coterie.Communication("float16"),
    "uint8": coterie.Communication("uint8"),
    "uint8, to the nearest": on_subtrees(uint8("nearest"), PARAMETERS),
    "top_k, 10 %": coterie.Communication("top_k", 0.1),
    "top_k, 1 %": coterie.Communication("top_k", 0.01),
}
COHORTS = {"10 of 100 clients": (100, 10), "all of 10 clients": (10, 10)}


def measure(codec: str, cohort: str, rounds: int, rng_seed: int) -> dict[str, object]:
    """Run one federation; return its accuracy and bytes."""
    number, size = COHORTS[cohort]
    mnist = load("mnist")
    given = {"partition": "shards", "num_clients": number, "examples_per_client": 600, "rng_seed": rng_seed}
    clients = deal(mnist, **given)
    torch.manual_seed(rng_seed)
    last = best = None
    for last in coterie.federate(
        coterie.fedavg(lr=0.05, batch_size=20, local_epochs=1),
        build("2nn", (1, 28, 28), 10, rng_seed=rng_seed),
        clients,
        rounds=rounds,
        cohort=size,
        rng_seed=rng_seed,
        test=mnist.test,
        evaluate_every=10,
        up=CODECS[codec],
        engine=Vectorised(),
    ):
        if last.test_accuracy is not None:
            best = max(best or 0, last.test_accuracy)
    return {
        "codec": codec,
        "cohort": cohort,
        "rounds": rounds,
        "rng_seed": rng_seed,
        "accuracy": last.test_accuracy,
        "best_accuracy": best,
        "bytes_of_an_update": last.bytes_up // size,
    }


def table(results: list[dict[str, object]]) -> str:
    """Return the results as rows of Markdown."""
    lines = ["| clients | codec | bytes of an update | accuracy | of runs |", "|---|---|---|---|---|"]
    for cohort in COHORTS:
        for codec in CODECS:
            of = [r for r in results if (r["codec"], r["cohort"]) == (codec, cohort)]
            if of:
                accuracies = [float(r["accuracy"]) for r in of]
                spread = f" ({min(accuracies):.2%} to {max(accuracies):.2%})" if len(of) > 1 else ""
                mean = statistics.mean(accuracies)
                lines.append(
                    f"| {cohort} | `{codec}` | {of[0]['bytes_of_an_update']:,} | {mean:.2%}{spread} | {len(of)} |"
                )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    found = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    names = ("codec", "cohort", "rounds", "rng_seed")
    done = {tuple(r[name] for name in names) for r in found}
    for rng_seed in range(given.seeds):
        for cohort in COHORTS:
            for codec in CODECS:
                if (codec, cohort, given.rounds, rng_seed) not in done:
                    found.append(measure(codec, cohort, given.rounds, rng_seed))
                    with RESULTS.open("a") as file:
                        file.write(json.dumps(found[-1]) + "\n")
                    print(json.dumps(found[-1]), flush=True)
    print(table([r for r in found if r["rounds"] == given.rounds]))


if __name__ == "__main__":
    main()
