"""A message between a coordinator and a silo: one line of JSON, then packed trees.

    {"version": 1, "kind": "work", "run": ..., "round": 3, ..., "parts": [1024, 2048]}\\n
    1024 bytes of safetensors
    2048 bytes of safetensors

Nothing is unpickled. The length is judged before anything is read, and the line before the parts. A message that cannot
be used raises `Unusable`, which holds the reason and never reaches the loop over the rounds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from coterie.core import tree
from coterie.core.errors import reason
from coterie.core.packing import unpack
from coterie.core.printable import printable
from coterie.core.tree import Tree
from coterie.loop.check_update import broken_leaf

VERSION = 1
"""Of this form of messages. Another one is refused: both ends must have a version of coterie that speaks the same."""

MAX_BYTES = 2**30
"""The longest message that is read where nobody says how long an honest one is."""
MAX_LINE_BYTES = 2**22
"""The longest line of JSON."""
MAX_REASON_LENGTH = 300
"""Of what another party gives as a reason."""


class Unusable(ValueError):
    """A message that is left out; the text is the reason in a few words, and can be printed."""

    def __init__(self, why: str) -> None:
        super().__init__(printable(why[:MAX_REASON_LENGTH]))


class Message(NamedTuple):
    """What is in a message.

    Attributes:
        fields: the line of JSON.
        parts: the packed trees.
    """

    fields: Mapping[str, Any]
    parts: Sequence[bytes]

    def text(self, name: str) -> str:
        """Return a field that must be a text.

        Raises:
            Unusable: it is missing, or something else.
        """
        value = self.fields.get(name)
        if not isinstance(value, str):
            raise Unusable(f"has no text under {name}")
        return value

    def whole(self, name: str, least: int, most: int) -> int:
        """Return a field that must be a whole number from `least` to `most`.

        Raises:
            Unusable: it is missing, or something else.
        """
        return whole_number(self.fields.get(name), name, least, most)

    def tree(self, k: int) -> Tree:
        """Return the tree of a part; its leaves are on the host.

        Raises:
            Unusable: the part is missing, or cannot be read.
        """
        if k >= len(self.parts):
            raise Unusable(f"has {len(self.parts)} parts, and {k + 1} are needed")
        try:
            return unpack(self.parts[k])
        except Exception as error:  # another party's bytes: they may break anything
            raise Unusable(f"cannot be read ({reason(error)})") from error


def write_message(fields: Mapping[str, Any], parts: Sequence[bytes] = ()) -> bytes:
    """Return a message as bytes.

    >>> read_message(write_message({"kind": "ping"}, [b"abc"]))
    Message(fields={'version': 1, 'kind': 'ping'}, parts=[b'abc'])
    """
    return b"".join([write_line(fields, parts), *parts])


def write_line(fields: Mapping[str, Any], parts: Sequence[bytes]) -> bytes:
    """Return the line that comes before the parts of a message, with its end."""
    return json.dumps({"version": VERSION, **fields, "parts": [len(part) for part in parts]}).encode() + b"\n"


class Requests(Mapping[str, bytes]):
    """Messages to several receivers that share their parts, which are in memory once.

    A message is made when it is looked up, so a carrier that sends one after another needs the memory of one.

    Args:
        fields: receiver -> its fields.
        parts: of all messages.

    >>> messages = Requests({"north": {"kind": "ping"}, "south": {"kind": "ping"}}, [b"abc"])
    >>> messages["south"] == write_message({"kind": "ping"}, [b"abc"])
    True
    """

    def __init__(self, fields: Mapping[str, Mapping[str, Any]], parts: Sequence[bytes] = ()) -> None:
        self._lines = {receiver: write_line(own, parts) for receiver, own in fields.items()}
        self._parts = parts

    def __getitem__(self, receiver: str) -> bytes:
        return b"".join([self._lines[receiver], *self._parts])

    def __iter__(self) -> Iterator[str]:
        return iter(self._lines)

    def __len__(self) -> int:
        return len(self._lines)


def read_message(data: bytes, max_bytes: int = MAX_BYTES) -> Message:
    """Return what is in a message.

    Raises:
        Unusable: it is too long, it is of another version, or its form is wrong.
    """
    if len(data) > max_bytes:
        raise Unusable(f"has {len(data)} bytes, and an honest message {max_bytes} at most")
    end = data.find(b"\n", 0, MAX_LINE_BYTES)
    if end < 0:
        raise Unusable("has no first line")
    try:
        fields = json.loads(data[:end])
    except (ValueError, RecursionError) as error:
        raise Unusable(f"cannot be read ({reason(error)})") from error
    if not isinstance(fields, dict):
        raise Unusable("begins with something else than an object")
    version = fields.get("version")
    if version != VERSION:
        raise Unusable(f"is of version {str(version)[:20]} and not {VERSION}: install the same coterie at both ends")
    sizes = fields.pop("parts", None)
    if not isinstance(sizes, list) or not all(type(size) is int and size >= 0 for size in sizes):
        raise Unusable("does not say how long its parts are")
    if end + 1 + sum(sizes) != len(data):
        raise Unusable("is not as long as it says")
    parts, at = [], end + 1
    for size in sizes:
        parts.append(data[at : at + size])
        at += size
    return Message(fields, parts)


def whole_number(value: Any, name: str, least: int, most: int) -> int:
    """Return a value that must be a whole number from `least` to `most`.

    Raises:
        Unusable: it is something else.
    """
    if type(value) is not int or not least <= value <= most:
        raise Unusable(f"has no whole number from {least} to {most} under {name}")
    return value


def real_number(value: Any, name: str, finite: bool = True) -> float:
    """Return a value that must be a number.

    Raises:
        Unusable: it is something else, or not finite where it must be.
    """
    if type(value) not in (int, float):
        raise Unusable(f"has no number under {name}")
    try:
        number = float(value)
    except OverflowError as error:
        raise Unusable(f"has a number under {name} that is too large") from error
    if finite and not math.isfinite(number):
        raise Unusable(f"has a number under {name} that is not finite")
    return number


def form_problem(given: Tree, honest: Tree) -> str | None:
    """Return in a few words how a tree differs from the form of an honest one, or None.

    Names, shapes and types must be those of `honest`, and every number finite, unless it stands in `honest` too. A leaf
    that is empty there may have any shape and type: it stands for a table that the rounds fill.
    """
    leaves, expected = dict(tree.items(given)), dict(tree.items(honest))
    if leaves.keys() != expected.keys():
        differing = sorted(map(tree.pointer, leaves.keys() ^ expected.keys()))
        return f"leaves differ from the model's: {', '.join(differing[:3])}"
    for path, leaf in leaves.items():
        model = expected[path]
        if model.numel() and (leaf.shape, leaf.dtype) != (model.shape, model.dtype):
            shapes = f"{leaf.dtype} {list(leaf.shape)}, not {model.dtype} {list(model.shape)}"
            return f"{tree.pointer(path)} is {shapes}"
    broken = broken_leaf(given, honest)
    return None if broken is None else f"{broken} holds numbers that are not finite"
