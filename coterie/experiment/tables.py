"""Which keys each table takes, given the choices made in it: most follow from the signature of what takes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, MinLen

from coterie.aggregation import AGGREGATORS, PRE
from coterie.algorithms import ALGORITHMS
from coterie.algorithms.optimizers import Optimizer
from coterie.attacks import ATTACKS, attack
from coterie.core.errors import Mistake, mistakes_in
from coterie.data import AUGMENTATIONS, PARTITIONS, SOURCES, deal, partitions
from coterie.data.standardize import STANDARDIZATIONS
from coterie.experiment.file import Raw
from coterie.experiment.keys import REQUIRED, Key, Keys, keys_of
from coterie.experiment.lookup import find, offered
from coterie.experiment.refuse import full, nearest, shown, value_of
from coterie.loop.cohort import Cohort
from coterie.loop.faults import Faults
from coterie.models.libraries import library_prefix
from coterie.models.registry import MODELS
from coterie.probes import Probe

_NOT_KEYS = ("rng_seed", "in_shape", "num_classes", "source")
"""Arguments that such functions get from us, not from their table."""


@dataclass(frozen=True)
class Evaluate:
    """[evaluate]: in every how manyth round; the accuracy that ends the run; whether each client's own is measured."""

    every: Annotated[int, Ge(1)] = 1
    target_accuracy: Annotated[float, Gt(0), Le(1)] | None = None
    clients: bool = False


@dataclass(frozen=True)
class Engine:
    """[engine]: what runs the clients' work, where, in which type of number, and in how many processes."""

    name: Literal["auto", "sequential", "vectorised"] = "auto"
    device: str = "auto"
    dtype: Literal["float32", "float64"] = "float32"
    chunk: Annotated[int, Ge(1)] | None = None
    compile: bool | Literal["auto"] = "auto"
    workers: Annotated[int, Ge(1)] | Literal["auto"] = "auto"


