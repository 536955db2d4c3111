"""What a coordinator says before the first round: all that wait, all that refuse, and what no round can satisfy."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coterie import Mistake
from coterie.experiment.silos.begin import Waits
from coterie.experiment.silos.deal_to_silos import deal_to_silos
from coterie.experiment.silos.join_silos import AGREED_FILE, join_silos
from coterie.experiment.silos.serve_silo import ServeSilo
from coterie.experiment.silos.silo_file import load_silo_file
from coterie.experiment.silos.silo_settings import refuse_simulation
from coterie.experiment.tables import Deploy
from coterie.loop.cohort import Cohort
from coterie.silos.in_process import InProcess
from tests.experiment.silos.exchange import MACHINE, settings_of
from tests.experiment.silos.test_plans import digits


def serve_each(folder: Path, files: dict[str, Path], approve: dict[str, Callable[..., Any]]) -> InProcess:
    """Silos in this process, each with a word of its own on whether a run may begin."""
    made = {}
    for silo, file in files.items():
        own = {"approve": approve[silo]} if silo in approve else {}
        made[silo] = ServeSilo(load_silo_file(file), folder / silo, MACHINE, **own)
    return InProcess(made)


def wait(*given: Any) -> list[str]:
    raise Waits("waits for approval")


def test_all_silos_that_wait_are_named_at_once(tmp_path: Path) -> None:
    """One that refuses for good counts before them: there is nothing to wait for."""
    settings = settings_of(tmp_path, **digits(partition="iid"))
    files = dict(deal_to_silos(settings, ["north", "south", "west"], tmp_path / "dealt").files)
    waiting = serve_each(tmp_path / "silos", files, {"north": wait, "west": wait})
    with pytest.raises(Waits) as caught:
        join_silos(settings, waiting, list(files), MACHINE, tmp_path / "run")
    assert str(caught.value) == "silo north: waits for approval; silo west: waits for approval"
    mixed = serve_each(tmp_path / "silos", files, {"north": wait, "south": lambda *given: ["too long"]})
    with pytest.raises(Mistake) as refused:
        join_silos(settings, mixed, list(files), MACHINE, tmp_path / "run")
    assert not isinstance(refused.value, Waits)
    assert str(refused.value) == "silo south: this run may not begin here: too long"


def test_more_replies_than_a_round_asks_are_refused_as_soon_as_that_is_known(tmp_path: Path) -> None:
    """By the file alone where it says how many clients a round asks; else before anything but facts has left a silo."""
    settings = replace(settings_of(tmp_path, **digits(partition="iid")), deploy=Deploy(min_clients=3))
    with pytest.raises(Mistake, match=r"deploy\.min_clients = 3: a round asks 2 clients; give 2 or less"):
        refuse_simulation(replace(settings, cohort=Cohort(size=2)))
    named = settings_of(
        tmp_path, data={"source": "digits"}, model={"clients": {"a": "mlp", "b": "logistic"}}, deploy={"min_clients": 3}
    )
    with pytest.raises(Mistake, match=r"min_clients = 3: a round asks 2 clients"):
        refuse_simulation(named)
    refuse_simulation(replace(settings, cohort=Cohort(fraction=0.5)))  # the silos may host six clients

    files = dict(deal_to_silos(settings, ["north", "south"], tmp_path / "dealt").files)
    carrier = serve_each(tmp_path / "silos", files, {})
    many = replace(settings, deploy=Deploy(min_clients=7))
    with pytest.raises(Mistake, match=r"deploy\.min_clients = 7: a round asks 6 clients"):
        join_silos(many, carrier, list(files), MACHINE, tmp_path / "run")
    assert {kind for _, kind in carrier.requests} == {"facts"}
    assert not (tmp_path / "run" / AGREED_FILE).exists()
