"""What lies outside a guarantee of either unit: keep it, and publish the model and the summary.

It stands in summary.json, in the report, and on the pages docs/privacy.md and docs/privacy-examples.md.
"""

from __future__ import annotations

from coterie.loop.plan import Plan
from coterie.privacy.table import Privacy

OF_BOTH = (
    "rounds.jsonl and what trackers are sent of it, bytes and seconds: who was asked, who answered and how fast",
    "clients.json, data.json, sheet.png and the report, which tell of each client's labels and data",
    "checkpoint/, which holds what clients keep, and noise.json, which holds the secret of the noise",
    "the classes, categories, tokens and numbers of examples that the clients agree on before the first round",
    "the weights that the run started from, where they were trained on the same data",
    "test data, measures on them, and when these ended the run; privacy.json, which holds what attacks found",
)
OF_CLIENTS_MODELS = "each client's own model, and measures of it"
OF_EXAMPLES = "which clients each round asked, and how many examples each of them has"
REPEATABLE = 'whoever knows the rng seed can take the noise away: privacy.noise is "rng_seed", for experiments'


def list_outside(plan: Plan, privacy: Privacy) -> list[str]:
    """Return what lies outside a plan's guarantee, in words that can follow "outside lies"."""
    if privacy.unit == "example":
        own = [OF_EXAMPLES]
    else:
        own = [OF_CLIENTS_MODELS] if plan.algorithm.traits.own_models else []
    return [*OF_BOTH, *own, *([REPEATABLE] if privacy.noise == "rng_seed" else [])]
