"""Encoders that come with coterie: trained by its own pre-training on fractals, so they need nobody's data.

Each has a safetensors file and a card, a TOML file that says how it was made. `coterie run` starts from one with
`pretrain.weights = "box:NAME"`. In Python:

    model = coterie.models.registry.build("resnet20", (3, 32, 32), 10, rng_seed=0)
    model.load_state_dict(coterie.weights.load("fps-resnet20"), strict=False)  # all but the classifier

Names and cards are read without PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coterie.core.lazy import export_lazily

if TYPE_CHECKING:
    from coterie.weights.cards import BOX, card, names
    from coterie.weights.encoders import load

__all__ = ["BOX", "card", "load", "names"]

export_lazily(
    __name__,
    {
        "BOX": "coterie.weights.cards:BOX",
        "card": "coterie.weights.cards:card",
        "load": "coterie.weights.encoders:load",
        "names": "coterie.weights.cards:names",
    },
)
