"""Which keys each table takes, given the choices made in it. Most are the arguments of the function behind the table.

The keys can be read without PyTorch; only functions of the user's own are imported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import MinLen

from coterie.aggregation import AGGREGATORS, PRE
from coterie.algorithms import ALGORITHMS
from coterie.attacks import ATTACKS
from coterie.core.errors import Mistake, mistakes_in
from coterie.core.kind_checks import describe_kind
from coterie.core.kinds import Count, NonNegativeInt, Positive, PositiveFraction
from coterie.core.registry import Registry
from coterie.core.toml_text import toml_text
from coterie.data import AUGMENTATIONS, PARTITIONS, SOURCES, partitions
from coterie.experiment.check_values import check_value, missing_key
from coterie.experiment.keys import REQUIRED, Key, Keys, keys_of
from coterie.experiment.read_keys import read_constant, read_keys, registry_keys
from coterie.experiment.toml_file import Raw
from coterie.models.libraries import LIBRARY_MODELS, library_prefix
from coterie.models.registry import MODELS

_NOT_KEYS = ("rng_seed", "in_shape", "num_classes", "source", "task")
"""Arguments that such functions get from us, not from their table."""


@dataclass(frozen=True)
class Evaluate:
    """[evaluate]

    Attributes:
        every: evaluate every N rounds, and always the last one.
        target_accuracy: the test accuracy at which the run ends.
        clients: whether each client's own accuracy is measured too.
        metrics: what is measured besides, by the names of `coterie.objectives.metrics.names`, or
            "package.module:function".
        target: {metric, value}: the value of a metric at which the run ends.
        patience: after how many evaluations without a better value the run ends.
        patience_metric: of which metric; by default the target's, the first of `metrics`, or the accuracy or else the
            loss.

    Raises:
        Mistake: a metric is named twice, the target is another table, or there are two targets.
    """

    every: Count = 1
    target_accuracy: PositiveFraction | None = None
    clients: bool = False
    metrics: list[str] | None = None
    target: dict[str, Any] | None = None
    patience: Count | None = None
    patience_metric: str | None = None

    def __post_init__(self) -> None:
        if self.metrics is not None and len(set(self.metrics)) < len(self.metrics):
            raise Mistake(key="metrics", value=self.metrics, allowed="names, each once")
        target = self.target
        if target is not None:
            value = target.get("value")
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if target.keys() != {"metric", "value"} or not isinstance(target["metric"], str) or not is_number:
                raise Mistake(key="target", value=target, allowed='a table such as {metric = "auroc", value = 0.9}')
            if self.target_accuracy is not None:
                raise Mistake("`target_accuracy` is a target too; keep one of them", key="target", value=target)
        if self.patience_metric is not None and self.patience is None:
            raise Mistake("it belongs to `patience`; give that too", key="patience_metric", value=self.patience_metric)


@dataclass(frozen=True)
class Engine:
    """[engine]: what runs the clients' work, where, in which type of number, in how many processes and threads."""

    name: Literal["auto", "sequential", "vectorised"] = "auto"
    device: str = "auto"
    dtype: Literal["float32", "float64"] = "float32"
    precision: Literal["full", "bf16"] = "full"
    chunk: Count | None = None
    compile: bool | Literal["auto"] = "auto"
    workers: Count | Literal["auto"] = "auto"
    threads: Count | Literal["auto"] = "auto"


@dataclass(frozen=True)
class Pretrain:
    """[pretrain]: which weights a run starts from, which of them are frozen, and which are trained more slowly.

    Attributes:
        weights: a safetensors file, or a folder with a model.safetensors; "box:NAME" for an encoder that comes with
            coterie (`coterie.weights`); "published" or "published:TAG" for those of
            a library's model, which its name, or NAME.TAG, means too; "none". For several models a table, from a
            model's name to its weights.
        head, prefix, skip: see `coterie.pretrain.pretrained_weights.load_weights`.
        freeze: see `coterie.models.model_parts.freeze_parts`. lr_scale: see `coterie.models.model_parts.lr_scales`.
    """

    weights: str | dict[str, str] | None = None
    head: Literal["fresh"] | None = None
    prefix: str | None = None
    skip: list[str] | None = None
    freeze: Literal["all but head"] | list[str] | None = None
    lr_scale: dict[str, float] | None = None


