"""A team of processes over `torch.distributed`: each runs the same program, and every engine works inside it.

Two ways to start one. `torchrun` (or whatever else sets RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, on one machine
or many) starts the processes, and `joined` makes a team of them. `together` starts them itself, on this machine.

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
from coterie.processes.team import ALONE, Lost, Team

T = TypeVar("T")

PATIENCE = timedelta(minutes=30)
"""How long a member waits for one that lives but does not answer. One that died is noticed at once."""

SHORT = 2**13
"""Bytes of a value that all members say at once, without asking for its length first."""


@dataclass(frozen=True)
class Group:
    """The team of the default process group of `torch.distributed`."""

    rank: int
    size: int

    def gather(self, value: T) -> list[T]:
        """See `coterie.processes.team.Team.gather`. One exchange, and two more where a value is long."""
        data = pickle.dumps(value)
        found = self._notes(len(data).to_bytes(8, "little") + data[:SHORT])
        if any(int.from_bytes(note[:8], "little") > SHORT for note in found):
            whole = torch.frombuffer(bytearray(data), dtype=torch.uint8)
            found = [bytes(8) + bytes(theirs.numpy()) for theirs in self.exchange([whole] * self.size)]
        return [pickle.loads(note[8:]) for note in found]  # noqa: S301 - our own

    def _notes(self, note: bytes) -> list[bytes]:
        """Everyone's, which end in zeros."""
        mine = torch.frombuffer(bytearray(note.ljust(8 + SHORT, b"\0")), dtype=torch.uint8)
        theirs = [torch.empty_like(mine) for _ in range(self.size)]
        with self._reaching():
            dist.all_gather(theirs, mine)
        return [bytes(each.numpy()) for each in theirs]

    def sum(self, x: Tensor) -> Tensor:
        """See `coterie.processes.team.Team.sum`."""
        total = x.clone(memory_format=torch.contiguous_format)
        with self._reaching():
            dist.all_reduce(total)
        return total

    def exchange(self, parcels: Sequence[Tensor]) -> list[Tensor]:
        """See `coterie.processes.team.Team.exchange`."""
        lengths = torch.tensor([len(parcel) for parcel in parcels])
        theirs = torch.empty_like(lengths)
        with self._reaching():
            dist.all_to_all_single(theirs, lengths)
            incoming = theirs.tolist()
            received = parcels[0].new_empty(sum(incoming))
            dist.all_to_all_single(received, torch.cat(list(parcels)), incoming, lengths.tolist())
        return list(torch.split(received, incoming))

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # gloo's own, and those of torch.distributed
            raise Lost(
                f"another of this run's {self.size} processes has ended, so process {self.rank} cannot go on"
            ) from error


def launcher_size() -> int | None:
    """How many processes a launcher such as torchrun has started for this run; None where there is no launcher.

    >>> launcher_size()
    """
    return int(os.environ["WORLD_SIZE"]) if {"RANK", "WORLD_SIZE"} <= os.environ.keys() else None


def launcher_rank() -> int:
    """This process's number among those that a launcher has started; 0 where there is no launcher.

    >>> launcher_rank()
    0
    """
    return 0 if launcher_size() is None else int(os.environ["RANK"])


@contextmanager
def join_team() -> Iterator[Team]:
    """The team that `torchrun` started this process for; a team of one where nothing did.

    Raises:
        Lost, Mistake: as `grouped`.
    """
    size = launcher_size()
    if size is None or size == 1:
        yield ALONE
        return
    with process_group(launcher_rank(), size, int(os.environ.get("LOCAL_RANK", "0"))) as team:
        yield team


@contextmanager
def process_group(rank: int, size: int, local_rank: int, meeting: Path | None = None) -> Iterator[Team]:
    """A process group, for as long as the block lasts. A member computes with one thread, and on the GPU of its number.

    Args:
        rank: this process's number among all of them. local_rank: among those on this machine.
        size: how many there are.
        meeting: a file, not there yet, by which they find one another; by default they meet at the address that the
            environment names.

    Raises:
        Lost: another member has failed in its block; the sentence says how, where that is known.
        Mistake: another member has met one.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two processes of one thread are faster than one of two, and do not disturb each other
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank % torch.cuda.device_count())
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    store = _launchers() if meeting is None else next(rendezvous(meeting.as_uri(), rank, size, timeout=PATIENCE))[0]
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
    words = PrefixStore("last words", store)
    try:
        yield Group(rank, size)
    except Lost as lost:
        raise _heard(words, size) or lost from lost
    except Exception as error:
        _leave(words, rank, error)
        raise
    finally:
        dist.destroy_process_group()
        torch.set_num_threads(threads)


def _launchers() -> Store:
    """Where the processes of a launcher find one another.

    torchrun may keep one store for all of its attempts. Without a name of its own, an attempt would then take the
    addresses of processes that have died for its own.
    """
    store, _, _ = next(rendezvous("env://", timeout=PATIENCE))
    kept = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return PrefixStore(f"attempt {os.environ['TORCHELASTIC_RESTART_COUNT']}", store) if kept else store


def _leave(words: Store, rank: int, error: Exception) -> None:
    """Leave the others word of what went wrong here, before they notice that this process is gone."""
    mistake = isinstance(error, Mistake)
    said = str(error) if mistake else "".join(traceback.format_exception(error)).rstrip()
    words.set(str(rank), json.dumps([mistake, said]))


def _heard(words: Store, size: int) -> Exception | None:
    """What the first of the others that left word said, as what is to be raised here."""
    for rank in range(size):
        try:
            left = words.get(str(rank)) if words.check([str(rank)]) else None
        except RuntimeError:  # whoever kept the words is gone too
            return None
        if left is not None:
            mistake, said = json.loads(left)
            where = f"process {rank} of this run" if rank else ""
            return Mistake(f"{where}: {said}" if where else said) if mistake else Lost(f"{where} failed:\n{said}\n")
    return None
