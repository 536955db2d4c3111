"""The cards of the encoders that come with coterie: a TOML file each, beside the weights."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from coterie.core.errors import Mistake
from coterie.core.registry import nearest

BOX = "box:"
"""How `pretrain.weights` begins where it names an encoder that comes with coterie."""
FOLDER = Path(__file__).parent


def names() -> list[str]:
    """Return the names of the encoders, sorted.

    >>> names()
    ['fps-resnet20', 'fps-resnet20-groupnorm']
    """
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def card(name: str) -> dict[str, Any]:
    """Return an encoder's card.

    Its keys are `about`; `model`, the table [model] that it is for; `inputs` and `normalisation`; `trained`, with the
    steps done, the steps planned and the core-hours; `settings`, the pre-training's; `made_by`, the commands;
    `licence`; `sha256`, of the weights file; and `evaluations`, a table for each number, with its command.

    Raises:
        Mistake: there is no encoder of that name; the sentence has the names that there are.
    """
    known = names()
    if name not in known:
        near = nearest(name, known)
        hint = f'did you mean "{BOX}{near}"? There are' if near else "there are"
        raise Mistake(f"{hint} {', '.join(known)}", key="weights", value=f"{BOX}{name}")
    return tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))


def remark(name: str) -> str | None:
    """Return what a user of an encoder should know before all else, a sentence; None if there is nothing."""
    about = card(name)
    steps, planned = about["trained"]["steps"], about["trained"]["planned_steps"]
    if steps >= planned:
        return None
    measured = "" if about["evaluations"] else ", and nobody has measured yet what it is worth"
    return f"the encoder {BOX}{name} is not finished: {steps:,} of {planned:,} steps{measured}"


def weights_path(name: str) -> Path:
    """Return the path of an encoder's weights file."""
    return FOLDER / f"{name}.safetensors"
