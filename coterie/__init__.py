"""Federated learning on PyTorch.

import coterie
for round in coterie.federate(coterie.fedavg(lr=0.1), model, clients, rounds=50, cohort=0.1, test=test):
    print(round.round, round.test_accuracy)

Importing the package does not import PyTorch; a name is imported when it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coterie.algorithms import ALGORITHMS
from coterie.core.lazy import export_lazily

if TYPE_CHECKING:
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
        fedmuon,
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
    from coterie.core.task import Batch, Metric, Task
    from coterie.core.task_options import TaskOptions
    from coterie.loop.cohort import Cohort
    from coterie.loop.communication import Communication
    from coterie.loop.evaluate import Evaluation
    from coterie.loop.faults import Faults
    from coterie.loop.plan import Plan, Resume, Round
    from coterie.privacy.table import Privacy
    from coterie.report.read_folder import RunRecords, read

__version__ = "0.1.0"

__all__ = [
    "Algorithm",
    "Batch",
    "ClientHalf",
    "Clients",
    "Cohort",
    "Communication",
    "Context",
    "Evaluation",
    "Examples",
    "Faults",
    "Metric",
    "Mistake",
    "Plan",
    "Privacy",
    "Recipe",
    "Resume",
    "Round",
    "RoundInfo",
    "RunRecords",
    "ServerHalf",
    "Stream",
    "Task",
    "TaskOptions",
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
    "fedmuon",
    "fedprox",
    "fedsgd",
    "fedssl",
    "fedyogi",
    "fixbn",
    "hbn",
    "independent",
    "plan",
    "read",
    "scaffold",
]

export_lazily(
    __name__,
    {
        **ALGORITHMS.places,
        "Algorithm": "coterie.core.algorithm:Algorithm",
        "Batch": "coterie.core.task:Batch",
        "ClientHalf": "coterie.core.algorithm:ClientHalf",
        "Clients": "coterie.core.examples:Clients",
        "Cohort": "coterie.loop.cohort:Cohort",
        "Communication": "coterie.loop.communication:Communication",
        "Context": "coterie.core.algorithm:Context",
        "Evaluation": "coterie.loop.evaluate:Evaluation",
        "Examples": "coterie.core.examples:Examples",
        "Faults": "coterie.loop.faults:Faults",
        "Mistake": "coterie.core.errors:Mistake",
        "Plan": "coterie.loop.plan:Plan",
        "Privacy": "coterie.privacy.table:Privacy",
        "Recipe": "coterie.core.algorithm:Recipe",
        "Resume": "coterie.loop.plan:Resume",
        "Round": "coterie.loop.plan:Round",
        "RoundInfo": "coterie.core.algorithm:RoundInfo",
        "ServerHalf": "coterie.core.algorithm:ServerHalf",
        "Stream": "coterie.core.algorithm:Stream",
        "Task": "coterie.core.task:Task",
        "TaskOptions": "coterie.core.task_options:TaskOptions",
        "Metric": "coterie.core.task:Metric",
        "Traits": "coterie.core.algorithm:Traits",
        "federate": "coterie.api:federate",
        "plan": "coterie.api:plan",
        "read": "coterie.report.read_folder:read",
        "RunRecords": "coterie.report.read_folder:RunRecords",
    },
)