@dataclass(frozen=True)
class Pretrain:
    """[pretrain]: which weights a run starts from, what of them stays as it is, and what moves more slowly.

    Attributes:
        weights: a safetensors file, or a folder with a model.safetensors; "published" or "published:TAG" for those of
            a library's model, which its name, or NAME.TAG, says too; "none". For several models a table, from a
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
"""What `pretrain.weights` begins with where a library is to give them."""


@dataclass(frozen=True)
class Origin:
    """[origin]: where a "package.module:function" and a relative path are looked for first. Written by a run."""

    folders: list[str] = field(default_factory=list)


FIXED = {"cohort": Cohort, "evaluate": Evaluate, "pretrain": Pretrain, "engine": Engine, "faults": Faults}
"""The tables whose keys do not depend on a choice, as what they become."""

TOP = Keys(
    rng_seed=Key(Annotated[int, Ge(0)], 0),
    rounds=Key(Annotated[int, Ge(1)], REQUIRED),
)
TABLES = (
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
)
"""Every table, in the order of a file."""


def data_keys(raw: Raw, folders: Sequence[Path]) -> Keys:
    """[data]: how the source is dealt, the partition's own, and the source's own."""
    own = keys_of(find("data.source", _choice("data", "source", raw, offered(SOURCES)), SOURCES, folders))
    if "partition" in raw:
        value_of("data.partition", raw["partition"], str)
    dealt = keys_of(deal).without(_NOT_KEYS).closed()
    ours = Keys(source=Key(str, REQUIRED)).and_those_of(dealt.without(["examples_per_client"]))
    ours = ours.and_those_of(partition_keys(raw.get("partition"))).and_those_of(dealt)
    ours["partition"] = Key(str | None, None)
    ours["standardize"] = Key(Literal[STANDARDIZATIONS] | dict[str, list[float]] | None, None)
    ours["augment"] = Key(Literal[tuple(AUGMENTATIONS)], "none")
    return ours.and_those_of(own.without([*_NOT_KEYS, *ours]))


def model_keys(raw: Raw, folders: Sequence[Path]) -> Keys:
    """[model]: its name and its own; or the names of several, dealt or by client, which have none."""
    given = [key for key in MODEL_CHOICES if key in raw]
    if len(given) > 1:
        raise Mistake(f"model.{given[0]} and model.{given[1]} are both given; keep one of them")
    if "names" in raw:
        for name in value_of("model.names", raw["names"], Annotated[list[str], MinLen(1)]):
            model_function("model.names", name, folders)
        return Keys(names=Key(list[str], REQUIRED))
    if "clients" in raw:
        for client, name in value_of("model.clients", raw["clients"], Annotated[dict[str, Any], MinLen(1)]).items():
            key = f"model.clients.{client}"
            model_function(key, value_of(key, name, str), folders)
        return Keys(clients=Key(dict[str, str], REQUIRED))
    name = _choice("model", "name", raw, MODELS.offer())
    function = model_function("model.name", name, folders)
    keys = _named(function).and_those_of(normalisation_keys(function))
    return keys.without(["published"]) if library_prefix(name) else keys


def model_function(key: str, name: str, folders: Sequence[Path]) -> Callable[..., Any]:
    """What makes the model of that name."""
    return MODELS.find(name, folders, key)


def normalisation_keys(function: Callable[..., Any]) -> Keys:
    """[model]: what its BatchNorm layers become, unless the model takes keys of these names itself."""
    own = keys_of(function)
    ours = Keys(
        normalisation=Key(Literal["batch", "group", "layer"] | None, None),
        groups=Key(Annotated[int, Ge(1)] | None, None),
    )
    return Keys() if own.open else ours.without(own)


def algorithm_keys(raw: Raw, folders: Sequence[Path]) -> Keys:
    """[algorithm]: its name, how many examples each client gives to a seed set, and its own."""
    keys = _named(find("algorithm.name", _choice("algorithm", "name", raw, offered(ALGORITHMS)), ALGORITHMS, folders))
    if "server" in keys and keys["server"].kind == Optimizer | None:  # a value that no file can hold
        if "server" in raw:
            raise Mistake(
                f"algorithm.server = {shown(raw['server'])}: a server optimiser is given from Python; in a file it is "
                "chosen by algorithm.name: fedavgm, fedadagrad, fedadam or fedyogi"
            )
        keys = keys.without(["server"])
    keys.setdefault("seed_examples_per_client", Key(Annotated[int, Ge(1)] | None, None))
    return keys


def seed_set_keys(raw: Raw, folders: Sequence[Path]) -> Keys:
    """[seed_set]: whether it keeps its labels; and where it is not the clients', its source, its size, and the source's
    own.
    """
    if "source" not in raw:
        return Keys(source=Key(str | None, None), labels=Key(bool | None, None))
    own = keys_of(find("seed_set.source", _choice("seed_set", "source", raw, offered(SOURCES)), SOURCES, folders))
    ours = Keys(source=Key(str, REQUIRED), examples=Key(Annotated[int, Ge(1)] | None, None), labels=Key(bool, True))
    not_taken = ["test_fraction"] if "path" in own else []  # all of such a file is the seed set
    return ours.and_those_of(own.without([*_NOT_KEYS, *ours, *not_taken]))


def aggregation_keys(raw: Raw, folders: Sequence[Path]) -> Keys:
    """[aggregation]: its name, the steps before it, and what they take together."""
    steps = value_of("aggregation.pre", raw.get("pre", []), list[str])
    keys = Keys(name=Key(str, "mean"), pre=Key(list[str], None))
    keys = keys.and_those_of(keys_of(_one_of("aggregation", "name", raw.get("name", "mean"), AGGREGATORS)))
    for step in steps:
        keys = keys.and_those_of(keys_of(_one_of("aggregation", "pre", step, PRE)))
    return keys


def attack_keys(raw: Raw, folders: Sequence[Path]) -> Keys:
    """[attack]: nothing where there is none; else its name, how many attack, what they forge, and its own."""
    if not raw or raw.get("name") == "none":
        return Keys(name=Key(str, "none"))
    function = _one_of("attack", "name", _choice("attack", "name", raw, f"one of {', '.join(ATTACKS)}"), ATTACKS)
    return keys_of(attack).without(["parameters"]).and_those_of(keys_of(function)).closed()


def probe_keys(raw: Raw, folders: Sequence[Path]) -> Keys:
    """[probe]: nothing where there is none; else which probes, how often, and on how many test examples."""
    return keys_of(Probe) if raw else Keys()


CHOSEN = {
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
    """A key of [data] that the chosen partition would ignore is refused.

    Raises:
        Mistake: there is one.
    """
    for key in sorted(_of_other_partitions(raw) & raw.keys()):
        takers = " and ".join(name for name in PARTITIONS if key in partition_keys(name))
        chosen = f"the partition {shown(raw['partition'])}" if "partition" in raw else "a file without data.partition"
        raise Mistake(f"data.{key} = {shown(raw[key])}: {chosen} does not take it; it belongs to {takers}")


def _of_other_partitions(raw: Raw) -> set[str]:
    """The keys that belong to a partition, but not to the one chosen."""
    everyones = {key for name in PARTITIONS for key in partition_keys(name)}
    return everyones - partition_keys(raw.get("partition")).keys()


def partition_keys(name: object) -> Keys:
    """The keys of the partition called `name`; none where none is chosen, or `name` is no text.

    Raises:
        Mistake: there is no such partition.
    """
    if not isinstance(name, str):
        return Keys()
    with mistakes_in("data"):
        return keys_of(partitions.find_partition(name))


def _choice(table: str, key: str, raw: Raw, allowed: str) -> str:
    if key not in raw:
        raise Mistake(f"{full(table, key)} is missing; it must be {allowed}")
    value: str = value_of(full(table, key), raw[key], str)
    return value


def _one_of(table: str, key: str, name: Any, known: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
    """One of ours; there are none of the user's own."""
    if name not in known:
        near = nearest(str(name), known)
        hint = f'did you mean "{near}"? It' if near else "it"
        raise Mistake(f"{full(table, key)} = {shown(name)}: {hint} must be one of {', '.join(known)}")
    return known[name]


def _named(function: Callable[..., Any]) -> Keys:
    return Keys(name=Key(str, REQUIRED)).and_those_of(keys_of(function).without(_NOT_KEYS))
