"""What a run promises about privacy, from its summary: how large, to whom, and what lies outside."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

from coterie.report import page_parts
from coterie.report.formats import format_epsilon
from coterie.report.run_reader import Run

_UNITS = {"client": "any one client", "example": "any one example"}
_NEIGHBOURS = {"add or remove": "there or not", "replace": "replaced by another"}
_WHERE = {"server": "the server, which is trusted", "clients": "the clients, each its share"}
NO_SECRET = (
    "No guarantee towards whoever knows the rng seed, which stands in config.toml: the noise can be taken away again "
    '(privacy.noise is "rng_seed", for experiments).'
)
_SUMS_ALONE = "The server has opened the sums of the updates, and no single one. Sums without noise are no guarantee."
_NOT_YET = "The run is not over: what it has spent is stated at its end."


def guarantee_panel(run: Run) -> str | None:
    """Return what a run promises as HTML; None where it promises nothing."""
    unit, hides = run.config.get("privacy.unit", "none"), bool(run.config.get("privacy.secure_sum"))
    if unit == "none":
        return f"<p>{escape(_SUMS_ALONE)}</p>" if hides else None
    summary = run.end.get("privacy", {})
    outside = "".join(f"<li>{escape(str(each))}</li>" for each in summary.get("outside", ()))
    parts = [
        f"<p><b>{escape(NO_SECRET)}</b></p>" if run.config.get("privacy.noise") == "rng_seed" else "",
        "" if run.over else f"<p class=soft>{escape(_NOT_YET)}</p>",
        page_parts.table(_rows(run, unit, hides, summary)),
        f"<p>It covers {escape(summary['covers'])}. Outside lie:</p><ul>{outside}</ul>" if "covers" in summary else "",
    ]
    return "\n".join(part for part in parts if part)


def _rows(run: Run, unit: str, hides: bool, summary: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (what, its value)."""
    get = run.config.get
    if run.end.get("epsilon") is not None:
        yield "epsilon", format_epsilon(run.end["epsilon"])
    delta = run.end.get("delta") or get("privacy.delta")
    if delta is not None:
        yield "delta", f"{delta:.3g}"
    neighbours = _NEIGHBOURS.get(summary.get("neighbours", ""))
    yield "hides", _UNITS.get(unit, unit) + ("" if neighbours is None else f", {neighbours}")
    multiplier = run.end.get("noise_multiplier") or get("privacy.noise_multiplier")
    if multiplier is not None:
        yield "noise multiplier", f"{multiplier:.4g}"
    if unit == "client":
        yield "the noise is added by", _WHERE.get(get("privacy.where", "server"), "")
        yield "a round asks", _asks(run)
    yield "the server sees", "sums of updates alone" if hides else "each update"
    if "releases" in summary:
        yield "noisy sums that have left", str(summary["releases"])


def _asks(run: Run) -> str:
    """Return whom a round asks, in words."""
    get = run.config.get
    if get("cohort.sampling") == "poisson" and get("cohort.size") is not None:
        return f"each client by a draw of its own, {get('cohort.size')} on average"
    if get("cohort.sampling") == "poisson":
        return f"each client with probability {get('cohort.fraction', 1.0):g}"
    if get("cohort.size") is not None:
        return f"{get('cohort.size')} clients, every choice of them as likely as any other"
    share = get("cohort.fraction", 1.0)
    return "all clients" if share == 1 else f"{100 * share:g} % of the clients, every choice of them as likely"
