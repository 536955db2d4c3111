"""Keys that are read from source files are those that the functions have, and reading them needs no PyTorch."""

from __future__ import annotations

import importlib
import subprocess
import sys
import typing
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge, Gt, Le, Lt

import coterie
from coterie.aggregation import AGGREGATORS, PRE
from coterie.algorithms import ALGORITHMS
from coterie.attacks import ATTACKS
from coterie.core.kind_checks import describe_kind
from coterie.core.registry import Registry
from coterie.data import AUGMENTATIONS, PARTITIONS, SOURCES
from coterie.experiment.keys import REQUIRED, keys_of
from coterie.experiment.read_keys import Opaque, read_constant, read_keys, registry_keys
from coterie.experiment.tables import FIXED
from coterie.models.libraries import LIBRARY_MODELS
from coterie.models.registry import MODELS
from coterie.probes import PROBES
from tests.experiment.files import DIGITS

REGISTRIES = [
    ALGORITHMS,
    MODELS,
    LIBRARY_MODELS,
    SOURCES,
    PARTITIONS,
    AUGMENTATIONS,
    AGGREGATORS,
    PRE,
    ATTACKS,
    PROBES,
    FIXED,
]
PLACES = sorted({place for registry in REGISTRIES for place in registry.places.values()})
OTHERS = [
    "coterie.attacks.registry:attack",
    "coterie.data.deal:deal",
    "coterie.experiment.tables:Origin",
    "coterie.pretrain.fps:FPS",
    "coterie.probes.probe:Probe",
]


def is_opaque(kind: Any) -> bool:
    inside = [*typing.get_args(kind), kind]
    return any(isinstance(each, type) and issubclass(each, Opaque) for each in inside)


def ranges(kind: Any) -> list[Any]:
    """The bounds in an annotation."""
    bounds = [each for each in getattr(kind, "__metadata__", ()) if isinstance(each, Gt | Ge | Lt | Le)]
    return bounds + [bound for each in typing.get_args(kind) for bound in ranges(each)]


@pytest.mark.parametrize("place", [*PLACES, *OTHERS])
def test_what_is_read_is_what_the_function_has(place: str) -> None:
    """Names in their order, defaults, kinds and ranges. Types that are not read have the same name."""
    module, _, name = place.partition(":")
    read, known = read_keys(place), keys_of(getattr(importlib.import_module(module), name))
    assert list(read) == list(known)
    assert read.open == known.open
    for key in known:
        if is_opaque(read[key].kind):
            assert describe_kind(read[key].kind) == describe_kind(known[key].kind)
        else:
            assert read[key].kind == known[key].kind
        if isinstance(read[key].default, type) and issubclass(read[key].default, Opaque):
            assert place == "coterie.experiment.tables:Origin"  # a default that is made for each
        else:
            assert (read[key].default, type(read[key].default)) == (known[key].default, type(known[key].default))


def test_every_key_can_be_read_without_pytorch() -> None:
    places = [*PLACES, *OTHERS]
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from coterie.experiment.read_keys import read_keys\n"
        "from coterie.experiment import tables\n"
        f"for place in {places!r}: read_keys(place)\n"
        "print(tables.algorithm_keys({'name': 'fedavg'}, []).keys())\n"
        "print(tables.data_keys({'source': 'csv', 'partition': 'dirichlet'}, []).keys())\n"
    )
    said = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert "'server_lr', 'lr'" in said
    assert "'alpha'" in said


def test_an_algorithm_by_hand() -> None:
    keys = read_keys(ALGORITHMS.places["fedprox"])
    assert keys["proximal_weight"].default is REQUIRED
    assert keys["local_steps"].default is None
    assert keys["momentum"].default == 0.0
    assert "lr" in keys
    assert not keys.open


def test_a_range_is_read() -> None:
    keys = read_keys(PARTITIONS.places["dirichlet"])
    assert keys["alpha"].kind == Annotated[float, Gt(0)]
    assert keys["min_examples"].kind == Annotated[int, Ge(1)]
    assert describe_kind(keys["alpha"].kind) == "a number above 0"


def test_a_name_is_followed_to_another_file() -> None:
    assert "data" in read_constant("coterie.experiment.tables:TABLES")
    assert typing.get_origin(read_keys(AGGREGATORS.places["krum"])["neighbours"].kind) is Literal


def test_a_function_of_the_users_own_is_imported(tmp_path: Any) -> None:
    (tmp_path / "own_keys.py").write_text("def mine(*, boldness: float = 2.0): ...\n")
    assert registry_keys(ALGORITHMS, "own_keys:mine", [tmp_path])["boldness"].default == 2.0


def test_a_name_that_is_not_there_is_a_mistake() -> None:
    with pytest.raises(ValueError, match=r'name = "fedavgg": did you mean "fedavg"\?'):
        registry_keys(ALGORITHMS, "fedavgg")
    with pytest.raises(ValueError, match=r'tool = "b": it must be one of a'):
        registry_keys(Registry("tool", {"a": "os.path:join"}), "b")


REQUIRED_VALUES = {"lr": 0.1, "proximal_weight": 1.0, "freeze_after": 1, "num_byzantine": 1, "radius": 1.0}
REQUIRED_VALUES |= {"clip_length": 1.0, "num_clients": 2, "alpha": 1.0, "labels_per_client": 2}
RANGED = [
    (registry, name, key)
    for registry in (ALGORITHMS, AGGREGATORS, PRE, ATTACKS, PARTITIONS, FIXED)
    for name, place in registry.places.items()
    for key, (kind, _) in read_keys(place).items()
    if ranges(kind) and "experiment" not in place  # its tables have no other checks
]


@pytest.mark.parametrize(("registry", "name", "key"), RANGED, ids=[f"{name}.{key}" for _, name, key in RANGED])
def test_a_function_refuses_values_outside_of_its_range(registry: Registry, name: str, key: str) -> None:
    """The annotation says what the function checks: a value on the wrong side of each bound is refused."""
    function, keys = registry[name], read_keys(registry.places[name])
    given = {k: REQUIRED_VALUES[k] for k in keys if keys[k].default is REQUIRED}
    for bound in ranges(keys[key].kind):
        wrong = {Gt: lambda b: b.gt, Ge: lambda b: b.ge - 1, Lt: lambda b: b.lt, Le: lambda b: b.le + 1}[type(bound)]
        with pytest.raises(coterie.Mistake, match=f"^{key} = "):
            function(**given | {key: wrong(bound)})


def test_a_misspelt_key_is_answered_without_pytorch(tmp_path: Any) -> None:
    (tmp_path / "x.toml").write_text(DIGITS.replace("lr = 0.1", "lr = 0.1\nmometum = 0.9"))
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from pathlib import Path\n"
        "from coterie.experiment.settings import load_settings\n"
        f"load_settings(Path({str(tmp_path / 'x.toml')!r}))\n"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False).stderr
    assert "algorithm.mometum = 0.9: there is no such key; did you mean algorithm.momentum?" in said
