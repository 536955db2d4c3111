"""Checkpoints: the server's state and every client's, committed together by one manifest.

    manifest-12.json                 round, seconds so far, and the name and SHA-256 of each file below
    state-12.safetensors             S after round 12
    clients/4f1c...-9.safetensors    C_i of one client after round 9, the last round that it took part in

The manifest is written last, by a rename. A file is named after its content's round and never written into again. So a
process that is killed at any instant leaves the newest complete checkpoint unchanged. The last two checkpoints are
kept: if a file of one is damaged on the disk, the other serves. They share the files of clients that did not take part
between them.

With several processes, each writes and reads the states of the clients that it owns, in one folder that all of them
see. The first process writes the rest. Another number of processes may resume.
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

CHECKPOINTS_KEPT = 2


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
        """Commit the state after `round`. Only clients that changed since the last checkpoint are written.

        Collective: every process calls it.

        Raises:
            OSError: the disk is full or the folder cannot be written; earlier checkpoints remain.
        """
        clients = self._clients | self._write_everywhere(lambda: self._put_clients(round.store))
        self._write_everywhere(lambda: self._commit(round, clients) if self.team.rank == 0 else {})
        self._clients, self._saved = clients, round.round

    def _put_clients(self, store: Store) -> dict[str, dict[str, Any]]:
        """Write the changed clients that this process owns; return their entries in the manifest."""
        entries = {}
        for client, made, state in store.since(self._saved):
            name = hashlib.blake2b(client.encode(), digest_size=16).hexdigest()
            entries[client] = {"round": made, **self._write_file(f"clients/{name}-{made}.safetensors", state)}
        return entries

    def _write_everywhere(self, write: Callable[[], dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
        """Let each process write its part; return the entries of all. Collective: every process calls it.

        Raises:
            OSError: one of them could not write.
        """
        entries: dict[str, dict[str, Any]] = {}
        own_failure: OSError | None = None
        try:
            entries = write()
        except OSError as error:
            own_failure = error
        by_rank = self.team.gather((entries, own_failure))
        for failure in [own_failure, *(failure for _, failure in by_rank)]:
            if failure is not None:
                raise failure
        return {client: entry for part, _ in by_rank for client, entry in part.items()}

    def _commit(self, round: Round | Resume, clients: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Write the server's state and the manifest, and remove old checkpoints."""
        body = {
            "round": round.round,
            "elapsed": round.elapsed,
            "state": self._write_file(f"state-{round.round}.safetensors", round.state),
            "clients": clients,
        }
        manifest = {"sha256": _digest(_canonical_json(body)), **body}
        write_atomic(self._manifest_path(round.round), json.dumps(manifest, indent=1).encode())
        self._unusable.discard(self._manifest_path(round.round))
        self._remove_old(round.round)
        return {}

    def load(self) -> Resume | None:
        """Return the newest complete checkpoint, or None if there is none. Collective: every process calls it.

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
        """Read the checkpoint of a manifest. Client states are checked now, and read when they are needed."""
        manifest = _read_manifest(path)
        state = unpack(self._read_file(manifest["state"]))
        store = Store()
        for client, entry in manifest["clients"].items():
            if not owns(self.team, client):
                continue
            self._read_file(entry)  # find a damaged file now, while another checkpoint can be used
            store.defer(client, entry["round"], self._state_reader(entry))
        self._clients, self._saved = manifest["clients"], manifest["round"]
        return Resume(manifest["round"], state, store, manifest["elapsed"])

    def _state_reader(self, entry: dict[str, Any]) -> Callable[[], Tree]:
        """Return a function that reads a client's state from its file."""
        return partial(lambda e: unpack(self._read_file(e)), entry)

    def _write_file(self, name: str, state: Tree) -> dict[str, str]:
        """Write a tree into a file; return its entry in the manifest."""
        data = pack(state)
        write_atomic(self.folder / name, data)
        return {"file": name, "sha256": _digest(data)}

    def _read_file(self, entry: dict[str, Any]) -> bytes:
        """Return the content of a file, after comparing its checksum with the manifest."""
        data: bytes = (self.folder / str(entry["file"])).read_bytes()
        if _digest(data) != entry["sha256"]:
            raise ValueError(f"the checksum of {entry['file']} does not match")
        return data

    def _manifest_path(self, round: int) -> Path:
        return self.folder / f"manifest-{round}.json"

    def _manifests(self) -> list[Path]:
        """Return the manifests, newest first."""
        found = [path for path in self.folder.glob("manifest-*.json") if _round_of(path).isdigit()]
        return sorted(found, key=lambda path: int(_round_of(path)), reverse=True)

    def _remove_old(self, newest: int) -> None:
        """Remove everything except the last complete checkpoints.

        This removes older and damaged ones, those of rounds that are run again, and unfinished files of killed
        processes.
        """
        keep: set[str] = set()
        complete = 0
        for path in self._manifests():
            files = self._files_of(path) if complete < CHECKPOINTS_KEPT and int(_round_of(path)) <= newest else None
            if files is None:
                path.unlink()
            else:
                keep |= files
                complete += 1
        remove_unfinished(self.folder)
        for pattern in ("state-*.safetensors", "clients/*.safetensors"):
            for path in self.folder.glob(pattern):
                if path.relative_to(self.folder).as_posix() not in keep:
                    path.unlink()

    def _files_of(self, path: Path) -> set[str] | None:
        """Return the names of a checkpoint's files, or None if it is known to be damaged."""
        try:
            manifest = _read_manifest(path)
        except (OSError, ValueError):
            return None
        files = {entry["file"] for entry in (manifest["state"], *manifest["clients"].values())}
        return None if path in self._unusable else files


def _round_of(manifest: Path) -> str:
    """Return the round in the name of a manifest, as text."""
    return manifest.stem.removeprefix("manifest-")


def _read_manifest(path: Path) -> dict[str, Any]:
    """Read a manifest; return it without its checksum.

    Raises:
        ValueError: it is damaged.
    """
    body = json.loads(path.read_bytes())
    manifest: dict[str, Any] = body if isinstance(body, dict) else {}
    stated = manifest.pop("sha256", None)
    if stated != _digest(_canonical_json(manifest)):
        raise ValueError("its checksum does not match")
    return manifest


def _canonical_json(body: dict[str, Any]) -> bytes:
    return json.dumps(body, sort_keys=True).encode()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
