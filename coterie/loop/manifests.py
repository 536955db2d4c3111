"""The manifests of a checkpoint folder, and the copies of the run folder's small files that a checkpoint keeps.

Nothing here needs a tensor, so that a report can be made without PyTorch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coterie.core.digests import digest, unseal_json

_MANIFEST_NAME = re.compile(r"manifest-([0-9]{1,18})\.json")


@dataclass(frozen=True)
class KeptFiles:
    """What the newest undamaged checkpoint says about the run folder.

    Attributes:
        round: of the checkpoint.
        files: the content of files of the run folder, by name, at that time; empty in folders of earlier versions.
    """

    round: int
    files: Mapping[str, bytes] = field(default_factory=dict)


def manifest_path(folder: Path, round: int) -> Path:
    """Return the path of a round's manifest."""
    return folder / f"manifest-{round}.json"


def list_manifests(folder: Path) -> list[Path]:
    """Return the paths of the manifests in a folder, newest first."""
    found = [path for path in folder.glob("manifest-*.json") if _MANIFEST_NAME.fullmatch(path.name)]
    return sorted(found, key=round_of, reverse=True)


def round_of(manifest: Path) -> int:
    """Return the round in the name of a manifest."""
    match = _MANIFEST_NAME.fullmatch(manifest.name)
    assert match is not None, "the name is that of a manifest"
    return int(match[1])


def read_manifest(path: Path) -> dict[str, Any]:
    """Return the content of a manifest without its checksum.

    Raises:
        OSError, ValueError: it cannot be read, or is damaged.
    """
    return unseal_json(path.read_bytes())


def read_checked(folder: Path, entry: Mapping[str, Any]) -> bytes:
    """Return the content of a file of a checkpoint, after comparing its checksum with its entry in the manifest.

    Raises:
        OSError, ValueError: it cannot be read, or its checksum does not match.
    """
    data: bytes = (folder / str(entry["file"])).read_bytes()
    if digest(data) != entry["sha256"]:
        raise ValueError(f"the checksum of {entry['file']} does not match")
    return data


def pack_files(files: Mapping[str, bytes]) -> bytes:
    """Return small text files as one file."""
    return json.dumps({name: data.decode(errors="surrogateescape") for name, data in files.items()}).encode()


def read_kept_files(folder: Path) -> KeptFiles | None:
    """Return what the newest checkpoint keeps of the run folder; None where there is no undamaged checkpoint."""
    for path in list_manifests(folder):
        try:
            manifest = read_manifest(path)
            files = json.loads(read_checked(folder, manifest["files"])) if "files" in manifest else {}
            return KeptFiles(manifest["round"], {n: text.encode(errors="surrogateescape") for n, text in files.items()})
        except (OSError, ValueError, KeyError):
            continue
    return None