PUBLISHED = "published"
"""How `pretrain.weights` begins where they are a library's."""


@dataclass(frozen=True)
class Deploy:
    """[deploy]: how a run between silos deals with silos that are late or away. A simulation ignores it.

    Attributes:
        min_clients: a round needs as many sound replies; None: more than half of those that it asks.
        round_timeout: seconds after which a round closes without those that gave no answer; None: 600.
    """

    min_clients: Count | None = None
    round_timeout: Positive | None = None


@dataclass(frozen=True)
class Origin:
    """[origin]: where a "package.module:function" and a relative path are looked for first. A run writes it."""

    folders: list[str] = field(default_factory=list)


FIXED = Registry(
    "table",
    {
        "cohort": "coterie.loop.cohort:Cohort",
        "evaluate": "coterie.experiment.tables:Evaluate",
        "pretrain": "coterie.experiment.tables:Pretrain",
        "engine": "coterie.experiment.tables:Engine",
        "faults": "coterie.loop.faults:Faults",
        "communication": "coterie.loop.communication:Communication",
        "privacy": "coterie.privacy.table:Privacy",
        "deploy": "coterie.experiment.tables:Deploy",
        "task": "coterie.core.task_options:TaskOptions",
        "track": "coterie.track.track_table:Track",
    },
)
"""The tables whose keys do not depend on a choice, and the dataclass that each becomes."""

TOP = Keys(rng_seed=Key(NonNegativeInt, 0), rounds=Key(Count, REQUIRED))
TABLES = (
    "task",
    "data",
    "model",
    "algorithm",
    "seed_set",
    "cohort",
    "aggregation",
    "attack",
    "evaluate",
    "probe",
    "pretrain",
    "engine",
    "faults",
    "communication",
    "privacy",
    "deploy",
    "track",
)
"""Every table, in the order of a file."""


def data_keys(raw: Raw, folders: Sequence[Path]) -> Keys:
    """Return the keys of [data]: those of dealing, of the partition and of the source."""
    own = _keys_of_choice("data", "source", raw, SOURCES, folders)
    if "partition" in raw:
        check_value("data", "partition", raw["partition"], str)
    dealing = read_keys("coterie.data.deal:deal").without(_NOT_KEYS).close()
    ours = Keys(source=Key(str, REQUIRED)).join(dealing.without(["examples_per_client"]))
    ours = ours.join(partition_keys(raw.get("partition"))).join(dealing)
    ours["partition"] = Key(str | None, None)
    how = read_constant("coterie.data.standardize:STANDARDIZATIONS")
    ours["standardize"] = Key(Literal[how] | dict[str, list[float]] | None, None)
    ours["augment"] = Key(Literal[tuple(AUGMENTATIONS)], "none")
    return ours.join(own.without([*_NOT_KEYS, *ours]))


def model_keys(raw: Raw, folders: Sequence[Path]) -> Keys:
    """Return the keys of [model]: the name and the model's own; or the names of several, which have no other keys."""
    given = [key for key in MODEL_CHOICES if key in raw]
    if len(given) > 1:
        raise Mistake(f"`{given[0]}` and `{given[1]}` are both given; keep one of them", table="model")
    if "names" in raw:
        for name in check_value("model", "names", raw["names"], Annotated[list[str], MinLen(1)]):
            model_function_keys(name, folders, "names")
        return Keys(names=Key(list[str], REQUIRED))
    if "clients" in raw:
        named = check_value("model", "clients", raw["clients"], Annotated[dict[str, Any], MinLen(1)])
        for client, name in named.items():
            key = f"clients.{client}"
            model_function_keys(check_value("model", key, name, str), folders, key)
        return Keys(clients=Key(dict[str, str], REQUIRED))
    name = _choice("model", "name", raw, MODELS)
    own = model_function_keys(name, folders)
    keys = _name_and(own).join(normalisation_keys(own))
    if library_prefix(name):
        return keys.join(adapter_keys(raw, own)).without(["published"])
    return keys.join(output_keys(own)).join(adapter_keys(raw, own))


