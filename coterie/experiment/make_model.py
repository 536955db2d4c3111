"""Make the model that a [model] table describes, for a run or a pre-training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from coterie.core.errors import Mistake
from coterie.experiment.settings import Settings
from coterie.experiment.starting_weights import mistakes_about_models, weights_tag
from coterie.experiment.tables import (
    ADAPTER,
    ADAPTER_OPTIONS,
    MODEL_CHOICES,
    model_function_keys,
    normalisation_keys,
    output_keys,
)
from coterie.models import registry
from coterie.models.libraries import library_prefix
from coterie.models.normalisation import Normalisation, convert_normalisation
from coterie.models.outputs import take_output


def make_model(
    table: Mapping[str, Any],
    name: str,
    shape: Sequence[int],
    num_classes: int | None,
    rng_seed: int,
    folders: Sequence[Path],
) -> nn.Module:
    """Return the model called `name` with its initial weights, made with the keys of [model]. Adapters come later.

    Args:
        table: the keys of [model]; None stands for one that was left out.
        name: which model, of those that the table names.
        shape: of one example.
        num_classes, rng_seed: see `coterie.models.registry.build`.
        folders: where a module of the user's own is looked for before the usual places.

    Raises:
        Mistake: the model cannot be made so.
    """
    own = model_function_keys(name, folders)
    later = {ADAPTER, *ADAPTER_OPTIONS} - own.keys() if not own.open else set()  # see `coterie.experiment.adapters`
    given = {k: value for k, value in table.items() if value is not None and k not in {*MODEL_CHOICES, *later}}
    converting = normalisation_keys(own)
    how = {key: given.pop(key) for key in converting if key in given}
    entry = next((given.pop(key) for key in output_keys(own) if key in given), None)
    with mistakes_about_models():
        model = registry.build(name, list(shape), num_classes, rng_seed, folders=folders, **given)
        model = _convert(model, **how)
    if entry is not None:
        take_output(model, entry)
    return model


def make_run_model(settings: Settings, name: str, shape: Sequence[int], num_classes: int | None) -> nn.Module:
    """Return one of the models that a run's settings name, with its initial weights; see `make_model`."""
    theirs = {"published": weights_tag(settings.pretrain, name)} if library_prefix(name) else {}
    return make_model(settings.model | theirs, name, shape, num_classes, settings.rng_seed, settings.folders)


def _convert(model: nn.Module, normalisation: Normalisation = "batch", groups: int | None = None) -> nn.Module:
    if groups is not None and normalisation != "group":
        raise Mistake('it belongs to `normalisation` = "group"; leave it out', key="groups", value=groups)
    return model if normalisation == "batch" else convert_normalisation(model, normalisation, groups or 2)
