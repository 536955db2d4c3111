"""The adapters of a run's models, as [model] asks for them; see `coterie.models.lora`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import nn

from coterie.core.errors import Mistake, mistakes_in
from coterie.experiment.settings import Settings
from coterie.experiment.tables import ADAPTER
from coterie.models.adapter_files import Adapter, read_adapter
from coterie.models.lora import add_adapters, find_adapters


def has_adapters(settings: Settings) -> bool:
    """Return whether a run trains adapters."""
    return settings.model.get(ADAPTER) == "lora" and "adapter_weights" in settings.model


def add_run_adapters(settings: Settings, models: Mapping[str, nn.Module], has_begun: bool) -> None:
    """Give a run's model adapters, in place; nothing where the settings ask for none.

    Args:
        settings: of the run.
        models: by name.
        has_begun: the run has begun, so its adapters are not read from a folder of `peft` again.

    Raises:
        Mistake: they do not fit the model.
    """
    if not has_adapters(settings):
        return
    table, (model,) = settings.model, models.values()
    with mistakes_in("model"):
        found = None if has_begun or table["adapter_weights"] is None else read_adapter(Path(table["adapter_weights"]))
        given = {key: table[key] for key in ("rank", "alpha", "targets")}
        options = given if found is None else _options_of(found, given)
        add_adapters(model, **options, aggregate=table["aggregate"], rng_seed=settings.rng_seed)
        if found is not None:
            found.load_into(model)


def _options_of(adapter: Adapter, given: Mapping[str, object]) -> dict[str, object]:
    """Return rank, alpha and targets of an adapter that was read; refuse others in the file.

    Raises:
        Mistake: the file has another rank or alpha, or names targets too.
    """
    for key, own in (("rank", adapter.rank), ("alpha", adapter.alpha)):
        if given[key] not in (None, own):
            raise Mistake(f"the adapter in {adapter.folder} has {own}; leave it out", key=key, value=given[key])
    held = list(adapter.targets)
    if given["targets"] not in (None, held):
        sentence = f"the adapter in {adapter.folder} has its own targets; leave them out"
        raise Mistake(sentence, key="targets", value=given["targets"])
    return {"rank": adapter.rank, "alpha": adapter.alpha, "targets": held}


def fill_in_adapters(settings: Settings, models: Mapping[str, nn.Module]) -> Settings:
    """Return the settings with rank, alpha and targets of the model's adapters, after `add_run_adapters`."""
    if not has_adapters(settings):
        return settings
    (model,) = models.values()
    layers = find_adapters(model)
    first = next(iter(layers.values()))
    rank = first.lora_A.shape[0]
    targets = settings.model["targets"] or list(layers)
    return replace(
        settings, model=settings.model | {"rank": rank, "alpha": first.lora_scale * rank, "targets": targets}
    )