def model_function_keys(name: str, folders: Sequence[Path], key: str = "name") -> Keys:
    """Return the arguments of the function that makes the model called `name`.

    Raises:
        Mistake: there is no such model.
    """
    prefix = library_prefix(name)
    if prefix is not None:
        keys = read_keys(LIBRARY_MODELS.places[prefix])
        return keys.without([next(iter(keys))])  # the library's own name of the model
    with mistakes_in("model"):
        return registry_keys(MODELS, name, folders, key)


def normalisation_keys(own: Keys) -> Keys:
    """Return the keys of [model] that convert BatchNorm layers, except those that the model takes itself."""
    ours = Keys(
        normalisation=Key(Literal["batch", "group", "layer"] | None, None),
        groups=Key(Count | None, None),
    )
    return Keys() if own.open else ours.without(own)


OUTPUTS = "outputs"
"""The key of [model] that says which entry of what the model returns are its outputs."""


def output_keys(own: Keys) -> Keys:
    """Return the key of [model] that says which entry are the outputs, unless the model takes such a key itself."""
    return Keys() if own.open or OUTPUTS in own else Keys(outputs=Key(str | NonNegativeInt | None, None))


ADAPTER = "adapter"
"""The key of [model] that gives layers adapters."""

ADAPTER_OPTIONS = ("rank", "alpha", "targets", "aggregate", "adapter_weights")
"""The keys of [model] that say how, where `adapter` is given."""

TEXT_KEYS = ("head", "pad_id", "end_id")
"""The keys of [model] of a checkpoint that data with a tokenizer fill in; see `coterie.experiment.text_models`."""


def adapter_keys(raw: Raw, own: Keys) -> Keys:
    """Return the keys of [model] that give layers adapters, unless the model takes such keys itself.

    Raises:
        Mistake: the model takes one of them itself, and `adapter` is given too.
    """
    if own.open or ADAPTER in own:
        return Keys()
    first = Keys(adapter=Key(Literal["lora"] | None, None))
    if raw.get(ADAPTER) is None:
        stray = next((key for key in ADAPTER_OPTIONS if key in raw and key not in own), None)
        if stray is not None:
            raise Mistake('it belongs to `adapter` = "lora"; leave it out', key=stray, value=raw[stray], table="model")
        return first
    clash = next((key for key in ADAPTER_OPTIONS if key in own), None)
    if clash is not None:
        raise Mistake(
            f"the model has an option `{clash}` of its own, which an adapter has too; rename the model's",
            key=ADAPTER,
            value=raw[ADAPTER],
            table="model",
        )
    return first.join(
        Keys(
            rank=Key(Count | None, None),
            alpha=Key(Positive | None, None),
            targets=Key(list[str] | None, None),
            aggregate=Key(Literal["factors", "exact"], "factors"),
            adapter_weights=Key(str | Path | None, None),
        )
    )


def algorithm_keys(raw: Raw, folders: Sequence[Path]) -> Keys:
    """Return the keys of [algorithm]: the name, the examples that each client gives to a seed set, and its own."""
    keys = _name_and(_keys_of_choice("algorithm", "name", raw, ALGORITHMS, folders))
    if "server" in keys and describe_kind(keys["server"].kind) == "Optimizer":  # a value that no file can hold
        if "server" in raw:
            raise Mistake(
                "a server optimiser is given from Python; in a file it is chosen by `name`: fedavgm, fedadagrad, "
                "fedadam, fedyogi or fedmuon",
                key="server",
                value=raw["server"],
                table="algorithm",
            )
        keys = keys.without(["server"])
    keys.setdefault("seed_examples_per_client", Key(Count | None, None))
    return keys


def seed_set_keys(raw: Raw, folders: Sequence[Path]) -> Keys:
    """Return the keys of [seed_set]: whether it has labels; and if it has a source, its size and the source's own."""
    if "source" not in raw:
        return Keys(source=Key(str | None, None), labels=Key(bool | None, None))
    own = _keys_of_choice("seed_set", "source", raw, SOURCES, folders)
    ours = Keys(source=Key(str, REQUIRED), examples=Key(Count | None, None), labels=Key(bool, True))
    not_taken = ["test_fraction"] if "path" in own else []  # all of such a file is the seed set
    return ours.join(own.without([*_NOT_KEYS, *ours, *not_taken]))


