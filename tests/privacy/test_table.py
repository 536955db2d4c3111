"""[privacy]: what can be asked for, and what is refused with a sentence."""

from __future__ import annotations

from typing import Any

import pytest

from coterie import Mistake, Privacy

SOUND: dict[str, Any] = {"unit": "client", "clip_norm": 1.0, "noise_multiplier": 1.0}


@pytest.mark.parametrize(
    "options",
    [
        {},
        SOUND,
        {"unit": "client", "clip_norms": {"delta": 1.0}, "epsilon": 2.0, "delta": 1e-4},
        {**SOUND, "epsilon": 8.0},
        {**SOUND, "clip": "adaptive", "target_quantile": 0.8},
        {**SOUND, "where": "clients", "tolerated_dropouts": 0.2},
    ],
)
def test_what_can_be_asked_for(options: dict[str, Any]) -> None:
    assert Privacy(**options).unit == options.get("unit", "none")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"epsilon": 3.0}, "epsilon = 3.0: without unit it protects nobody"),
        ({"clip_norm": 1.0}, "clip_norm = 1.0: without unit it protects nobody"),
        ({"unit": "client", "noise_multiplier": 1.0}, "give clip_norm, the largest norm"),
        ({**SOUND, "clip_norms": {"delta": 1.0}}, "give clip_norm, the largest norm"),
        ({"unit": "client", "clip_norm": 1.0}, "give noise_multiplier, or epsilon"),
        ({**SOUND, "noise_multiplier": 0.0}, "noise_multiplier = 0.0: it must be a number above 0"),
        ({**SOUND, "noise_multiplier": float("inf")}, "noise_multiplier = inf"),
        ({**SOUND, "clip_norm": float("nan")}, "clip_norm = nan"),
        ({"unit": "client", "clip_norms": {"delta": -1.0}, "epsilon": 1.0}, "clip_norms.delta = -1.0"),
        ({**SOUND, "delta": 1.0}, "delta = 1.0: it must be above 0 and below 1"),
        ({**SOUND, "clip_lr": 0.1}, 'clip_lr = 0.1: it must be left out unless clip = "adaptive"'),
        ({**SOUND, "where": "clients", "clip": "adaptive"}, 'clip = "adaptive": it must be "fixed"'),
        ({**SOUND, "tolerated_dropouts": 0.1}, "tolerated_dropouts = 0.1"),
        ({**SOUND, "unit": "clients"}, 'unit = "clients"'),
    ],
)
def test_what_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(Mistake, match=words):
        Privacy(**options)
