"""Checkpoints: the server's state and every client's, committed together by one manifest.

    manifest-12.json                 round, seconds so far, and the name and SHA-256 of each file below
    state-12.safetensors             S after round 12
    clients/4f1c...-9.safetensors    C_i of one client after round 9, the last round that it took part in
    files-12.json                    copies of small files of the run folder, such as its records, to mend it with

The manifest is written last, by a rename. A file is named after its content's round and never written into again. So a
process that is killed at any instant leaves the newest complete checkpoint unchanged. The last two checkpoints are
kept: if a file of one is damaged on the disk, the other serves. They share the files of clients that did not take part
between them.

With several processes, each writes and reads the states of the clients that it owns, in one folder that all of them
see. The first process writes the rest. Another number of processes may resume.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from coterie.core.digests import digest, seal_json
from coterie.core.errors import Mistake
from coterie.core.files import remove_unfinished, write_atomic
from coterie.core.packing import pack, unpack
from coterie.core.tree import Tree
from coterie.loop.manifests import list_manifests, manifest_path, pack_files, read_checked, read_manifest, round_of
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

    def save(self, round: Round | Resume, files: Mapping[str, bytes] | None = None) -> None:
        """Commit the state after `round`. Only clients that changed since the last checkpoint are written.

        Collective: every process calls it.

        Args:
            round: the state.
            files: small text files of the run folder, by name, of which the first process keeps copies.

        Raises:
            OSError: the disk is full or the folder cannot be written; earlier checkpoints remain.
        """
        clients = self._clients | self._write_everywhere(lambda: self._put_clients(round.store))
        self._write_everywhere(lambda: self._commit(round, clients, files or {}) if self.team.rank == 0 else {})
        self._clients, self._saved = clients, round.round

    def _put_clients(self, store: Store) -> dict[str, dict[str, Any]]:
        """Write the changed clients that this process owns; return their entries in the manifest."""
        entries = {}
        for client, made, state in store.since(self._saved):
            name = hashlib.blake2b(client.encode(), digest_size=16).hexdigest()
            entries[client] = {"round": made, **self._write_file(f"clients/{name}-{made}.safetensors", pack(state))}
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

    def _commit(
        self, round: Round | Resume, clients: dict[str, dict[str, Any]], files: Mapping[str, bytes]
    ) -> dict[str, dict[str, Any]]:
        """Write the server's state, the copies and the manifest, and remove old checkpoints."""
        body = {
            "round": round.round,
            "elapsed": round.elapsed,
            "state": self._write_file(f"state-{round.round}.safetensors", pack(round.state)),
            "clients": clients,
        }
        if files:
            body["files"] = self._write_file(f"files-{round.round}.json", pack_files(files))
        path = manifest_path(self.folder, round.round)
        write_atomic(path, seal_json(body))
        self._unusable.discard(path)
        self._remove_old(round.round)
        return {}

    def load(self) -> Resume | None:
        """Return the newest complete checkpoint, or None if there is none. Collective: every process calls it.

        Raises:
            Mistake: there are checkpoints, and all of them are damaged.
        """
        self.damaged = []
        for path in self.team.gather(list_manifests(self.folder))[0]:
            found: Resume | None = None
            problem = ""
            try:
                found = self._read(path)
            except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
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
        manifest = read_manifest(path)
        state = unpack(read_checked(self.folder, manifest["state"]))
        store = Store(in_use=bool(manifest["clients"]))
        for client, entry in manifest["clients"].items():
            if not owns(self.team, client):
                continue
            read_checked(self.folder, entry)  # find a damaged file now, while another checkpoint can be used
            store.defer(client, entry["round"], self._state_reader(entry))
        self._clients, self._saved = manifest["clients"], manifest["round"]
        return Resume(manifest["round"], state, store, manifest["elapsed"])

    def _state_reader(self, entry: dict[str, Any]) -> Callable[[], Tree]:
        """Return a function that reads a client's state from its file."""
        return partial(lambda e: unpack(read_checked(self.folder, e)), entry)

    def _write_file(self, name: str, data: bytes) -> dict[str, str]:
        """Write a file; return its entry in the manifest."""
        write_atomic(self.folder / name, data)
        return {"file": name, "sha256": digest(data)}

    def _remove_old(self, newest: int) -> None:
        """Remove everything except the last complete checkpoints.

        This removes older and damaged ones, those of rounds that are run again, and unfinished files of killed
        processes.
        """
        keep: set[str] = set()
        complete = 0
        for path in list_manifests(self.folder):
            files = self._files_of(path) if complete < CHECKPOINTS_KEPT and round_of(path) <= newest else None
            if files is None:
                path.unlink()
            else:
                keep |= files
                complete += 1
        remove_unfinished(self.folder)
        for pattern in ("state-*.safetensors", "files-*.json", "clients/*.safetensors"):
            for path in self.folder.glob(pattern):
                if path.relative_to(self.folder).as_posix() not in keep:
                    path.unlink()

    def _files_of(self, path: Path) -> set[str] | None:
        """Return the names of a checkpoint's files, or None if it is known to be damaged."""
        try:
            manifest = read_manifest(path)
            own = [manifest[name] for name in ("state", "files") if name in manifest]
            files = {entry["file"] for entry in (*own, *manifest["clients"].values())}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return None if path in self._unusable else files
