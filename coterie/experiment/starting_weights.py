"""The weights that a run's models start from, of a file or a library, and which of their parts are frozen.

The run folder keeps the weights that a run started from. So a resumed run does not need their file again, and finds the
frozen ones, which are in no checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from coterie.core.errors import Mistake, mistakes_in
from coterie.core.registry import nearest
from coterie.core.toml_text import toml_text
from coterie.experiment.adapters import add_run_adapters
from coterie.experiment.settings import Settings, model_names
from coterie.experiment.tables import PUBLISHED, Pretrain
from coterie.loop import evaluate
from coterie.loop.plan import Plan
from coterie.models import libraries
from coterie.models.model_parts import freeze_parts
from coterie.pretrain import pretrained_weights
from coterie.pretrain.pretrained_weights import LoadReport
from coterie.track.run_folder import START_FILE
from coterie.weights.cards import BOX, card, remark
from coterie.weights.encoders import load


@dataclass(frozen=True)
class Start:
    """How one model starts.

    Attributes:
        model: its name.
        loaded: which weights came from where; None where the model has initial weights of its own.
        frozen: names of frozen parameters. size: numbers in them. total: numbers in all parameters.
        test_loss, test_accuracy: before the first round, where they can be measured.
    """

    model: str
    loaded: LoadReport | None
    frozen: tuple[str, ...] = ()
    size: int = 0
    total: int = 0
    test_loss: float | None = None
    test_accuracy: float | None = None

    def record(self) -> dict[str, Any]:
        """Return it as plain values, for start.json."""
        return asdict(self)


def fill_in_weights(settings: Settings) -> Settings:
    """Return the settings with the weights that a model's name means: a checkpoint of Hugging Face has weights too.

    Raises:
        Mistake: [pretrain] names a model that is not in [model], or one file for several models.
    """
    names, given = model_names(settings), settings.pretrain.weights
    if isinstance(given, str) and len(names) > 1 and not given.startswith(PUBLISHED):
        raise Mistake(
            f"there are several models; give a table, such as {{{toml_text(names[0])} = {toml_text(given)}}}",
            key="weights",
            value=given,
            table="pretrain",
        )
    for name in given if isinstance(given, Mapping) else ():
        if name not in names:
            near = nearest(name, names)
            known = ", ".join([near] if near else names)
            raise Mistake(
                f"there is no such model here; there is {known}", key=f"weights.{toml_text(name)}", table="pretrain"
            )
    meant = {name: PUBLISHED for name in names if libraries.is_checkpoint(name)}
    if given is not None or not meant:
        return settings
    whole: str | dict[str, str] = PUBLISHED if len(meant) == len(names) else meant
    return replace(settings, pretrain=replace(settings.pretrain, weights=whole))


@contextmanager
def mistakes_about_models() -> Iterator[None]:
    """Add the table to mistakes about a model: a file asks for `published` weights by `pretrain.weights`."""
    try:
        yield
    except Mistake as mistake:
        if mistake.key != "published":
            raise mistake.in_table("model") from mistake.__cause__
        written = f"{PUBLISHED}:{mistake.value}" if mistake.value else PUBLISHED
        raise Mistake(mistake.sentence, key="weights", value=written, table="pretrain") from mistake.__cause__


def weights_for(pretrain: Pretrain, name: str) -> str | None:
    """Return which weights a model starts from; None for its own."""
    given = pretrain.weights.get(name) if isinstance(pretrain.weights, Mapping) else pretrain.weights
    return None if given == "none" else given


def weights_tag(pretrain: Pretrain, name: str) -> str | None:
    """Return which of a library's weights a model starts from; "" for its usual ones, None for other weights."""
    given = weights_for(pretrain, name)
    return given.removeprefix(PUBLISHED).removeprefix(":") if given and given.startswith(PUBLISHED) else None


