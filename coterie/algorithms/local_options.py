"""How a client trains: the keyword arguments that algorithms with local training share, each written here alone.

To add one: a key here, and the line of `coterie.algorithms.local` or `coterie.algorithms.local_optimizers` that uses
it. The keys of [algorithm], their checks and the table in docs/experiment.md follow from this class.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, NotRequired, TypedDict

from coterie.core.kinds import (
    Count,
    Fraction,
    FractionBelowOne,
    NonNegative,
    NonNegativeInt,
    Positive,
    PositiveFraction,
)
from coterie.core.options import Default, Doc


class LocalOptions(TypedDict):
    """The keyword arguments of local training; see `coterie.algorithms.local.LocalSGD`."""

    lr: Annotated[Positive, Doc("the learning rate in the first round")]
    local_epochs: NotRequired[Annotated[Count, Default(1), Doc("passes over a client's data in a round")]]
    local_steps: NotRequired[Annotated[Count | None, Doc("batches in a round, instead of `local_epochs`")]]
    batch_size: NotRequired[Annotated[Count | Literal["full"], Default(32), Doc('examples in a step, or `"full"`')]]
    momentum: NotRequired[
        Annotated[
            FractionBelowOne,
            Default(0.0),
            Doc("of sgd and rmsprop, as in `torch.optim`; it starts from zero in each round"),
        ]
    ]
    weight_decay: NotRequired[
        Annotated[NonNegative, Default(0.0), Doc("as in `torch.optim`; adamw needs it, and PyTorch takes 0.01 there")]
    ]
    lr_decay: NotRequired[
        Annotated[PositiveFraction, Default(1.0), Doc("the factor on the learning rate after each round")]
    ]
    clip_norm: NotRequired[Annotated[Positive | None, Doc("the largest norm of a step's gradient")]]
    keep_momentum: NotRequired[
        Annotated[bool, Default(False), Doc("keep a client's momentum for its next round, with sgd")]
    ]
    optimizer: NotRequired[
        Annotated[
            Literal["sgd", "adam", "adamw", "adagrad", "rmsprop"],
            Default("sgd"),
            Doc('`"sgd"`, `"adam"`, `"adamw"`, `"adagrad"` or `"rmsprop"`, each as in `torch.optim`'),
        ]
    ]
    keep_optimizer: NotRequired[
        Annotated[
            bool | None,
            Doc("keep all of a client's optimiser for its next round; by default what `keep_momentum` says"),
        ]
    ]
    dampening: NotRequired[Annotated[Fraction, Default(0.0), Doc("of sgd's momentum")]]
    nesterov: NotRequired[Annotated[bool, Default(False), Doc("sgd by Nesterov's momentum")]]
    betas: NotRequired[
        Annotated[list[FractionBelowOne] | None, Doc("of adam and adamw; by default PyTorch's, [0.9, 0.999]")]
    ]
    eps: NotRequired[
        Annotated[
            Positive | None,
            Doc("of adam, adamw, adagrad and rmsprop; by default PyTorch's, 1e-8, and 1e-10 of adagrad"),
        ]
    ]
    amsgrad: NotRequired[Annotated[bool, Default(False), Doc("adam or adamw by the largest second moment so far")]]
    initial_accumulator_value: NotRequired[
        Annotated[NonNegative, Default(0.0), Doc("adagrad's sum of squares before the first step")]
    ]
    alpha: NotRequired[
        Annotated[FractionBelowOne | None, Doc("how slowly rmsprop's mean square follows; by default PyTorch's, 0.99")]
    ]
    centered: NotRequired[
        Annotated[bool, Default(False), Doc("rmsprop by the variance of the gradient, not its mean square")]
    ]
    schedule: NotRequired[
        Annotated[
            Literal["constant", "cosine", "linear", "step"] | Callable[[Any, Any], Any],
            Default("constant"),
            Doc(
                'a factor on the learning rate: `"constant"`, `"cosine"`, `"linear"` or `"step"`; in Python also a '
                "function (round from 1, step from 0) -> factor, of tensors"
            ),
        ]
    ]
    schedule_over: NotRequired[
        Annotated[
            Literal["rounds", "steps"],
            Default("rounds"),
            Doc('what the schedule counts: `"rounds"`, or the optimiser\'s `"steps"` within each round'),
        ]
    ]
    schedule_length: NotRequired[
        Annotated[
            Count | None,
            Doc("where cosine and linear end: by default after `rounds` of the file, or after a round's own steps"),
        ]
    ]
    warmup: NotRequired[
        Annotated[NonNegativeInt, Default(0), Doc("rounds or steps in which the rate first rises, to `lr`")]
    ]
    lr_end: NotRequired[Annotated[NonNegative | None, Doc("the rate at the end of cosine and linear; by default 0")]]
    step_size: NotRequired[Annotated[Count | None, Doc("rounds or steps after which the schedule step moves the rate")]]
    gamma: NotRequired[Annotated[PositiveFraction | None, Doc("its factor on the rate; by default PyTorch's, 0.1")]]
    accumulate: NotRequired[
        Annotated[Count, Default(1), Doc("batches whose mean gradient makes one step of the optimiser")]
    ]
