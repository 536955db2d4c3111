"""A silo's policy: what its administrator allows runs to do here, in policy.toml.

The policy is the silo's own file. No message changes it, and a run that it refuses does not begin.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from coterie.core.errors import Mistake, few, reason
from coterie.core.kind_checks import is_whole
from coterie.core.registry import nearest
from coterie.core.toml_text import toml_text
from coterie.models.libraries import library_prefix
from coterie.silos.run_description import RunDescription

ANY = "any"
MAX_POLICY_BYTES = 2**20

DEFAULT_POLICY = """\
# What this silo allows runs to do. The coordinator cannot change this file; you can, at any time, and the next start of
# `coterie deploy serve` reads it. A run that breaks a line of it does not begin, and both ends are told which line.

# Which algorithms, as algorithm.name has them; "package.module:function" names one of your own. ["any"] allows every
# algorithm that comes with coterie. One of your own must be named.
algorithms = ["any"]

# Which models, as model.name has them. ["any"] allows every model that comes with coterie, and those of torchvision,
# timm and Hugging Face where these are installed. Any other model is code that would run here, so it must be named:
# "package.module:function".
models = ["any"]

# Which data a run may read here: the name of a source, or "sha256:..." with the digest of a file. ["any"] allows
# whatever this silo's own configuration names. It never lets a run name a file.
data = ["any"]

# The largest message in bytes, in either direction. A model of 10 million parameters takes 40 million bytes.
max_message_bytes = 200_000_000

# How many rounds a run may have.
max_rounds = 1000

# Whether a person must approve a run with `coterie deploy approve` before it begins:
#   "new runs"  once for each experiment; after that it may stop and go on by itself
#   "always"    each time that the run begins or goes on here
#   "never"     what keeps to the lines above begins by itself
approve = "new runs"

# Whether a person must approve, in the same way and before that, what leaves before a run begins: how many rows there
# are, of which classes, the names and categories of columns, and sums over them. `coterie deploy approve` shows it.
# approve_facts = true

