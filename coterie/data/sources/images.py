"""The source images: a folder of pictures of the user's own."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge

from coterie.core.errors import Mistake
from coterie.core.examples import Examples
from coterie.core.packages import import_package
from coterie.data.argument_checks import require_count
from coterie.data.numpy_arrays import scale_pixels
from coterie.data.origins import note_files
from coterie.data.picture_pixels import fit_squares, stack_pixels
from coterie.data.regular_file import is_made_by_the_kernel, is_regular
from coterie.data.source import Source
from coterie.data.train_test_split import split_rows, strata_by_client

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm"})

# not Encapsulated PostScript and the like, for which pillow starts other programs
_FORMATS = ("PNG", "JPEG", "MPO", "BMP", "DIB", "GIF", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000")


def images(
    path: str | Path, test_fraction: float = 0.2, labels: bool = True, side: Annotated[int, Ge(1)] | None = None
) -> Source:
    """Load a folder of pictures, with a sub-folder for each class, or for each client and class.

        path/class/picture.png     or     path/client/class/picture.png

    All have one size, or `side` brings them to one; float32 [C, H, W] in [0, 1]: C = 1 if all are grey, else 3. Classes
    are the folders' names in sorted order; a client may lack some. A fixed test split is taken first, stratified by
    class and client. But folders called `train` and `test` in the place of clients are the split, and then there are no
    clients. Hidden files, and files without the suffix of a picture, are ignored.

    Args:
        path: the folder.
        test_fraction: what part of the pictures becomes the test set.
        labels: whether there is a folder for each class. If not, pictures lie in `path` itself, or in a folder for each
            client, and all are for training, by an algorithm that needs no labels.
        side: in pixels: of each picture the largest centred square is taken, and scaled to this side by the Lanczos
            filter. `coterie predict` does the same to new pictures.

    Raises:
        Mistake: pillow is not installed, there are no pictures, they lie at different depths or differ in size, one
            cannot be read, or a client's or class's folder is empty.
    """
    files, depth = find_pictures(Path(path), labels)
    pictures = open_pictures(files)
    pictures = pictures if side is None else fit_squares(pictures, require_count("side", side))
    x = scale_pixels(stack_pixels(pictures, "bring all pictures to one size, or to squares of one by the key side"))
    if not labels:
        groups = [f.parent.name for f in files] if depth == 2 else None
        return Source("images", Examples(x), None, None, groups=groups, side=side)
    names = sorted({f.parent.name for f in files})
    y = np.array([names.index(f.parent.name) for f in files], dtype=np.int64)
    ids = [f.parent.parent.name for f in files] if depth == 3 else None
    everything = Examples(x, torch.from_numpy(y))
    if ids is not None and {"train", "test"} <= set(ids):
        _require_no_others(Path(path), set(ids) - {"train", "test"})
        train, test = (np.flatnonzero(np.array(ids) == part) for part in ("train", "test"))
        ids = None
    else:
        train, test = split_rows(strata_by_client(y, ids, test_fraction), test_fraction)
    return Source(
        "images",
        everything.take(torch.from_numpy(train)),
        everything.take(torch.from_numpy(test)),
        len(names),
        groups=None if ids is None else [ids[i] for i in train],
        test_groups=None if ids is None else [ids[i] for i in test],
        label_names=names,
        side=side,
    )


def _require_no_others(path: Path, others: set[str]) -> None:
    """Refuse other folders next to train/ and test/."""
    if others:
        raise Mistake(
            f"the folders train and test are the split, so {min(others)} beside them cannot be a client; "
            "move it elsewhere or into one of them",
            key="path",
            value=path,
        )


def find_pictures(root: Path, labels: bool = True) -> tuple[list[Path], int]:
    """Return the pictures under `root`, sorted, and their depth, which must be the same for all.

    The depth is 2 (in class/) or 3 (in client/class/); without labels it is one less.

    Raises:
        Mistake: there are none, they lie at another depth or at two, or a folder is empty.
    """
    if not root.is_dir():
        raise Mistake("there is no such folder", key="path", value=root)
    relative = [f.relative_to(root) for f in list_pictures(root)]
    form = "in class/ or in client/class/" if labels else "in the folder itself or in client/"
    form = f"a picture belongs {form}, and all pictures in the same form"
    if not relative:
        raise Mistake(f"it holds no pictures; {form}", key="path", value=root)
    depth, right = len(relative[0].parts), (2, 3) if labels else (1, 2)
    for f in relative:
        if len(f.parts) not in right or len(f.parts) != depth:
            against = f" while {relative[0]} lies at another" if len(f.parts) in right else ""
            raise Mistake(f"{f} lies at depth {len(f.parts)}{against}; {form}", key="path", value=root)
    # otherwise a hospital whose pictures did not arrive would be missing from every result, unnoticed
    filled = {f.parts[0] for f in relative}
    for folder in sorted(f.name for f in root.iterdir() if f.is_dir() and not f.name.startswith(".")):
        if folder not in filled:
            raise Mistake(f"the folder {folder} holds no pictures; fill or remove it", key="path", value=root)
    return [root / f for f in relative], depth


def list_pictures(root: Path) -> list[Path]:
    """Return the pictures in a folder at any depth, in the order of their paths, without hidden ones.

    Links to folders are followed, since a hospital's pictures may lie on another disk. A link back to a folder above it
    is left out, and so are /proc and /sys.

    Raises:
        Mistake: a folder cannot be read or is reached in two ways, or a name is not text.
    """
    relative = sorted(f.relative_to(root) for f in _walk(root))
    return [root / f for f in relative]


def _walk(root: Path) -> Iterator[Path]:
    """Yield the pictures in a folder at any depth; refuse a folder that is reached in two ways, or cannot be read."""
    pending, visited = [root], dict[Path, Path]()  # where a folder really lies -> the path that led there
    while pending:
        folder = pending.pop()
        before = visited.setdefault(folder.resolve(), folder)
        if before != folder:
            raise Mistake(f"{folder}: is the same folder as {before}; remove the link, so that no picture counts twice")
        try:
            inside = [path for path in folder.iterdir() if not path.name.startswith(".")]
        except OSError as error:
            raise Mistake(f"{folder}: cannot be read ({error.strerror})") from error
        for path in inside:
            if path.is_dir():
                pending += [] if path.is_symlink() and _leads_back(path) else [path]
            elif path.suffix.lower() in PICTURE_SUFFIXES:
                _require_text(path)
                yield path


def _leads_back(link: Path) -> bool:
    """Return whether a link leads to a folder above it, or to what the kernel makes up."""
    real = link.resolve()
    return is_made_by_the_kernel(link) or any(f.resolve().is_relative_to(real) for f in link.absolute().parents)


def _require_text(file: Path) -> None:
    """Refuse a path with a name that is not text in UTF-8: it may name a class, and is written into tables."""
    try:
        str(file).encode()
    except UnicodeEncodeError as error:
        shown = str(file).encode(errors="surrogateescape").decode(errors="backslashreplace")
        raise Mistake(f"{shown}: its name is not text in UTF-8; rename it") from error


def open_pictures(files: list[Path]) -> Iterator[tuple[str, Any]]:
    """Yield (path, picture) for each file, read completely; refuse a damaged file."""
    pillow, operations = (import_package(name, "source", "images", "images") for name in ("PIL.Image", "PIL.ImageOps"))
    pillow.init()
    formats = [name for name in _FORMATS if name in pillow.OPEN]
    with warnings.catch_warnings():
        warnings.simplefilter("error", pillow.DecompressionBombWarning)
        for file in files:
            yield str(file), _open_picture(pillow, operations, file, formats)


def _open_picture(pillow: Any, operations: Any, file: Path, formats: Sequence[str]) -> Any:
    """Read a picture completely and turn it upright; refuse a damaged file, and one that holds several pictures."""
    if file.exists() and not is_regular(file):
        raise Mistake(f"{file}: is not a regular file, so it cannot be read as a picture; remove it")
    note_files([file])
    try:
        with pillow.open(file, formats=formats) as picture:
            several = getattr(picture, "is_animated", False) and picture.format != "MPO"  # a camera's, with a preview
            picture.load()
            upright = operations.exif_transpose(picture)  # as a viewer shows it
    except Exception as error:  # pillow's readers raise many things on damaged files
        why = " ".join(str(error).replace(repr(str(file)), "").replace(str(file), "").split())
        raise Mistake(f"{file}: cannot be read as a picture ({why}); replace or remove it") from error
    if several:
        raise Mistake(f"{file}: holds several pictures, as pages or an animation; give each a file of its own")
    return upright
