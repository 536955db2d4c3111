"""Say in sentences what attacks on a run found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from coterie.report.formats import format_interval, format_number, format_percent

PROVES_NOTHING = (
    "An attack that fails proves nothing: one with more iterations, or a better one, may succeed. Only a stated "
    "epsilon bounds them all."
)


def privacy_sentences(found: Mapping[str, Any]) -> list[str]:
    """Return what privacy.json says, in a few sentences."""
    inversion = found.get("inversion")
    sentences = [_say_batch(inversion, batch) for batch in inversion["batches"]] if inversion else []
    sentences += [_say_membership(row) for row in found.get("membership", [])]
    return [*sentences, PROVES_NOTHING]


def measure_of(row: Mapping[str, Any]) -> str:
    """Return how near an attack, or the guess that needs none, came to the examples."""
    if "tokens" in row:
        return f"{format_percent(row['tokens'])} of the tokens"
    return f"{row['psnr']:.1f} dB"


def _say_batch(inversion: Mapping[str, Any], batch: Mapping[str, Any]) -> str:
    """Return under which protections the examples of an update were reconstructed."""
    first, *others = batch["rows"]
    what = "example" if batch["examples"] == 1 else "examples"
    guess = "the most frequent tokens" if batch["kind"] == "tokens" else "the mean training example"
    verb = "reconstructs" if first["succeeded"] else "does not reconstruct"
    steps = "one local step" if batch["steps"] == 1 else f"{batch['steps']} local steps"
    lines = [
        f"From the update of client {inversion['client']} after {steps} on {batch['examples']} {what}, the attack "
        f"{verb} what the client held ({measure_of(first)}; {guess}: {measure_of(batch['baseline'])})."
    ]
    still = [row["protection"] for row in others if row["succeeded"]]
    fails = [row["protection"] for row in others if not row["succeeded"]]
    lines += [f"It still does under: {'; '.join(still)}."] if still and first["succeeded"] else []
    lines += [f"It fails under: {'; '.join(fails)}."] if fails and first["succeeded"] else []
    return " ".join(lines)


def _say_membership(row: Mapping[str, Any]) -> str:
    """Return how well one attack tells members from others."""
    low = [f"{format_percent(share)} of them at a false positive rate of {format_percent(float(rate))}"
           for rate, share in row["at_low_rates"].items() if share is not None]  # fmt: skip
    found = f" It finds {' and '.join(low)}." if low else ""
    ends: Sequence[float] | None = row["interval"]
    area = format_interval(row["auc"], None if ends is None else (ends[0], ends[1]))
    return (
        f"{attack_name(row)} on the model of {row['run']}: it tells {row['members']:,} training examples from "
        f"{row['others']:,} others with an area under the ROC curve of {area}; 0.5 is a guess.{found}"
    )


def attack_name(row: Mapping[str, Any]) -> str:
    """Return what an attack on a model is called."""
    return "By its loss" if row["attack"] == "loss" else f"By {format_number(row['shadows'])} shadow models"
