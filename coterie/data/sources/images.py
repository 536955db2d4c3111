"""A folder of pictures of the user's own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from coterie.core.errors import Mistake
from coterie.core.examples import Examples
from coterie.core.packages import import_package
from coterie.data.arrays import images as scaled
from coterie.data.pictures import pixels
from coterie.data.source import Source
from coterie.data.split import by_client, fixed_split

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm"})


def images(path: str | Path, test_fraction: float = 0.2, labels: bool = True) -> Source:
    """The pictures under the folder `path`, which are in a sub-folder for each class, or for each client and class.

        path/class/picture.png     or     path/client/class/picture.png

    All are of one size, float32 [C, H, W] in [0, 1]: C = 1 if all are grey, else 3. Classes are the folders' names in
    sorted order; a client may lack some. A fixed test split is taken first, stratified by class and client; but where
    `train` and `test` stand for two clients, they are the split, and there are no clients. Files that are no pictures
    by their ending, and hidden ones, are passed over.

    Args:
        path: the folder.
        test_fraction: what part of the pictures becomes the test set.
        labels: whether there is a folder for each class. Without, pictures lie in `path` itself, or in one for each
            client, and an algorithm that needs no labels learns from all of them.

    Raises:
        Mistake: pillow is not installed, there are no pictures, they lie at different depths or differ in size, one
            cannot be read, or a client's or class's folder holds none.
    """
    files, depth = find(Path(path), labels)
    if not labels:
        x = scaled(pixels(opened(files)))
        return Source("images", Examples(x), None, None, groups=[f.parent.name for f in files] if depth == 2 else None)
    names = sorted({f.parent.name for f in files})
    y = np.array([names.index(f.parent.name) for f in files], dtype=np.int64)
    ids = [f.parent.parent.name for f in files] if depth == 3 else None
    everything = Examples(scaled(pixels(opened(files))), torch.from_numpy(y))
    if ids is not None and {"train", "test"} <= set(ids):
        _nothing_beside(path, set(ids) - {"train", "test"})
        train, test = (np.flatnonzero(np.array(ids) == part) for part in ("train", "test"))
        ids = None
    else:
        train, test = fixed_split(by_client(y, ids, test_fraction), test_fraction)
    return Source(
        "images",
        everything.take(torch.from_numpy(train)),
        everything.take(torch.from_numpy(test)),
        len(names),
        groups=None if ids is None else [ids[i] for i in train],
        test_groups=None if ids is None else [ids[i] for i in test],
        label_names=names,
    )


def _nothing_beside(path: str | Path, others: set[str]) -> None:
    """Beside folders called train and test there is no client's.

    Raises:
        Mistake: there is one.
    """
    if others:
        raise Mistake(
            f"the folders train and test are the split, so {min(others)} beside them cannot be a client; "
            "move it elsewhere or into one of them",
            key="path",
            value=Path(path),
        )


def find(root: Path, labels: bool = True) -> tuple[list[Path], int]:
    """The pictures under `root`, sorted, and at what depth they lie: 2 (class) or 3 (client and class); without labels
    one less.

    Raises:
        Mistake: there are none, they lie elsewhere, or a folder beside theirs holds none.
    """
    if not root.is_dir():
        raise Mistake("there is no such folder", key="path", value=root)
    relative = [f.relative_to(root) for f in below(root)]
    form = "in class/ or in client/class/" if labels else "in the folder itself or in client/"
    form = f"a picture belongs {form}, and all of them alike"
    if not relative:
        raise Mistake(f"it holds no pictures; {form}", key="path", value=root)
    depth, right = len(relative[0].parts), (2, 3) if labels else (1, 2)
    for f in relative:
        if len(f.parts) not in right or len(f.parts) != depth:
            against = f" while {relative[0]} lies elsewhere" if len(f.parts) in right else ""
            raise Mistake(f"{f} lies at depth {len(f.parts)}{against}; {form}", key="path", value=root)
    # a hospital whose pictures did not arrive would be missing from every result, unseen
    held = {f.parts[0] for f in relative}
    for folder in sorted(f.name for f in root.iterdir() if f.is_dir() and not f.name.startswith(".")):
        if folder not in held:
            raise Mistake(f"the folder {folder} holds no pictures; fill or remove it", key="path", value=root)
    return [root / f for f in relative], depth


def below(root: Path) -> list[Path]:
    """The pictures in a folder at any depth, in the order of their paths; hidden ones are passed over."""
    # links are followed: a hospital's pictures may lie on another disk
    found = [Path(folder, name) for folder, _, names in os.walk(root, followlinks=True) for name in names]
    relative = sorted(f.relative_to(root) for f in found if f.suffix.lower() in SUFFIXES)
    return [root / f for f in relative if not any(part.startswith(".") for part in f.parts)]


def opened(files: list[Path]) -> Iterator[tuple[str, Any]]:
    """Each picture, read whole, and what messages call it."""
    pillow, operations = (import_package(name, "source", "images", "images") for name in ("PIL.Image", "PIL.ImageOps"))
    for file in files:
        yield str(file), _open(pillow, operations, file)


def _open(pillow: Any, operations: Any, file: Path) -> Any:
    try:
        with pillow.open(file) as picture:
            picture.load()
            return operations.exif_transpose(picture)  # upright, as a viewer shows it
    except Exception as error:  # pillow's readers raise many things on damaged files
        why = " ".join(str(error).replace(repr(str(file)), "").replace(str(file), "").split())
        raise Mistake(f"{file}: cannot be read as a picture ({why}); replace or remove it") from error
