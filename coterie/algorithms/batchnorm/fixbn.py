"""FixBN: BatchNorm unchanged for the first rounds, then with constant statistics.

    rounds 1 to T*   FedAvg: clients normalise by their batches, running statistics are averaged
    from then on     FedAvg of the parameters: clients normalise by the running statistics (M, V) of round T*, in
                     training as in evaluation; (M, V) no longer change and do not travel up

Once (M, V) are constants, averaged gradients are those of one model on pooled data. Until then it is FedAvg, and from
then on (M, V) are those of an earlier model.

Departures from the paper: its text was not at hand, only descriptions of it and others' code. What it adds, momentum
that lasts over rounds, is `keep_momentum`.

Zhong, Chen, Chao: Making Batch Normalization Great in Federated Deep Learning, arXiv 2303.06530.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Unpack

from coterie.algorithms.batchnorm.gradients import constant_gradient
from coterie.algorithms.batchnorm.tasks import keep_statistics, with_normaliser
from coterie.algorithms.fedavg import fedavg
from coterie.algorithms.local_options import LocalOptions
from coterie.algorithms.optimizers import Optimizer
from coterie.algorithms.stages import stages
from coterie.core.algorithm import Algorithm, Recipe
from coterie.core.errors import require
from coterie.core.kind_checks import refuse_wrong_types
from coterie.core.kinds import NonNegativeInt, Positive
from coterie.core.task import Task


@refuse_wrong_types
def fixbn(
    *,
    freeze_after: NonNegativeInt,
    server_lr: Positive = 1.0,
    server: Optimizer | None = None,
    **local_options: Unpack[LocalOptions],
) -> Recipe:
    """Return FixBN: FedAvg, whose BatchNorm statistics are constants after the first `freeze_after` rounds.

    Args:
        freeze_after: T*, the last round in which statistics change; the paper takes half of all rounds.
        server_lr, server: as in `fedavg`.
        **local_options: how clients train; see `LocalOptions`.

    Raises:
        Mistake: a value is out of its range; when bound to a model, that it has no BatchNorm layer with running
            statistics.
    """
    require("freeze_after", freeze_after, isinstance(freeze_after, int) and freeze_after >= 0, "0 or more")
    average = fedavg(server_lr=server_lr, server=server, **local_options)

    def average_by_constant_statistics(task: Task) -> Algorithm:
        """Return FedAvg for the task, its BatchNorm layers normalising by constant (M, V)."""
        constant = keep_statistics(with_normaliser(task, constant_gradient))
        return average(replace(constant, batch_norms=()))  # they report nothing any more

    def bind(task: Task) -> Algorithm:
        algorithm = stages([(average, freeze_after), (average_by_constant_statistics, None)])(task)
        return replace(algorithm, traits=replace(algorithm.traits, given_statistics=freeze_after == 0))

    return bind
