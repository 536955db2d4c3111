"""Where a run's models start: from weights of a file or a library, and what of them is frozen.

The folder keeps what a run began with, so that a resumed run needs the weights' file no more, and so that what was
frozen, which no checkpoint holds, is there.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from coterie.core.errors import Mistake, mistakes_in
from coterie.experiment.refuse import shown
from coterie.experiment.settings import Settings, model_names
from coterie.experiment.tables import PUBLISHED, Pretrain
from coterie.loop import evaluate
from coterie.loop.plan import Plan
from coterie.models import libraries
from coterie.models.model_parts import freeze_parts
from coterie.pretrain import pretrained_weights
from coterie.pretrain.pretrained_weights import LoadReport
from coterie.track.run_folder import START_FILE


@dataclass(frozen=True)
class Start:
    """How one model starts.

    Attributes:
        model: its name.
        loaded: what came from where; None: it has initial weights of its own.
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
        """As plain values."""
        return asdict(self)


def settled(settings: Settings) -> Settings:
    """The settings with the weights that a model's name means: a checkpoint of Hugging Face is its weights too.

    Raises:
        Mistake: [pretrain] names a model that there is not, or one file for several models.
    """
    names, given = model_names(settings), settings.pretrain.weights
    if isinstance(given, str) and len(names) > 1 and not given.startswith(PUBLISHED):
        raise Mistake(
            f"pretrain.weights = {shown(given)}: there are several models; give a table, such as "
            f'{{"{names[0]}" = {shown(given)}}}'
        )
    for name in given if isinstance(given, Mapping) else ():
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1) or names
            raise Mistake(f'pretrain.weights."{name}": there is no such model here; there is {", ".join(near)}')
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


def wanted(pretrain: Pretrain, name: str) -> str | None:
    """Which weights a model is to start from, None for its own."""
    given = pretrain.weights.get(name) if isinstance(pretrain.weights, Mapping) else pretrain.weights
    return None if given == "none" else given


def published(pretrain: Pretrain, name: str) -> str | None:
    """Which of a library's weights a model is to start from; "" for those that its name means, None for others."""
    given = wanted(pretrain, name)
    return given.removeprefix(PUBLISHED).removeprefix(":") if given and given.startswith(PUBLISHED) else None


def begin(settings: Settings, models: Mapping[str, nn.Module], kept: Path | None) -> list[Start]:
    """Give models, by name and in place, what they start from, and freeze what is to be.

    Args:
        settings: settled.
        models: with initial weights of their own.
        kept: the folder in which the run keeps what it began with. What is there is taken, and is no start.

    Raises:
        Mistake: weights cannot be had or do not fit, or a part that is to be frozen is unknown.
    """
    again = kept is not None and (kept / START_FILE).is_file()  # it is written last
    with mistakes_in("pretrain"):
        for file, model in zip(files(kept, len(models)), models.values(), strict=True) if kept and again else ():
            pretrained_weights.load_weights_file(model, file)
        loaded = {n: None if again else _given(settings.pretrain, n, model) for n, model in models.items()}
        if settings.pretrain.freeze is not None:
            freeze_parts(models, settings.pretrain.freeze)
    starts = [_start(name, model, loaded[name]) for name, model in models.items()]
    return [] if again or not any(s.loaded or s.frozen for s in starts) else starts


def _given(pretrain: Pretrain, name: str, model: nn.Module) -> LoadReport | None:
    """What a model was given."""
    source, which = wanted(pretrain, name), published(pretrain, name)
    options: dict[str, Any] = {"head": pretrain.head, "prefix": pretrain.prefix, "skip": pretrain.skip or ()}
    if source is None:
        return None
    if which is None:
        return pretrained_weights.load_weights_file(model, source, **options)
    with mistakes_about_models():
        found = libraries.published_weights(name, which, model)
    if found is None:
        raise Mistake(
            f"nobody has published weights of {name}; name a safetensors file, or a model of a library",
            key="weights",
            value=source,
        )
    return pretrained_weights.load_weights(model, found, f"{name}, {which or 'its'} published weights", **options)


def _start(name: str, model: nn.Module, loaded: LoadReport | None) -> Start:
    frozen = {n: p.numel() for n, p in model.named_parameters() if not p.requires_grad}
    return Start(name, loaded, tuple(frozen), sum(frozen.values()), sum(p.numel() for p in model.parameters()))


def files(kept: Path, number: int) -> list[Path]:
    """Where a run keeps what each of its models began with, in their order."""
    return [kept / (pretrained_weights.WEIGHTS_FILE if number == 1 else f"{k}.safetensors") for k in range(number)]


def measured(starts: Sequence[Start], plan: Plan) -> list[Start]:
    """The starts with how good the models are before the first round, on the test data of all."""
    test = plan.evaluation.test
    if test is None or not plan.algorithm.traits.predicts or not any(start.loaded for start in starts):
        return list(starts)
    found = []
    for start, (architecture, task) in zip(starts, plan.tasks.items(), strict=True):
        means = evaluate.mean(evaluate.scores(task, plan.initial[architecture], test, plan.engine))
        found.append(replace(start, test_loss=means["loss"], test_accuracy=means.get("accuracy")))
    return found
