"""Kinds of arguments: a type together with its range, for annotations.

A signature that uses them says what a value may be. Tables of a TOML file, their messages and the documentation read it
there, without importing PyTorch.

>>> def shrink(factor: Fraction, times: Count = 1) -> None: ...
"""

from typing import Annotated, TypeAlias

from annotated_types import Ge, Gt, Le, Lt

Count: TypeAlias = Annotated[int, Ge(1)]
"""A whole number, 1 or more."""

NonNegativeInt: TypeAlias = Annotated[int, Ge(0)]
"""A whole number, 0 or more."""

Positive: TypeAlias = Annotated[float, Gt(0)]
"""A number above 0."""

NonNegative: TypeAlias = Annotated[float, Ge(0)]
"""A number, 0 or more."""

Fraction: TypeAlias = Annotated[float, Ge(0), Le(1)]
"""A number from 0 to 1, both included."""

PositiveFraction: TypeAlias = Annotated[float, Gt(0), Le(1)]
"""A number above 0 and at most 1."""

FractionBelowOne: TypeAlias = Annotated[float, Ge(0), Lt(1)]
"""A number from 0 to below 1."""