def load_starting_weights(settings: Settings, models: Mapping[str, nn.Module], folder: Path | None) -> list[Start]:
    """Load into models, in place, the weights that they start from, freeze what is to be frozen, and add adapters.

    Args:
        settings: filled in by `fill_in_weights`.
        models: by name, with initial weights of their own.
        folder: where a run that has begun keeps the weights that it started from. They are loaded if there are any.

    Returns:
        How each model starts; nothing where all have initial weights of their own, or where the run had begun.

    Raises:
        Mistake: weights cannot be had or do not fit, or a part that is to be frozen is unknown.
    """
    has_begun = folder is not None and (folder / START_FILE).is_file()  # it is written last
    with mistakes_in("pretrain"):
        loaded = {n: None if has_begun else _load_weights(settings.pretrain, n, model) for n, model in models.items()}
        if settings.pretrain.freeze is not None:
            freeze_parts(models, settings.pretrain.freeze)
    add_run_adapters(settings, models, has_begun)
    with mistakes_in("pretrain"):
        if folder is not None and has_begun:
            for file, model in zip(start_files(folder, len(models)), models.values(), strict=True):
                pretrained_weights.load_weights_file(model, file)  # the factors of adapters too
    starts = [_describe_start(name, model, loaded[name]) for name, model in models.items()]
    return [] if has_begun or not any(s.loaded or s.frozen for s in starts) else starts


def remarks_on_weights(settings: Settings) -> list[str]:
    """Return what the user should know of encoders from the box, a sentence each."""
    sources = dict.fromkeys(weights_for(settings.pretrain, name) for name in model_names(settings))
    from_box = [source.removeprefix(BOX) for source in sources if source is not None and source.startswith(BOX)]
    return [sentence for name in from_box if (sentence := remark(name)) is not None]


def _load_weights(pretrain: Pretrain, name: str, model: nn.Module) -> LoadReport | None:
    source, tag = weights_for(pretrain, name), weights_tag(pretrain, name)
    options: dict[str, Any] = {"head": pretrain.head, "prefix": pretrain.prefix, "skip": pretrain.skip or ()}
    if source is None:
        return None
    if source.startswith(BOX):
        return _load_from_box(source.removeprefix(BOX), model, options)
    if tag is None:
        return pretrained_weights.load_weights_file(model, source, **options)
    with mistakes_about_models():
        found = libraries.published_weights(name, tag, model)
    if found is None:
        raise Mistake(
            f"nobody has published weights of {name}; name a safetensors file, or a model of a library",
            key="weights",
            value=source,
        )
    return pretrained_weights.load_weights(model, found, f"{name}, {tag or 'its'} published weights", **options)


def _load_from_box(name: str, model: nn.Module, options: Mapping[str, Any]) -> LoadReport:
    """Load an encoder that comes with coterie; where it does not fit, say which model it is for."""
    about = card(name)
    meant = ", ".join(f"{key} = {toml_text(value)}" for key, value in about["model"].items())
    source = f"{BOX}{name}, {about['trained']['steps']:,} steps"
    try:
        return pretrained_weights.load_weights(model, load(name), source, sha256=about["sha256"], **options)
    except Mistake as mistake:
        sentence = f"{mistake.sentence}; {BOX}{name} is for a model with {meant}"
        raise Mistake(sentence, key=mistake.key, value=mistake.value) from mistake


def _describe_start(name: str, model: nn.Module, loaded: LoadReport | None) -> Start:
    frozen = {n: p.numel() for n, p in model.named_parameters() if not p.requires_grad}
    return Start(name, loaded, tuple(frozen), sum(frozen.values()), sum(p.numel() for p in model.parameters()))


def start_files(folder: Path, number: int) -> list[Path]:
    """Return the files of the weights that a run's models started from, in the order of the models."""
    return [folder / (pretrained_weights.WEIGHTS_FILE if number == 1 else f"{k}.safetensors") for k in range(number)]


def measure_starts(starts: Sequence[Start], plan: Plan) -> list[Start]:
    """Return the starts with loss and accuracy before the first round, on the test data of all."""
    test = plan.evaluation.test
    if test is None or not plan.algorithm.traits.predicts or not any(start.loaded for start in starts):
        return list(starts)
    measured = []
    for start, (architecture, task) in zip(starts, plan.tasks.items(), strict=True):
        means = evaluate.mean(evaluate.scores(task, plan.initial[architecture], test, plan.engine))
        measured.append(replace(start, test_loss=means["loss"], test_accuracy=means.get("accuracy")))
    return measured
