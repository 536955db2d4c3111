"""How a client trains: the keyword arguments that algorithms with local training share, each written here alone.

To add one: a key here, and the line of `coterie.algorithms.local.LocalSGD` or `coterie.algorithms.optimizers` that uses
it. The keys of [algorithm], their checks and the table in docs/experiment.md follow from this class.
"""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired, TypedDict

from coterie.core.kinds import Count, FractionBelowOne, NonNegative, Positive, PositiveFraction
from coterie.core.options import Default, Doc


class LocalOptions(TypedDict):
    """The keyword arguments of local training; see `coterie.algorithms.local.LocalSGD`."""

    lr: Annotated[Positive, Doc("the learning rate in the first round")]
    local_epochs: NotRequired[Annotated[Count, Default(1), Doc("passes over a client's data in a round")]]
    local_steps: NotRequired[Annotated[Count | None, Doc("batches in a round, instead of `local_epochs`")]]
    batch_size: NotRequired[Annotated[Count | Literal["full"], Default(32), Doc('examples in a step, or `"full"`')]]
    momentum: NotRequired[
        Annotated[FractionBelowOne, Default(0.0), Doc("as in `torch.optim.SGD`; it starts from zero in each round")]
    ]
    weight_decay: NotRequired[Annotated[NonNegative, Default(0.0), Doc("as in `torch.optim.SGD`")]]
    lr_decay: NotRequired[
        Annotated[PositiveFraction, Default(1.0), Doc("the factor on the learning rate after each round")]
    ]
    clip_norm: NotRequired[Annotated[Positive | None, Doc("the largest norm of a step's gradient")]]
    keep_momentum: NotRequired[Annotated[bool, Default(False), Doc("keep a client's momentum for its next round")]]
