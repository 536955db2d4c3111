"""What `coterie deploy status` and a rehearsal say of a run's privacy."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import coterie
from coterie import Privacy
from coterie.experiment.silos.compare_weights import Comparison
from coterie.experiment.silos.run_status import _state_privacy
from coterie.privacy.accountant import Event, spent
from tests.federations import dense, ragged


def state(privacy: Privacy | None) -> str:
    plan = coterie.plan(coterie.fedavg(lr=0.1), dense(), ragged(), rounds=4, privacy=privacy, num_classes=3)
    experiment: Any = SimpleNamespace(plan=plan, settings=SimpleNamespace(rounds=4))
    return _state_privacy(experiment)


def test_it_says_what_all_rounds_spend() -> None:
    """Four releases with z = 4 cost what one with z = 2 costs."""
    said = state(Privacy(unit="client", clip_norm=1.0, noise_multiplier=4.0, delta=1e-3, where="clients"))
    epsilon = spent({Event(2.0): 1}, 1e-3)
    assert said.startswith(f"all 4 rounds spend epsilon {epsilon:.3g} at delta 0.001 for each client; ")
    assert said.endswith("the noise is added by the clients")
    assert state(None) == state(Privacy(secure_sum=True)) == ""


def test_a_rehearsal_says_why_hidden_noise_makes_it_differ_from_the_simulation() -> None:
    assert "a secret of its own" in Comparison(False, 1.3, 0, hidden_noise=True).sentence()
    assert "secret" not in Comparison(False, 1.3, 0).sentence()
    assert Comparison(True, 0.0, 0, hidden_noise=True).sentence().endswith("bit for bit")