def aggregation_keys(raw: Raw, folders: Sequence[Path]) -> Keys:
    """Return the keys of [aggregation]: the name, the steps before it, and what they take together."""
    keys = Keys(name=Key(str, "mean"), pre=Key(list[str], None))
    with mistakes_in("aggregation"):
        name = check_value("aggregation", "name", raw.get("name", "mean"), str)
        keys = keys.join(registry_keys(AGGREGATORS, name))
        for step in check_value("aggregation", "pre", raw.get("pre", []), list[str]):
            keys = keys.join(registry_keys(PRE, step))
    return keys


def attack_keys(raw: Raw, folders: Sequence[Path]) -> Keys:
    """Return the keys of [attack]: the name; and where there is an attack, how many attack, what, and its own."""
    if not raw or raw.get("name") == "none":
        return Keys(name=Key(str, "none"))
    own = _keys_of_choice("attack", "name", raw, ATTACKS)
    return read_keys("coterie.attacks.registry:attack").join(own).close()


def probe_keys(raw: Raw, folders: Sequence[Path]) -> Keys:
    """Return the keys of [probe]; none where there is no probe."""
    return read_keys("coterie.probes.probe:Probe") if raw else Keys()


CHOSEN: Mapping[str, Callable[[Raw, Sequence[Path]], Keys]] = {
    "data": data_keys,
    "model": model_keys,
    "algorithm": algorithm_keys,
    "seed_set": seed_set_keys,
    "aggregation": aggregation_keys,
    "attack": attack_keys,
    "probe": probe_keys,
}
"""The tables whose keys depend on a choice made in them."""

MODEL_CHOICES = ("name", "names", "clients")
"""The keys of [model] that say which model a client has; one of them is given."""

CHOICES = {
    "data": ("source", "partition"),
    "model": MODEL_CHOICES,
    "seed_set": ("source",),
    "aggregation": ("name", "pre"),
}
"""Which keys of such a table are the choices, where it is not `name` alone."""


def refuse_other_partitions(raw: Raw) -> None:
    """Refuse keys of [data] that the chosen partition would ignore.

    Raises:
        Mistake: there is one.
    """
    for key in sorted(_keys_of_other_partitions(raw) & raw.keys()):
        takers = " and ".join(name for name in PARTITIONS if key in partition_keys(name))
        chosen = f"the partition {toml_text(raw['partition'])}" if "partition" in raw else "a file without `partition`"
        raise Mistake(f"{chosen} does not take it; it belongs to {takers}", key=key, value=raw[key], table="data")


def _keys_of_other_partitions(raw: Raw) -> set[str]:
    everyones = {key for name in PARTITIONS for key in partition_keys(name)}
    return everyones - partition_keys(raw.get("partition")).keys()


def partition_keys(name: object) -> Keys:
    """Return the keys of the partition called `name`; none where `name` is not text.

    Raises:
        Mistake: there is no such partition.
    """
    if not isinstance(name, str):
        return Keys()
    with mistakes_in("data"):
        return read_keys(PARTITIONS.places[name]) if name in PARTITIONS else keys_of(partitions.find_partition(name))


def _choice(table: str, key: str, raw: Raw, registry: Registry) -> str:
    if key not in raw:
        raise missing_key(table, key, registry.offer())
    value: str = check_value(table, key, raw[key], str)
    return value


def _keys_of_choice(table: str, key: str, raw: Raw, registry: Registry, folders: Sequence[Path] = ()) -> Keys:
    """Return the keys of the function of a registry that a key of a table names."""
    name = _choice(table, key, raw, registry)
    with mistakes_in(table):
        return registry_keys(registry, name, folders, key)


def _name_and(own: Keys) -> Keys:
    return Keys(name=Key(str, REQUIRED)).join(own.without(_NOT_KEYS))
