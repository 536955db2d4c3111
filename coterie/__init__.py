"""Federated learning on PyTorch.

import coterie
for round in coterie.federate(coterie.fedavg(lr=0.1), model, clients, rounds=50, cohort=0.1, test=test):
    print(round.round, round.test_accuracy)
"""

from coterie.algorithms import (
    centralized,
    fbn,
    fedadagrad,
    fedadam,
    fedavg,
    fedavgm,
    fedbn,
    feddf,
    feddyn,
    fedh2l,
    fedmd,
    fedprox,
    fedsgd,
    fedssl,
    fedyogi,
    fixbn,
    hbn,
    independent,
    scaffold,
)
from coterie.api import federate, plan
from coterie.core.algorithm import Algorithm, ClientHalf, Context, Recipe, RoundInfo, ServerHalf, Stream, Traits
from coterie.core.errors import Mistake
from coterie.core.examples import Clients, Examples
from coterie.core.task import Batch, Task
from coterie.loop.cohort import Cohort
from coterie.loop.evaluate import Evaluation
from coterie.loop.faults import Faults
from coterie.loop.plan import Plan, Resume, Round

__version__ = "0.1.0"

__all__ = [
    "Algorithm",
    "Batch",
    "ClientHalf",
    "Clients",
    "Cohort",
    "Context",
    "Evaluation",
    "Examples",
    "Faults",
    "Mistake",
    "Plan",
    "Recipe",
    "Resume",
    "Round",
    "RoundInfo",
    "ServerHalf",
    "Stream",
    "Task",
    "Traits",
    "centralized",
    "fbn",
    "fedadagrad",
    "fedadam",
    "fedavg",
    "fedavgm",
    "fedbn",
    "feddf",
    "feddyn",
    "federate",
    "fedh2l",
    "fedmd",
    "fedprox",
    "fedsgd",
    "fedssl",
    "fedyogi",
    "fixbn",
    "hbn",
    "independent",
    "plan",
    "scaffold",
]
