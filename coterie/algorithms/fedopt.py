"""FedAvg with a server optimiser: FedAvgM, FedAdagrad, FedAdam, FedYogi and FedMuon.

Clients do what FedAvg's do; the server hands the averaged difference mean(w - w_i) to an optimiser as if it were a
gradient. See `coterie.algorithms.optimizers` for the rules and `fedavg` for the rest. The paper tunes lr and server_lr
together, each over a grid of powers of 10^(1/2): the defaults here are places to start from.

Departures from the paper: the average is weighted by examples, where Algorithm 2 takes the plain mean.

Reddi, Charles, Zaheer, Garrett, Rush, Konecny, Kumar, McMahan: Adaptive Federated Optimization, ICLR 2021, Algorithm 2.
Hsu, Qi, Brown: Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification, 2019.
"""

from __future__ import annotations

from typing import Unpack

from coterie.algorithms import optimizers
from coterie.algorithms.fedavg import fedavg
from coterie.algorithms.local import LocalSGD
from coterie.algorithms.local_options import LocalOptions
from coterie.core.algorithm import Recipe
from coterie.core.errors import require
from coterie.core.kind_checks import refuse_wrong_types
from coterie.core.kinds import FractionBelowOne, Positive


@refuse_wrong_types
def fedavgm(
    *, server_lr: Positive = 1.0, server_momentum: FractionBelowOne = 0.9, **local_options: Unpack[LocalOptions]
) -> Recipe:
    """Return FedAvg with momentum at the server.

    Args:
        server_lr: the server's learning rate.
        server_momentum: the share of the last step that is repeated; 0 is FedAvg.
        **local_options: how clients train; see `LocalOptions`.

    Raises:
        Mistake: a value is out of its range.
    """
    return fedavg(server=optimizers.sgd(server_lr, server_momentum), **local_options)


@refuse_wrong_types
def fedadagrad(
    *,
    server_lr: Positive = 0.1,
    server_momentum: FractionBelowOne = 0.0,
    server_adaptivity: Positive = 1e-3,
    **local_options: Unpack[LocalOptions],
) -> Recipe:
    """Return FedAvg with Adagrad at the server.

    Args:
        server_lr: the server's learning rate.
        server_momentum: beta1; 0 is Adagrad as it was first proposed.
        server_adaptivity: tau, added to the square root of v; the larger, the closer to plain FedAvg.
        **local_options: how clients train; see `LocalOptions`.

    Raises:
        Mistake: a value is out of its range.
    """
    return fedavg(server=optimizers.adagrad(server_lr, server_momentum, server_adaptivity), **local_options)


@refuse_wrong_types
def fedadam(
    *,
    server_lr: Positive = 0.1,
    server_momentum: FractionBelowOne = 0.9,
    server_second_momentum: FractionBelowOne = 0.99,
    server_adaptivity: Positive = 1e-3,
    **local_options: Unpack[LocalOptions],
) -> Recipe:
    """Return FedAvg with Adam at the server.

    Args:
        server_lr: the server's learning rate.
        server_momentum: beta1, how slowly the mean of the differences follows them.
        server_second_momentum: beta2, how slowly the mean of their squares does.
        server_adaptivity: tau, added to the square root of v; the larger, the closer to plain FedAvg.
        **local_options: how clients train; see `LocalOptions`.

    Raises:
        Mistake: a value is out of its range.
    """
    optimizer = optimizers.adam(server_lr, server_momentum, server_second_momentum, server_adaptivity)
    return fedavg(server=optimizer, **local_options)


@refuse_wrong_types
def fedyogi(
    *,
    server_lr: Positive = 0.1,
    server_momentum: FractionBelowOne = 0.9,
    server_second_momentum: FractionBelowOne = 0.99,
    server_adaptivity: Positive = 1e-3,
    **local_options: Unpack[LocalOptions],
) -> Recipe:
    """Return FedAvg with Yogi at the server; arguments and errors are those of `fedadam`."""
    optimizer = optimizers.yogi(server_lr, server_momentum, server_second_momentum, server_adaptivity)
    return fedavg(server=optimizer, **local_options)


@refuse_wrong_types
def fedmuon(
    *,
    server_lr: Positive = 1.0,
    server_momentum: FractionBelowOne = 0.9,
    kernel_step: Positive = 0.03,
    **local_options: Unpack[LocalOptions],
) -> Recipe:
    """Return FedAvg with Muon at the server: kernels of convolutions take orthogonal steps of their own length.

    Args:
        server_lr: the server's learning rate.
        server_momentum: the share of the last step that is repeated.
        kernel_step: the length of a kernel's step, as a share of the kernel's norm.
        **local_options: how clients train; see `LocalOptions`. `lr_decay` must be 1 and a schedule must be over
            steps, since kernels do not follow them.

    Raises:
        Mistake: a value is out of its range.
    """
    decay, local = local_options.get("lr_decay", 1), LocalSGD(**local_options)
    require("lr_decay", decay, decay == 1, "1, since the kernels' steps do not follow it")
    rises_alone = local.options["schedule"] == "constant"
    allowed = (
        'left out with fedmuon over rounds, since the kernels\' steps do not follow it; set schedule_over = "steps"'
    )
    key, value = ("warmup", local.options["warmup"]) if rises_alone else ("schedule", local.options["schedule"])
    require(key, value, local.factor_of_round is None, allowed)
    return fedavg(server=optimizers.muon(server_lr, server_momentum, kernel_step), **local_options)