# The largest privacy loss epsilon that a run may have; several runs on the same rows add up. Without this line a run
# need not bound it.
# max_epsilon = 8.0
"""
"""What `coterie deploy join` writes at a silo."""

_NAMES = 'a list of names in quotes, such as ["fedavg"], or ["any"]'


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) and name for name in value)


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")


_KEYS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "algorithms": (_is_names, _NAMES),
    "models": (_is_names, _NAMES),
    "data": (_is_names, _NAMES),
    "max_message_bytes": (lambda value: is_whole(value) and value >= 1, "a whole number of bytes, 1 or more"),
    "max_rounds": (lambda value: is_whole(value) and value >= 1, "a whole number, 1 or more"),
    "approve": (lambda value: value in ("always", "new runs", "never"), '"always", "new runs" or "never"'),
    "approve_facts": (lambda value: isinstance(value, bool), "true or false"),
    "max_epsilon": (_is_positive, "a number above 0"),
}
"""Key -> whether a value is right, and what it must be."""

_OPTIONAL = ("approve_facts", "max_epsilon")
"""The keys that may be left out. All others are required: a line that is missing by mistake must not allow more."""


@dataclass(frozen=True)
class Policy:
    """What a silo allows.

    Attributes:
        algorithms, models, data: names, or "any" among them; see `DEFAULT_POLICY`.
        max_message_bytes: of a message in either direction.
        max_rounds: of a run.
        approve: whether a person must approve a run.
        approve_facts: whether a person must approve what leaves before a run begins, too.
        max_epsilon: the largest privacy loss; None: a run need not bound it.
    """

    algorithms: tuple[str, ...]
    models: tuple[str, ...]
    data: tuple[str, ...]
    max_message_bytes: int
    max_rounds: int
    approve: Literal["always", "new runs", "never"] = "new runs"
    approve_facts: bool = False
    max_epsilon: float | None = None

    @classmethod
    def load(cls, path: Path) -> Policy:
        """Return the policy in a file.

        Raises:
            Mistake: the file is missing or cannot be read, a key is unknown or missing, or a value is of another kind.
        """
        try:
            with path.open("rb") as file:
                data = file.read(MAX_POLICY_BYTES + 1)
        except OSError as error:
            raise Mistake(
                f"{path}: the policy cannot be read ({error.strerror or error}); without one nothing may run here"
            ) from error
        if len(data) > MAX_POLICY_BYTES:
            raise Mistake(f"{path}: is larger than {MAX_POLICY_BYTES:,} bytes, so it cannot be a policy")
        try:
            raw = tomllib.loads(data.decode())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise Mistake(f"{path}: is not TOML ({reason(error)})") from error
        try:
            return parse_policy(raw)
        except Mistake as mistake:
            raise Mistake(f"{path}: {mistake}") from mistake

    def judge(self, run: RunDescription) -> list[str]:
        """Return why a run may not begin here, a sentence for each line of the policy that it breaks; [] if it may.

        Whether a person has approved it is another question; see `coterie.silos.approvals`.
        """
        found = [
            *_names_problem("algorithms", self.algorithms, [run.algorithm]),
            *_names_problem("models", self.models, run.models),
            *_data_problem(self.data, run.data),
        ]
        if run.rounds > self.max_rounds:
            found.append(f"the run has {run.rounds:,} rounds, and max_rounds is {self.max_rounds:,}")
        too_long = self.message_problem(run.message_bytes)
        if too_long is not None:
            found.append(too_long)
        if self.max_epsilon is not None and run.epsilon is None:
            found.append(
                f"the run bounds no privacy loss, and max_epsilon is {self.max_epsilon:g}; its file must state epsilon "
                'in [privacy], or with unit = "client" noise_multiplier and delta'
            )
        elif self.max_epsilon is not None and run.epsilon is not None and not run.epsilon <= self.max_epsilon:
            found.append(f"the run's epsilon is {run.epsilon:g}, and max_epsilon is {self.max_epsilon:g}")
        return found

    def message_problem(self, nbytes: int) -> str | None:
        """Return why a message of this length may neither leave nor be read, or None."""
        if nbytes <= self.max_message_bytes:
            return None
        return f"a message has {nbytes:,} bytes, and max_message_bytes is {self.max_message_bytes:,}"


def parse_policy(raw: Mapping[str, Any]) -> Policy:
    """Return the policy in the content of a file.

    Raises:
        Mistake: a key is unknown or missing, or a value is of another kind.
    """
    for key, value in raw.items():
        if key not in _KEYS:
            near = nearest(key, _KEYS)
            hint = f"did you mean {near}?" if near else f"a policy takes {', '.join(_KEYS)}"
            raise Mistake(f"there is no such key; {hint}", key=key, value=value)
        is_right, allowed = _KEYS[key]
        if not is_right(value):
            raise Mistake(key=key, value=value, allowed=allowed)
    for key, (_, allowed) in _KEYS.items():
        if key not in raw and key not in _OPTIONAL:
            raise Mistake(f"{key} is missing; it must be {allowed}")
    if raw.get("approve_facts") and raw["approve"] == "never":
        raise Mistake(
            'a person approves facts, and approve = "never" asks nobody; set approve to "new runs" or "always"',
            key="approve_facts",
            value=True,
        )
    values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in raw.items()}
    return Policy(**values)


def _names_problem(key: str, allowed: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return a sentence for each name that is not allowed. "any" never allows code that must be brought along."""
    found = []
    for name in names:
        comes_with_us = ":" not in name or library_prefix(name) is not None
        if name not in allowed and not (ANY in allowed and comes_with_us):
            why = "which is code from outside and must be named" if ANY in allowed else _offer(allowed)
            found.append(f"the run needs {toml_text(name)}, {why} ({key})")
    return found


def _data_problem(allowed: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return a sentence for each name or digest of data that is not allowed."""
    return [
        f"the run reads {toml_text(name)}, {_offer(allowed)} (data)"
        for name in names
        if ANY not in allowed and name not in allowed
    ]


def _offer(allowed: Sequence[str]) -> str:
    return f"and the policy allows {few(allowed, 8)}" if allowed else "and the policy allows none"
