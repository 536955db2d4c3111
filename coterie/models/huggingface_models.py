"""Use models of Hugging Face's transformers, from a folder or by a name on the Hub: classifiers, and decoders of text.

Weights are read only from safetensors files, and code that comes with a model is never run. The package is imported
only here, when it is used.

Legend: B batch, T tokens, C classes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from coterie.core.errors import Mistake, reason
from coterie.core.files import write_atomic
from coterie.core.kinds import Count
from coterie.core.packages import import_package
from coterie.models import library_adapter
from coterie.models.huggingface_text import AUTO_CLASSES, Head, causal_call, require_causal, token_call
from coterie.models.libraries import HUGGINGFACE
from coterie.models.model_parts import HEAD
from coterie.models.usable_model import CLASS_AXIS

MAIN = "main"
"""The Hub's name for the newest revision."""
_OF_IMAGES = "AutoModelForImageClassification"
_WORDS: dict[Head | None, str] = {
    "causal_lm": "a causal language model",
    "token_classification": "a classifier of tokens",
}
COMPANIONS = (
    "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt",
    "vocab.json", "merges.txt", "spiece.model", "sentencepiece.bpe.model", "added_tokens.json",
)  # fmt: skip
"""Files beside a model that say how its inputs are prepared."""


def huggingface_model(
    checkpoint: str,
    in_shape: Sequence[int],
    num_classes: int,
    published: str | None = None,
    revision: str | None = None,
    pad_id: int | None = None,
    image_size: Count | None = None,
    head: Head | None = None,
    end_id: int | None = None,
    attend_across_documents: bool = True,
) -> nn.Module:
    """Return the model that a checkpoint's configuration describes, with C classes and its own initial weights.

    With examples [channels, height, width] it classifies images: it takes one or three channels from 0 to 1, and
    resizes and normalises them itself. With tokens [T] it classifies text, or what else `head` says.

    Args:
        checkpoint: a folder or a name on the Hub.
        in_shape: the shape of one example.
        num_classes: C, the size of the output.
        published: ignored, since a checkpoint has one set of weights.
        revision: a commit or tag on the Hub, so that the model stays the same.
        pad_id: the token that fills up short texts and is masked; the configuration's unless given.
        image_size: the side in pixels to which images are resized; the configuration's unless given.
        head: what a model of text predicts, a class of it unless given; see `coterie.models.huggingface_text`.
        end_id: the token that begins each of several documents in one example of a causal language model.
        attend_across_documents: whether its tokens see the documents before their own. If not, `end_id` is needed.

    Raises:
        Mistake: transformers is not installed, the checkpoint cannot be fetched, or it cannot be such a classifier.
    """
    name, where = f"{HUGGINGFACE}{checkpoint}", {"revision": revision or MAIN, "trust_remote_code": False}
    transformers, text = import_package("transformers", "name", "huggingface", name), len(in_shape) == 1
    causal = head == "causal_lm"
    if head is not None and not text:
        raise Mistake("it is for text, but the examples are images; leave it out", key="head", value=head)
    apart = _require_end(end_id, head, attend_across_documents)
    kind = getattr(transformers, AUTO_CLASSES[head or "sequence_classification"] if text else _OF_IMAGES)
    given = {"pad_token_id": pad_id, "image_size": image_size}
    options = {key: value for key, value in given.items() if value is not None}
    try:
        config = transformers.AutoConfig.from_pretrained(checkpoint, return_dict=True, **options, **where)
        if not causal:
            config.num_labels = num_classes
        how = {"attn_implementation": "eager"} if causal else {}  # the others' branches on a mask cannot be batched
        with _silence():
            new = kind.from_config(config, trust_remote_code=False, **how).float()
    except Exception as error:  # the package's own of many kinds, and those of a network
        what = _WORDS.get(head, "a classifier of text" if text else "a classifier of images")
        looked = "" if Path(checkpoint).is_dir() else "there is no such folder, and on the Hub: "
        sentence = f"it cannot be made {what} ({looked}{reason(error)})"
        raise Mistake(sentence, key="name", value=name) from error
    about: dict[str, Any] = {
        "checkpoint": checkpoint,
        "revision": revision or MAIN,
        HEAD: frozenset() if causal else _head_names(new),
    }
    if not text:
        call = _image_call(new, checkpoint, revision or MAIN, in_shape, image_size)
        return library_adapter.adapt(new, call, **about)
    if head is not None and head != "sequence_classification":
        about[CLASS_AXIS] = -1
    if not causal:
        return library_adapter.adapt(new, token_call(name), **about)
    if config.vocab_size < num_classes:
        sentence = f"it knows {config.vocab_size:,} tokens, but the data have {num_classes:,}; take its own tokenizer"
        raise Mistake(sentence, key="name", value=name)
    model = library_adapter.adapt(new, causal_call(name, apart), **about)
    require_causal(model, name, apart)
    return model


