"""The same federation twice: simulated, and with its clients at silos in this process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import coterie
from coterie import Evaluation, Examples, Plan, Recipe, Round
from coterie.core import tree
from coterie.engines.sequential import Sequential
from coterie.loop.faults import Fault as Suffering
from coterie.loop.faults import Faults
from coterie.silos.coordinate import coordinate
from coterie.silos.counts import CountedClients
from coterie.silos.in_process import Fault, InProcess
from coterie.silos.silo import Silo, model_path
from tests.federations import dense, ragged, seed_set

HOSTS = {"0": "north", "1": "north", "2": "south", "3": "west", "4": "south", "5": "west"}
"""Six clients at three silos, so that no silo's clients are next to one another only."""


@dataclass(frozen=True)
class Chosen(Faults):
    """Faults of chosen clients in chosen rounds."""

    dropping: frozenset[tuple[int, str]] = field(default_factory=frozenset)

    def of(self, rng_seed: int, round: int, client: str) -> Suffering | None:
        return "drop" if (round, client) in self.dropping else None


@dataclass
class Deployment:
    """A federation to be run in both ways. `models` gives some clients a model of their own kind."""

    recipe: Recipe
    folder: Path
    rounds: int = 3
    models: nn.Module | Mapping[str, nn.Module] | None = None
    clients: dict[str, Examples] = field(default_factory=ragged)
    hosts: Mapping[str, str] = field(default_factory=lambda: HOSTS)
    options: dict[str, Any] = field(default_factory=dict)
    test: Examples | None = None
    faults: dict[tuple[int, str], Fault] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    def plan(self, clients: Mapping[str, Examples], test: Examples | None, **more: Any) -> Plan:
        models = dense() if self.models is None else self.models
        if isinstance(models, Mapping):
            models = {client: models[client] for client in clients}
        options = {"rng_seed": 3, "seed_set": seed_set(), "engine": Sequential(dtype=torch.float64)}
        options |= {"num_classes": 3, "test": test, **self.options, **more}
        return coterie.plan(self.recipe, models, clients, rounds=self.rounds, **options)

    def simulate(self, dropping: Sequence[tuple[int, str]] = (), **more: Any) -> list[Round]:
        faults = Chosen(dropping=frozenset(dropping)) if dropping else None
        plan = self.plan(self.clients, self.test, faults=faults)
        return list(coterie.loop.federate.federate(plan, **more))

    def silos(self) -> dict[str, Silo]:
        made = {}
        for k, site in enumerate(names := list(dict.fromkeys(self.hosts.values()))):
            own = {client: data for client, data in self.clients.items() if self.hosts[client] == site}
            test = None if self.test is None else self.test.take(torch.arange(k, len(self.test), len(names)))
            made[site] = Silo(self.plan(own, test), self.folder / site, experiment="a file")
        return made

    def coordinator(self) -> Plan:
        """The plan of somebody who holds no row."""
        plan = self.plan(self.clients, self.test)
        counts = CountedClients({client: len(data) for client, data in self.clients.items()})
        return replace(plan, clients=counts, evaluation=Evaluation(every=plan.evaluation.every))

    def carrier(self) -> InProcess:
        return InProcess(self.silos(), self.faults)

    def deploy(self, carrier: InProcess | None = None, **more: Any) -> list[Round]:
        carrier = carrier or self.carrier()
        arguments: dict[str, Any] = {"hosts": self.hosts, "experiment": "a file", "say": self.said.append} | more
        return list(coordinate(self.coordinator(), carrier, **arguments))

    def models_at_silos(self) -> dict[str, bytes]:
        return {c: model_path(self.folder / self.hosts[c], c).read_bytes() for c in self.clients}


def server_state(round: Round) -> dict[str, Tensor]:
    return tree.flatten(round.state)


def same_bits(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """Whether two flat trees are equal in every bit that counts; NaN equals NaN."""
    return a.keys() == b.keys() and all(
        a[name].dtype == b[name].dtype and torch.equal(a[name].nan_to_num(7.0), b[name].nan_to_num(7.0)) for name in a
    )
