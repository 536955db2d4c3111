"""What a model of text has to know of the data: what it predicts, and which tokens fill up and end a text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from coterie.core.errors import Mistake
from coterie.data.source import Source
from coterie.experiment.settings import Settings, model_names
from coterie.models.libraries import is_checkpoint
from coterie.objectives.kinds import Kind


def fill_in_text(settings: Settings, source: Source, kind: Kind | None) -> Settings:
    """Return the settings with the keys of a checkpoint of transformers that follow from the data.

    Args:
        settings: what to run.
        source: the data.
        kind: of the task; None where there are no labels.

    Raises:
        Mistake: the file has others than the data's tokenizer.
    """
    table, text = settings.model, source.text
    if not ("head" in table and is_checkpoint(table.get("name") or "")):
        return settings
    found: dict[str, Any] = {}
    if text is not None:
        found = {"pad_id": text.tokenizer.pad, "end_id": text.tokenizer.end}
        found["head"] = "causal_lm" if text.next_token else "sequence_classification"
    elif kind is not None and kind.name == "sequence":
        found = {"head": "token_classification"}
    for key, value in found.items():
        given = table[key]
        if given is not None and given != value and not (key == "head" and text is None):
            what = "the data have" if key == "head" else "the data's tokenizer has"
            raise Mistake(f"{what} {value}; leave it out", key=key, value=given, table="model")
    return replace(settings, model=table | {k: v for k, v in found.items() if table[k] is None})


def check_vocabulary(settings: Settings, source: Source, models: Mapping[str, nn.Module]) -> None:
    """Refuse checkpoints of transformers that know fewer tokens, or fewer positions, than the data's texts may have.

    Raises:
        Mistake: one does. Tokens or positions would have no embedding, also of texts that come later.
    """
    if source.text is None:
        return
    size, length = source.text.tokenizer.size, source.text.max_length
    for name in model_names(settings):
        config = getattr(models[name], "config", None) if is_checkpoint(name) else None
        about = None if config is None else config.get_text_config()
        known, positions = (getattr(about, each, None) for each in ("vocab_size", "max_position_embeddings"))
        if known is not None and known < size:
            sentence = (
                f"it knows {known:,} tokens, but the data's tokenizer gives {size:,}; take the model's own tokenizer"
            )
            raise Mistake(sentence, key="name", value=name, table="model")
        if positions is not None and positions < length:
            sentence = f"{name} has {positions:,} positions; give at most as many"
            raise Mistake(sentence, key="max_length", value=length, table="data")
