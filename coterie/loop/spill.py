"""Trees that are kept for long: in memory up to a budget, and on the disk beyond it."""

from __future__ import annotations

import tempfile
import threading
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


class StoredTree:
    """One tree: in memory, or where `load` reads it."""

    __slots__ = ("__weakref__", "content", "load", "on_disk")

    def __init__(self, content: Tree | None, load: Callable[[], Tree] | None = None) -> None:
        self.content, self.load, self.on_disk = content, load, False


class Memory:
    """Memory for trees. Beyond a budget, the least recently used ones are written to a temporary folder.

    A tree that nothing refers to any more is removed, and so is its file. Several threads may use it: a checkpoint
    reads the states of one round while the next one goes on.

    Attributes:
        budget: in bytes; an eighth of the machine's memory unless given.
    """

    def __init__(self, budget: int | None = None) -> None:
        self.budget = memory_bytes() // 8 if budget is None else budget
        # (tree, bytes) by id, the least recently used first
        self._present: OrderedDict[int, tuple[weakref.ref[StoredTree], int]] = OrderedDict()
        self._bytes = 0
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._numbers = count()
        self._lock = threading.RLock()  # a tree can be removed in the middle of any call of the same thread

    def hold(self, content: Tree) -> StoredTree:
        """Keep a tree.

        Raises:
            Mistake: there is no room for it, on the disk either.
        """
        stored = StoredTree(content)
        with self._lock:
            self._enter(stored, content)
        return stored

    def get(self, stored: StoredTree) -> Tree:
        """Return the tree, read from the disk if it is there. Never write into it.

        Raises:
            OSError: it cannot be read.
            Mistake: there is no room for it, on the disk either.
        """
        with self._lock:
            if stored.content is not None:
                if id(stored) in self._present:
                    self._present.move_to_end(id(stored))
                return stored.content
            assert stored.load is not None
            stored.content = content = stored.load()
            self._enter(stored, content)
            return content

    def _enter(self, stored: StoredTree, content: Tree) -> None:
        """Count a tree as in memory, and move others to the disk beyond the budget."""
        size = tree.nbytes(content)
        self._present[id(stored)] = weakref.ref(stored), size
        self._bytes += size
        weakref.finalize(stored, self._leave, id(stored))
        while self._bytes > self.budget and len(self._present) > 1:
            self._to_disk(next(iter(self._present)))

    def _leave(self, number: int) -> None:
        """Count a tree as no longer in memory."""
        with self._lock:
            _, size = self._present.pop(number, (None, 0))
            self._bytes -= size

    def _to_disk(self, number: int) -> None:
        """Free the memory of a tree, after writing it to the disk if it is not there."""
        stored = self._present[number][0]()
        assert stored is not None, "a tree that is gone has left"
        assert stored.content is not None
        if not stored.on_disk:
            path = self._write(pack(stored.content))
            weakref.finalize(stored, path.unlink, missing_ok=True)
            stored.load, stored.on_disk = partial(_read, path), True
        stored.content = None
        self._leave(number)

    def _write(self, data: bytes) -> Path:
        """Write bytes into a new file of the temporary folder."""
        try:
            if self._folder is None:
                self._folder = tempfile.TemporaryDirectory(prefix="coterie-")
            path = Path(self._folder.name) / f"{next(self._numbers)}.safetensors"
            path.write_bytes(data)
        except OSError as error:
            raise Mistake(
                "the clients' states do not fit into memory, nor into the folder for temporary files "
                f"({error.strerror or error}); name one that has more room in TMPDIR and continue with --resume"
            ) from error
        return path


MIN_BUDGET_BYTES = 2**26
SOON_ROUNDS = 100
"""A state that is used again within this many rounds is worth its memory."""


def budget_bytes(population: int, cohort: int, processes: int = 1) -> int:
    """Return the bytes of memory for clients' states, given how many clients there are and how many a round asks.

    It is an eighth of the machine's memory, shared by the processes of a run. A client comes back after population /
    cohort rounds on average. If that is long, its state would lie unused, so the budget is smaller in proportion.
    """
    share = memory_bytes() // 8 // processes
    return max(min(share, share * SOON_ROUNDS * cohort // population), MIN_BUDGET_BYTES)


def _read(path: Path) -> Tree:
    return unpack(path.read_bytes())