def _require_end(end_id: int | None, head: Head | None, attend_across_documents: bool) -> int | None:
    """Return the token that keeps documents apart, or None where they are not kept apart.

    Raises:
        Mistake: there is no such token, or no documents.
    """
    if attend_across_documents:
        return None
    if head != "causal_lm" or end_id is None:
        sentence = 'it is for `head` = "causal_lm" with an `end_id`, which data with a tokenizer give; leave it out'
        raise Mistake(sentence, key="attend_across_documents", value=False)
    return end_id


def huggingface_weights(checkpoint: str, published: str, model: nn.Module) -> Mapping[str, Tensor]:
    """Return a checkpoint's weights, by their names in the model's class, without those that the checkpoint lacks.

    Args:
        checkpoint: a folder or a name on the Hub.
        published: "", since a checkpoint has one set of weights.
        model: the model that will take them, made by `huggingface_model`.

    Raises:
        Mistake: the checkpoint cannot be fetched, or has no safetensors file.
    """
    if published:
        raise Mistake("a checkpoint of Hugging Face has no named weights", key="published", value=published)
    own_class: Any = library_adapter.original_class(model)
    options = {"use_safetensors": True, "trust_remote_code": False, "revision": model.revision}
    try:
        with _silence():  # the caller reports what is missing
            loaded, about = own_class.from_pretrained(checkpoint, output_loading_info=True, **options)
    except Exception as error:
        sentence = f"its weights cannot be read from a safetensors file ({reason(error)})"
        raise Mistake(sentence, key="name", value=f"{HUGGINGFACE}{checkpoint}") from error
    missing = set(about["missing_keys"])
    return {name: value for name, value in loaded.state_dict().items() if name not in missing}


def is_huggingface_model(model: nn.Module) -> bool:
    """Return whether the model was made by `huggingface_model`."""
    return hasattr(model, "checkpoint")


def export_checkpoint(model: nn.Module, weights: Mapping[str, Tensor], folder: Path) -> None:
    """Write a folder that `from_pretrained` of the model's original class takes.

    It holds the configuration, the weights by the names that files of transformers have, and the checkpoint's files on
    how inputs are prepared.

    Args:
        model: made by `huggingface_model`; its own weights do not matter.
        weights: by the names of its `state_dict`, as in a run's model.safetensors or one of its clients/.
        folder: the folder; its parent exists.

    Raises:
        OSError: it cannot be written.
    """
    adapted: Any = model
    with _silence(), torch.random.fork_rng(devices=[]), TemporaryDirectory() as temporary:
        original: Any = library_adapter.original_class(model)(adapted.config)
        original.load_state_dict({name: value.cpu() for name, value in weights.items()})
        original.save_pretrained(temporary)
        for name in COMPANIONS:
            file = _checkpoint_file(adapted.checkpoint, adapted.revision, name, local_files_only=True)
            if file is not None:
                write_atomic(folder / name, file.read_bytes())
        for file in sorted(Path(temporary).iterdir()):
            write_atomic(folder / file.name, file.read_bytes())


def _image_call(
    model: Any, checkpoint: str, revision: str, in_shape: Sequence[int], image_size: int | None
) -> library_adapter.Call:
    """Return the forward of a model of images; store in the model how its checkpoint normalised them."""
    library_adapter.require_one_or_three_channels(f"{HUGGINGFACE}{checkpoint}", in_shape)
    about = _preprocessor(checkpoint, revision)
    normal = about.get("do_normalize", True)
    library_adapter.remember_normalisation(model, about.get("image_mean") if normal else None, about.get("image_std"))
    side = image_size or getattr(model.config, "image_size", None)
    size = (side, side) if isinstance(side, int) else tuple(side) if side else None

    def image_logits(forward: Any, self: nn.Module, x: Tensor) -> Tensor:
        """Return the logits of images x, resized and normalised first."""
        logits: Tensor = forward(pixel_values=library_adapter.prepare_images(self, x, size)).logits
        return logits

    return image_logits


def _preprocessor(checkpoint: str, revision: str) -> dict[str, Any]:
    """Return the content of preprocessor_config.json; empty where the checkpoint has none."""
    file = _checkpoint_file(checkpoint, revision, "preprocessor_config.json")
    content: dict[str, Any] = json.loads(file.read_bytes()) if file else {}
    return content


def _checkpoint_file(checkpoint: str, revision: str, name: str, **options: Any) -> Path | None:
    """Return the path of a checkpoint's file, fetched if it is on the Hub; None if there is none of that name."""
    hub = import_package("transformers.utils", HUGGINGFACE, "huggingface")
    lenient = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    path = hub.cached_file(checkpoint, name, revision=revision, **lenient, **options)
    return None if path is None else Path(path)


def _head_names(model: Any) -> frozenset[str]:
    """Return the names of all parameters except the encoder's; its pooler counts, since not every checkpoint has it."""
    inside = f"{model.base_model_prefix}."
    names = [name for name, _ in model.named_parameters()]
    return frozenset(name for name in names if not name.startswith(inside) or ".pooler." in name)


@contextmanager
def _silence() -> Iterator[None]:
    """Keep the package from showing progress and warnings in a block."""
    log = import_package("transformers.utils.logging", HUGGINGFACE, "huggingface")
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()
