"""Read the weights of the encoders that come with coterie, after comparing them with the checksum on their card."""

from __future__ import annotations

import hashlib

import safetensors.torch
from torch import Tensor

from coterie.core.errors import Mistake
from coterie.weights.cards import BOX, card, weights_path


def load(name: str) -> dict[str, Tensor]:
    """Return an encoder's weights by their names in the model's `state_dict`, without the classifier's.

    Statistics of BatchNorm layers are among them.

    Raises:
        Mistake: there is no encoder of that name, or its file is damaged.
    """
    expected, path = card(name)["sha256"], weights_path(name)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Mistake(
            f"{path} cannot be read ({error.strerror}); install coterie again", key="weights", value=f"{BOX}{name}"
        ) from error
    if hashlib.sha256(data).hexdigest() != expected:
        raise Mistake(
            f"{path} is damaged: its checksum is not the one on its card; install coterie again",
            key="weights",
            value=f"{BOX}{name}",
        )
    return safetensors.torch.load(data)
