"""Classifiers of images and of text from Hugging Face's transformers: a folder that holds one, or a name on the Hub.

Weights are read from safetensors files alone, and code that comes with a model is never run. The package is imported
here and nowhere else, when it is used.

Legend: B batch, T tokens, C classes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor, nn

from coterie.core.errors import Mistake, reason
from coterie.core.files import write_atomic
from coterie.core.packages import package
from coterie.models import library_adapter
from coterie.models.model_parts import HEAD

PREFIX = "huggingface:"
MAIN = "main"
COMPANIONS = (
    "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt",
    "vocab.json", "merges.txt", "spiece.model", "sentencepiece.bpe.model", "added_tokens.json",
)  # fmt: skip
"""Files beside a model that say how its inputs are made."""


def model(
    checkpoint: str,
    in_shape: Sequence[int],
    num_classes: int,
    published: str | None = None,
    revision: str | None = None,
    pad_id: int | None = None,
    image_size: Annotated[int, Ge(1)] | None = None,
) -> nn.Module:
    """The classifier that a checkpoint's configuration describes, with C classes and initial weights of its own.

    Examples [channels, height, width] make it one of images, which takes one or three channels from 0 to 1 and resizes
    and normalises them itself; tokens [T] make it one of text.

    Args:
        checkpoint: a folder or a name on the Hub.
        in_shape: of an example.
        num_classes: C, the size of the output.
        published: a checkpoint has one set of weights: of no meaning here.
        revision: a commit or tag on the Hub, so that the model stays what it is.
        pad_id: the token that fills up short texts, which are looked at without it; the configuration's, unless given.
        image_size: pixels of a side to which images are resized; the configuration's, unless given.

    Raises:
        Mistake: transformers is not installed, the checkpoint cannot be had, or it is no such classifier.
    """
    key, where = f'model.name = "{PREFIX}{checkpoint}"', {"revision": revision or MAIN, "trust_remote_code": False}
    transformers, text = package("transformers", key, "huggingface"), len(in_shape) == 1
    kind = transformers.AutoModelForSequenceClassification if text else transformers.AutoModelForImageClassification
    options = {name: v for name, v in {"pad_token_id": pad_id, "image_size": image_size}.items() if v is not None}
    try:
        config = transformers.AutoConfig.from_pretrained(checkpoint, return_dict=True, **options, **where)
        config.num_labels = num_classes
        made = kind.from_config(config, trust_remote_code=False).float()
    except Exception as error:  # the package's own of many kinds, and those of a network
        what = "text" if text else "images"
        where_not = "" if Path(checkpoint).is_dir() else "there is no such folder, and on the Hub: "
        raise Mistake(f"{key}: cannot be made a classifier of {what} ({where_not}{reason(error)})") from error
    call = partial(_of_tokens, key) if text else _images(made, checkpoint, revision or MAIN, in_shape, image_size)
    about = {"checkpoint": checkpoint, "revision": revision or MAIN, HEAD: _head(made)}
    return library_adapter.adapted(made, call, **about)


def published(name: str, which: str, model: nn.Module) -> Mapping[str, Tensor]:
    """The checkpoint's weights, by the names that they have in the model's class; those that it lacks are left out.

    Args:
        name: of the checkpoint, as in `model`.
        which: "", since there is one set.
        model: made by `model`.

    Raises:
        Mistake: the checkpoint cannot be had, or has no safetensors file.
    """
    if which:
        raise Mistake(f'pretrain.weights = "published:{which}": a checkpoint of Hugging Face has no named weights')
    theirs: Any = library_adapter.original(model)
    options = {"use_safetensors": True, "trust_remote_code": False, "revision": model.revision}
    try:
        with _quiet():  # what is missing is said by whoever asks for the weights
            made, about = theirs.from_pretrained(name, output_loading_info=True, **options)
    except Exception as error:
        raise Mistake(
            f'pretrain.weights: "{PREFIX}{name}" cannot be read from a safetensors file ({reason(error)})'
        ) from error
    missing = set(about["missing_keys"])
    return {name: value for name, value in made.state_dict().items() if name not in missing}


def is_one(model: nn.Module) -> bool:
    """Whether the model was made here."""
    return hasattr(model, "checkpoint")


def export(model: nn.Module, weights: Mapping[str, Tensor], folder: Path) -> None:
    """Write a folder that `from_pretrained` of the model's original class takes: its configuration, the weights by the
    names that files of transformers have, and what the checkpoint says of how inputs are made.

    Args:
        model: made by `model`; its own weights do not matter.
        weights: by the names of its `state_dict`, as in a run's model.safetensors or one of its clients/.
        folder: where; its parent exists.

    Raises:
        OSError: it cannot be written.
    """
    theirs: Any = model
    with _quiet(), torch.random.fork_rng(devices=[]), TemporaryDirectory() as made:
        bare: Any = library_adapter.original(model)(theirs.config)
        bare.load_state_dict({name: value.cpu() for name, value in weights.items()})
        bare.save_pretrained(made)
        for name in COMPANIONS:
            file = _file(theirs.checkpoint, theirs.revision, name, local_files_only=True)
            if file is not None:
                write_atomic(folder / name, file.read_bytes())
        for file in sorted(Path(made).iterdir()):
            write_atomic(folder / file.name, file.read_bytes())


def _of_tokens(key: str, forward: Any, self: nn.Module, x: Tensor) -> Tensor:
    """Logits [B, C] of tokens [B, T]; where the pad token stands, nothing is."""
    if x.is_floating_point():
        raise Mistake(f"{key}: it takes tokens, whole numbers, but the examples are {x.dtype}")
    pad: int | None = self.config.pad_token_id  # type: ignore[union-attr, assignment]
    options = {} if pad is None else {"attention_mask": (x != pad).long()}
    logits: Tensor = forward(input_ids=x, **options).logits
    return logits


def _images(
    model: Any, checkpoint: str, revision: str, in_shape: Sequence[int], image_size: int | None
) -> library_adapter.Call:
    """The forward of a model of images, which keeps by what its checkpoint normalised them."""
    library_adapter.colours(f"{PREFIX}{checkpoint}", in_shape)
    about = _processor(checkpoint, revision)
    normal = about.get("do_normalize", True)
    library_adapter.remember_pixels(model, about.get("image_mean") if normal else None, about.get("image_std"))
    side = image_size or getattr(model.config, "image_size", None)
    size = (side, side) if isinstance(side, int) else tuple(side) if side else None

    def call(forward: Any, self: nn.Module, x: Tensor) -> Tensor:
        logits: Tensor = forward(pixel_values=library_adapter.pixels(self, x, size)).logits
        return logits

    return call


def _processor(checkpoint: str, revision: str) -> dict[str, Any]:
    """preprocessor_config.json, or nothing where the checkpoint has none."""
    file = _file(checkpoint, revision, "preprocessor_config.json")
    found: dict[str, Any] = json.loads(file.read_bytes()) if file else {}
    return found


def _file(checkpoint: str, revision: str, name: str, **options: Any) -> Path | None:
    """A file of a checkpoint; None where it has none of that name."""
    hub = package("transformers.utils", PREFIX, "huggingface")
    quietly = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    found = hub.cached_file(checkpoint, name, revision=revision, **quietly, **options)
    return None if found is None else Path(found)


def _head(model: Any) -> frozenset[str]:
    """What is not of the encoder, and its pooler, which not every checkpoint has."""
    inside = f"{model.base_model_prefix}."
    names = [name for name, _ in model.named_parameters()]
    return frozenset(name for name in names if not name.startswith(inside) or ".pooler." in name)


@contextmanager
def _quiet() -> Iterator[None]:
    """A block in which the package shows no progress and gives no warning."""
    log = package("transformers.utils.logging", PREFIX, "huggingface")
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()
