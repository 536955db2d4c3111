"""What arrives from other participants is judged before it is used: nothing else in this room trusts a byte of it.

Anyone who can write into a mailbox can leave anything there. A message that cannot be used is left out, and the round's
`dropped` says why. No message ends a participant.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch

from coterie.core import tree
from coterie.core.errors import reason
from coterie.core.packing import pack, unpack
from coterie.core.printable import printable
from coterie.core.tree import Tree
from coterie.loop.check_update import part_problem, problem
from coterie.loop.plan import Plan

MAX_BYTES = 2**30
"""Longest message that is read where nobody says how long an honest one is."""

FRAMING_BYTES = 2**12
"""How much longer than one's own an honest message may be: names and shapes may be spelled in another way."""

MAX_REASON_LENGTH = 300
"""Length of the longest reason."""


class Unusable(NamedTuple):
    """A message that is left out, and the reason in a few words."""

    why: str


Message: TypeAlias = Tree | Unusable


@dataclass(frozen=True)
class Form:
    """What an honest message looks like.

    Attributes:
        min_bytes, max_bytes: between which its length lies.
        problem: a message -> what is wrong with it in a few words, or None.
    """

    min_bytes: int = 0
    max_bytes: int = MAX_BYTES
    problem: Callable[[Tree], str | None] = lambda message: None

    def length_problem(self, nbytes: int) -> str | None:
        """Return what is wrong with a message of this length, or None."""
        if self.min_bytes <= nbytes <= self.max_bytes:
            return None
        honest = f"{self.max_bytes} at most" if nbytes > self.max_bytes else f"{self.min_bytes} at least"
        return f"has {nbytes} bytes, and an honest message {honest}"

    def read(self, data: bytes) -> Message:
        """Return the message in these bytes, or why it cannot be used."""
        wrong = self.length_problem(len(data))
        if wrong is not None:
            return Unusable(wrong)
        try:
            message = unpack(data)
        except Exception as error:  # a stranger's bytes: they may break anything, and the participant goes on
            return _unusable(f"cannot be read ({reason(error)})")
        wrong = self.problem(message)
        return message if wrong is None else _unusable(wrong)


def _unusable(why: str) -> Unusable:
    """Return a reason that may hold a stranger's words, in a form that can be printed."""
    return Unusable(printable(why[:MAX_REASON_LENGTH]))


def form_of_round(plan: Plan, template: Tree) -> Form:
    """Return what an honest message of a round looks like.

    Args:
        plan: in this round.
        template: the payload of a client that takes no step; see `coterie.loop.template`.
    """

    def wrong(message: Tree) -> str | None:
        return problem(message, 1.0, template) or _content_problem(plan, message)

    zeros = tree.map(lambda x: torch.zeros_like(x, device="cpu"), template)
    return Form(tree.nbytes(template), len(pack(zeros)) + FRAMING_BYTES, wrong)


def _content_problem(plan: Plan, message: Tree) -> str | None:
    """Return what is wrong with a message whose form is right, once it is decoded, or None."""
    wrong = plan.codec.problem(message)
    if wrong is not None:
        return wrong
    try:
        update = plan.codec.decode(message)
    except (RuntimeError, ValueError, IndexError) as error:  # such as places that lie outside, in a codec of one's own
        return f"cannot be decoded ({reason(error)})"
    return part_problem(plan.algorithm.server, update, plan.codec.rounding)
