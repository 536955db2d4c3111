"""What an algorithm does not allow of local training, each with the sentence that refuses it."""

from __future__ import annotations

from coterie.algorithms.local import LocalSGD
from coterie.core.errors import Mistake, require


def require_scalable_steps(local: LocalSGD, key: str, lr: float | None) -> None:
    """Refuse a learning rate of its own for some steps, as a factor on their gradients, except with SGD.

    Raises:
        Mistake: steps do not grow with the gradient.
    """
    name = local.options["optimizer"]
    allowed = f'left out with optimizer = "{name}", whose steps do not grow with the gradient'
    require(key, lr, lr is None or name == "sgd", allowed)


def require_constant_rate(local: LocalSGD, why: str) -> None:
    """Refuse a learning rate that changes within a round.

    Args:
        local: how clients train.
        why: comes after the allowed value, in a few words.

    Raises:
        Mistake: a schedule counts a round's steps.
    """
    if local.factor_of_step is None:
        return
    if callable(local.options["schedule"]):
        raise Mistake(
            f"a function may change the rate within a round; choose a schedule over rounds {why}",
            key="schedule",
            value=local.options["schedule"],
        )
    raise Mistake(key="schedule_over", value="steps", allowed=f'"rounds" {why}')


def require_one_batch_steps(local: LocalSGD, why: str) -> None:
    """Refuse steps of the optimiser that several batches make; `why` comes after the allowed value.

    Raises:
        Mistake: `accumulate` is above 1.
    """
    number = local.options["accumulate"]
    require("accumulate", number, number == 1, f"1 {why}")
