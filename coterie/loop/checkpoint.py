"""Checkpoints: the server's state and every client's, committed together by one manifest.

    manifest-12.json                 round, seconds so far, and name and SHA-256 of each file below; written last, by a
    rename state-12.safetensors             S after round 12
    clients/4f1c...-9.safetensors    C_i of one client, after round 9, the last it took part in

A file is named by its content's round and never written into again, so a process killed at any instant leaves the
newest complete checkpoint as it was. The last two are kept: should what is only one's be damaged on the disk, the other
serves. They share the files of clients that did not take part between them, which are written once.

In a team, each member writes and reads the states of the clients it owns, in one folder that all of them see; the
first member writes the rest. A team of another size may resume.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from coterie.core.errors import Mistake
from coterie.core.files import remove_unfinished, write_atomic
from coterie.core.packing import pack, unpack
from coterie.core.tree import Tree
from coterie.loop.plan import Resume, Round
from coterie.loop.store import Store
from coterie.processes.team import ALONE, Team, owns

KEPT = 2


class Checkpoints:
    """The checkpoints of one run, in one folder.

    Attributes:
        damaged: after `load`, a sentence for each checkpoint that could not be used.
    """

    def __init__(self, folder: Path, team: Team = ALONE) -> None:
        self.folder, self.team = folder, team
        self.damaged: list[str] = []
        self._clients: dict[str, dict[str, Any]] = {}  # as in the last manifest
        self._saved = 0
        self._unusable: set[Path] = set()

    def save(self, round: Round | Resume) -> None:
        """Commit the state after `round`. Only clients that changed since the last checkpoint are written. Collective.

        Raises:
            OSError: the disk is full or the folder cannot be written; the checkpoints that were there remain.
        """
        clients = self._clients | self._agreed(lambda: self._put_clients(round.store))
        self._agreed(lambda: self._commit(round, clients) if self.team.rank == 0 else {})
        self._clients, self._saved = clients, round.round

    def _put_clients(self, store: Store) -> dict[str, dict[str, Any]]:
        """Write this member's clients that changed."""
        written = {}
        for client, made, state in store.since(self._saved):
            name = hashlib.blake2b(client.encode(), digest_size=16).hexdigest()
            written[client] = {"round": made, **self._put(f"clients/{name}-{made}.safetensors", state)}
        return written

    def _agreed(self, write: Callable[[], dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
        """What all members wrote. Collective.

        Raises:
            OSError: one of them could not.
        """
        written: dict[str, dict[str, Any]] = {}
        failed: OSError | None = None
        try:
            written = write()
        except OSError as error:
            failed = error
        everyones = self.team.gather((written, failed))
        for failure in [failed, *(theirs for _, theirs in everyones)]:
            if failure is not None:
                raise failure
        return {client: entry for part, _ in everyones for client, entry in part.items()}

    def _commit(self, round: Round | Resume, clients: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        body = {
            "round": round.round,
            "elapsed": round.elapsed,
            "state": self._put(f"state-{round.round}.safetensors", round.state),
            "clients": clients,
        }
        manifest = {"sha256": _digest(_canonical(body)), **body}
        write_atomic(self._manifest(round.round), json.dumps(manifest, indent=1).encode())
        self._unusable.discard(self._manifest(round.round))
        self._forget(round.round)
        return {}

    def load(self) -> Resume | None:
        """The newest checkpoint that is whole, or None where there is none. Collective.

        Raises:
            Mistake: there are checkpoints, and all of them are damaged.
        """
        self.damaged = []
        for path in self.team.gather(self._manifests())[0]:
            found: Resume | None = None
            problem = ""
            try:
                found = self._read(path)
            except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
                problem = f"{path} is damaged ({error})"
            problems = [p for p in self.team.gather(problem) if p]
            if not problems:
                return found
            self.damaged.append(problems[0])
            self._unusable.add(path)
        self._clients, self._saved = {}, 0
        if self.damaged:
            raise Mistake(
                f"no checkpoint in {self.folder} can be read: {'; '.join(self.damaged)}; start again in a new folder"
            )
        return None

    def _read(self, path: Path) -> Resume:
        manifest = _manifest_at(path)
        state = unpack(self._get(manifest["state"]))
        store = Store()
        for client, entry in manifest["clients"].items():
            if not owns(self.team, client):
                continue
            self._get(entry)  # a damaged file must be found now, while there is another checkpoint to turn to
            store.defer(client, entry["round"], self._loader(entry))
        self._clients, self._saved = manifest["clients"], manifest["round"]
        return Resume(manifest["round"], state, store, manifest["elapsed"])

    def _loader(self, entry: dict[str, Any]) -> Callable[[], Tree]:
        return partial(lambda e: unpack(self._get(e)), entry)

    def _put(self, name: str, state: Tree) -> dict[str, str]:
        data = pack(state)
        write_atomic(self.folder / name, data)
        return {"file": name, "sha256": _digest(data)}

    def _get(self, entry: dict[str, Any]) -> bytes:
        data: bytes = (self.folder / str(entry["file"])).read_bytes()
        if _digest(data) != entry["sha256"]:
            raise ValueError(f"the checksum of {entry['file']} does not match")
        return data

    def _manifest(self, round: int) -> Path:
        return self.folder / f"manifest-{round}.json"

    def _manifests(self) -> list[Path]:
        """Newest first."""
        found = [path for path in self.folder.glob("manifest-*.json") if _number(path).isdigit()]
        return sorted(found, key=lambda path: int(_number(path)), reverse=True)

    def _forget(self, newest: int) -> None:
        """Remove what the last whole checkpoints do not name: older and damaged ones, those of rounds that are run
        again, and what killed processes left half written.
        """
        kept: set[str] = set()
        whole = 0
        for path in self._manifests():
            files = self._named_by(path) if whole < KEPT and int(_number(path)) <= newest else None
            if files is None:
                path.unlink()
            else:
                kept |= files
                whole += 1
        remove_unfinished(self.folder)
        for pattern in ("state-*.safetensors", "clients/*.safetensors"):
            for path in self.folder.glob(pattern):
                if path.relative_to(self.folder).as_posix() not in kept:
                    path.unlink()

    def _named_by(self, path: Path) -> set[str] | None:
        """The files of a checkpoint, or None if it is known to be damaged."""
        try:
            manifest = _manifest_at(path)
        except (OSError, ValueError):
            return None
        files = {entry["file"] for entry in (manifest["state"], *manifest["clients"].values())}
        return None if path in self._unusable else files


def _number(manifest: Path) -> str:
    return manifest.stem.removeprefix("manifest-")


def _manifest_at(path: Path) -> dict[str, Any]:
    """A manifest without its checksum.

    Raises:
        ValueError: it is not what was written.
    """
    body = json.loads(path.read_bytes())
    manifest: dict[str, Any] = body if isinstance(body, dict) else {}
    stated = manifest.pop("sha256", None)
    if stated != _digest(_canonical(manifest)):
        raise ValueError("its checksum does not match")
    return manifest


def _canonical(body: dict[str, Any]) -> bytes:
    return json.dumps(body, sort_keys=True).encode()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
