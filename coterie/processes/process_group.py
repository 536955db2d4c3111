"""A team over `torch.distributed`: every process runs the same program, with any engine.

There are two ways to start one. `torchrun`, or another launcher that sets RANK, WORLD_SIZE, MASTER_ADDR and
MASTER_PORT, starts the processes on one machine or many, and `join_team` makes a team of them.
`coterie.processes.spawn` starts them itself, on this machine.

Tensors on a host travel by gloo, those on a GPU by NCCL.
"""

from __future__ import annotations

import json
import os
import pickle
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from coterie.core.errors import Mistake
from coterie.processes.launcher import launcher_rank, launcher_size
from coterie.processes.lost import Lost
from coterie.processes.team import ALONE, Team

T = TypeVar("T")

TIMEOUT = timedelta(minutes=30)
"""How long a process waits for one that lives but does not answer. One that has ended is noticed at once."""

NOTE_BYTES = 2**13
"""Longest value that all processes exchange at once, without agreeing on its length first."""


@dataclass(frozen=True)
class Group:
    """The team of a process group of `torch.distributed`: of the default one, unless another is given."""

    rank: int
    size: int
    group: dist.ProcessGroup | None = None

    def gather(self, value: T) -> list[T]:
        """Return every process's value, by rank, in one exchange, or in three if a value is long; see `Team.gather`.

        Collective: every process calls it.
        """
        data = pickle.dumps(value)
        notes = self._gather_notes(len(data).to_bytes(8, "little") + data[:NOTE_BYTES])
        if any(int.from_bytes(note[:8], "little") > NOTE_BYTES for note in notes):
            whole = torch.frombuffer(bytearray(data), dtype=torch.uint8)
            notes = [bytes(8) + bytes(part.numpy()) for part in self.exchange([whole] * self.size)]
        return [pickle.loads(note[8:]) for note in notes]  # noqa: S301 - our own

    def _gather_notes(self, note: bytes) -> list[bytes]:
        """Return every process's note, padded with zeros. Collective: every process calls it."""
        own = torch.frombuffer(bytearray(note.ljust(8 + NOTE_BYTES, b"\0")), dtype=torch.uint8)
        by_rank = [torch.empty_like(own) for _ in range(self.size)]
        with self._raise_lost():
            dist.all_gather(by_rank, own, group=self.group)
        return [bytes(each.numpy()) for each in by_rank]

    def sum(self, x: Tensor) -> Tensor:
        """Return the sum of every process's x; see `Team.sum`. Collective: every process calls it."""
        total = x.clone(memory_format=torch.contiguous_format)
        with self._raise_lost():
            dist.all_reduce(total, group=self.group)
        return total

    def exchange(self, parcels: Sequence[Tensor]) -> list[Tensor]:
        """Send `parcels[r]` to process r; return what this one received; see `Team.exchange`.

        Collective: every process calls it.
        """
        lengths = torch.tensor([len(parcel) for parcel in parcels])
        received_lengths = torch.empty_like(lengths)
        with self._raise_lost():
            dist.all_to_all_single(received_lengths, lengths, group=self.group)
            incoming = received_lengths.tolist()
            received = parcels[0].new_empty(sum(incoming))
            dist.all_to_all_single(received, torch.cat(list(parcels)), incoming, lengths.tolist(), group=self.group)
        return list(torch.split(received, incoming))

    def second_channel(self) -> Group:
        """Return the same processes over a process group of their own, for tensors on the host.

        Collective: every process calls it; see `Team.second_channel`.
        """
        with self._raise_lost():
            group = dist.new_group(backend="gloo", timeout=TIMEOUT)
        return Group(self.rank, self.size, group)

    @contextmanager
    def _raise_lost(self) -> Iterator[None]:
        """Turn errors of torch.distributed into `Lost`."""
        try:
            yield
        except RuntimeError as error:  # gloo's own, and those of torch.distributed
            raise Lost(
                f"another of this run's {self.size} processes has ended, so process {self.rank} cannot go on"
            ) from error


@contextmanager
def join_team() -> Iterator[Team]:
    """Join the team for which a launcher started this process; without a launcher, a team of one.

    Raises:
        Lost, Mistake: as `process_group`.
    """
    size = launcher_size()
    if size is None or size == 1:
        yield ALONE
        return
    with process_group(launcher_rank(), size, int(os.environ.get("LOCAL_RANK", "0"))) as team:
        yield team


@contextmanager
def process_group(rank: int, size: int, local_rank: int, meeting: Path | None = None) -> Iterator[Team]:
    """Join a process group for the length of the block. The process computes with one thread, on the GPU of its number.

    Args:
        rank: this process's number among all of them. local_rank: among those on this machine.
        size: how many processes there are.
        meeting: a file that does not exist yet, through which the processes find one another. By default they meet at
            the address in the environment.

    Raises:
        Lost: another process has failed in its block; the sentence says how, if that is known.
        Mistake: another process has raised one.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two processes of one thread are faster than one of two, and do not disturb each other
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank % torch.cuda.device_count())
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    store = _launcher_store() if meeting is None else next(rendezvous(meeting.as_uri(), rank, size, timeout=TIMEOUT))[0]
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    words = PrefixStore("last words", store)
    try:
        yield Group(rank, size)
    except Lost as lost:
        raise _read_last_words(words, size) or lost from lost
    except Exception as error:
        _leave_last_words(words, rank, error)
        raise
    finally:
        dist.destroy_process_group()
        torch.set_num_threads(threads)


def _launcher_store() -> Store:
    """Return the store through which the processes of a launcher find one another.

    torchrun may keep one store for all of its attempts. Without a name of its own, an attempt would then read the
    addresses of processes that have ended.
    """
    store, _, _ = next(rendezvous("env://", timeout=TIMEOUT))
    is_shared = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return PrefixStore(f"attempt {os.environ['TORCHELASTIC_RESTART_COUNT']}", store) if is_shared else store


def _leave_last_words(words: Store, rank: int, error: Exception) -> None:
    """Write down what went wrong in this process, before the others notice that it has ended."""
    is_mistake = isinstance(error, Mistake)
    text = str(error) if is_mistake else "".join(traceback.format_exception(error)).rstrip()
    words.set(str(rank), json.dumps([is_mistake, text]))


def _read_last_words(words: Store, size: int) -> Exception | None:
    """Return the error that the first of the failed processes has written down, or None."""
    for rank in range(size):
        try:
            text = words.get(str(rank)) if words.check([str(rank)]) else None
        except RuntimeError:  # the process that kept the words has ended too
            return None
        if text is not None:
            is_mistake, sentence = json.loads(text)
            where = f"process {rank} of this run" if rank else ""
            if is_mistake:
                return Mistake(f"{where}: {sentence}" if where else sentence)
            return Lost(f"{where} failed:\n{sentence}\n")
    return None
