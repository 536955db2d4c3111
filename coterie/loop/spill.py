"""What is kept for long, in memory up to a budget and on the disk beyond it."""

from __future__ import annotations

import tempfile
import weakref
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path

from coterie.core import tree
from coterie.core.errors import Mistake
from coterie.core.machine import memory_bytes
from coterie.core.packing import pack, unpack
from coterie.core.tree import Tree


class Held:
    """One tree: in memory, or where `load` finds it."""

    __slots__ = ("__weakref__", "content", "load", "on_disk")

    def __init__(self, content: Tree | None, load: Callable[[], Tree] | None = None) -> None:
        self.content, self.load, self.on_disk = content, load, False


class Memory:
    """Held trees, of which the least lately used are written to a temporary folder when all together exceed a budget.
    What nobody refers to any more is forgotten, its file included.

    Attributes:
        budget: in bytes; an eighth of the machine's memory unless given.
    """

    def __init__(self, budget: int | None = None) -> None:
        self.budget = memory_bytes() // 8 if budget is None else budget
        self._present: OrderedDict[int, tuple[weakref.ref[Held], int]] = OrderedDict()  # by when it was last used
        self._bytes = 0
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._numbers = count()

    def hold(self, content: Tree) -> Held:
        """Keep a tree.

        Raises:
            Mistake: others cannot be written to make room for it.
        """
        held = Held(content)
        self._enter(held, content)
        return held

    def get(self, held: Held) -> Tree:
        """The tree, read from the disk if it is there; not to be written into.

        Raises:
            OSError: it cannot be read.
            Mistake: others cannot be written to make room for it.
        """
        if held.content is not None:
            if id(held) in self._present:
                self._present.move_to_end(id(held))
            return held.content
        assert held.load is not None
        held.content = content = held.load()
        self._enter(held, content)
        return content

    def _enter(self, held: Held, content: Tree) -> None:
        size = tree.nbytes(content)
        self._present[id(held)] = weakref.ref(held), size
        self._bytes += size
        weakref.finalize(held, self._leave, id(held))
        while self._bytes > self.budget and len(self._present) > 1:
            self._to_disk(next(iter(self._present)))

    def _leave(self, number: int) -> None:
        _, size = self._present.pop(number, (None, 0))
        self._bytes -= size

    def _to_disk(self, number: int) -> None:
        held = self._present[number][0]()
        assert held is not None, "what is gone has left"
        assert held.content is not None
        if not held.on_disk:
            path = self._written(pack(held.content))
            weakref.finalize(held, path.unlink, missing_ok=True)
            held.load, held.on_disk = partial(_read, path), True
        held.content = None
        self._leave(number)

    def _written(self, data: bytes) -> Path:
        try:
            if self._folder is None:
                self._folder = tempfile.TemporaryDirectory(prefix="coterie-")
            path = Path(self._folder.name) / f"{next(self._numbers)}.safetensors"
            path.write_bytes(data)
        except OSError as error:
            raise Mistake(
                "what clients keep does not fit into memory, nor into the folder for temporary files "
                f"({error.strerror or error}); name one that has more room in TMPDIR and continue with --resume"
            ) from error
        return path


LEAST = 2**26
"""Bytes of a budget, in any case."""
SOON = 100
"""Rounds. What comes back within so many is worth its memory."""


def budget(population: int, cohort: int, processes: int = 1) -> int:
    """Bytes of memory for the states of a population of which each round asks a cohort: an eighth of the machine's,
    shared by the processes of a run. A client comes back after population / cohort rounds on average; where that is
    long, its state would only lie there, and the share is smaller by as much.
    """
    share = memory_bytes() // 8 // processes
    return max(min(share, share * SOON * cohort // population), LEAST)


def _read(path: Path) -> Tree:
    return unpack(path.read_bytes())
