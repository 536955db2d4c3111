"""What `import coterie` offers, when it imports PyTorch, and that the functions' arguments are written once."""

import importlib
import inspect
import subprocess
import sys
from typing import Any, Required, get_origin, get_type_hints

import pytest
import torch

import coterie
from coterie import algorithms, api
from tests.federations import dense, ragged


def without_torch(program: str) -> None:
    """Run a program in a process in which PyTorch cannot be imported."""
    blocked = "import sys; sys.modules['torch'] = None\n"
    subprocess.run([sys.executable, "-c", blocked + program], check=True)


def test_every_name_is_there() -> None:
    assert set(coterie.__all__) <= set(dir(coterie))
    for name in coterie.__all__:
        assert getattr(coterie, name) is not None
    assert sorted(coterie.__all__) == coterie.__all__


def test_the_package_offers_every_algorithm() -> None:
    assert set(algorithms.ALGORITHMS) <= set(coterie.__all__)
    assert {"ALGORITHMS", *algorithms.ALGORITHMS} == set(algorithms.__all__)
    for name, function in algorithms.ALGORITHMS.items():
        assert getattr(coterie, name) is getattr(algorithms, name) is function
        assert function.__name__ == name


def test_importing_the_package_and_reading_the_names_of_algorithms_imports_no_pytorch() -> None:
    without_torch(
        "import coterie\n"
        "from coterie.algorithms import ALGORITHMS\n"
        "assert 'fedavg' in ALGORITHMS and 'federate' in dir(coterie) and coterie.__version__\n"
        "raise SystemExit(coterie.Mistake.__name__ != 'Mistake')\n"
    )


def test_importing_a_module_of_the_same_name_leaves_the_function() -> None:
    """Python binds a submodule to its package when it imports it, after which the package would offer the module."""
    program = (
        "import coterie.algorithms.fedavg, importlib\n"
        "module = importlib.import_module('coterie.algorithms.fedavg')\n"
        "from coterie.algorithms.fedprox import fedprox\n"
        "from coterie.algorithms import fedavg\n"
        "import coterie.algorithms as algorithms\n"
        "assert fedavg is module.fedavg is algorithms.fedavg is coterie.fedavg\n"
        "assert algorithms.fedprox is fedprox\n"
        "assert algorithms.server.__name__ == 'coterie.algorithms.server'\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_rooms_are_attributes_and_other_names_are_not() -> None:
    assert coterie.data is importlib.import_module("coterie.data")
    with pytest.raises(AttributeError, match="module 'coterie' has no attribute 'nothing'"):
        _ = coterie.nothing


def test_the_options_of_federate_are_the_arguments_of_plan() -> None:
    """`federate` passes them on, so its types are written in `PlanOptions`: names, types, and which must be given."""
    arguments = inspect.signature(api.plan, eval_str=True).parameters.values()
    options = [p for p in arguments if p.kind is p.KEYWORD_ONLY]
    kinds = get_type_hints(api.PlanOptions)
    assert {p.name: p.annotation for p in options} == kinds
    assert [p.name for p in options] == list(kinds)
    written = get_type_hints(api.PlanOptions, include_extras=True)
    required = {name for name, kind in written.items() if get_origin(kind) is Required}
    assert {p.name for p in options if p.default is p.empty} == required


def test_the_earlier_name_of_the_seed_set_still_works() -> None:
    """`public=` warns, and gives the plan that `seed_set=` gives."""
    seed_set = coterie.Examples(torch.zeros(4, 6), torch.zeros(4, dtype=torch.int64))
    recipe = coterie.fedh2l(lr=0.1)
    options: dict[str, Any] = {"rounds": 1}
    with pytest.warns(FutureWarning, match="public= is now called seed_set="):
        earlier = coterie.plan(recipe, dense(), ragged(), public=seed_set, **options)
    assert earlier.seed_set is coterie.plan(recipe, dense(), ragged(), seed_set=seed_set, **options).seed_set
    with pytest.raises(coterie.Mistake, match="public: it is the earlier name of seed_set; give one of the two"):
        coterie.plan(recipe, dense(), ragged(), public=seed_set, seed_set=seed_set, **options)


def test_the_command_has_its_fixed_names() -> None:
    """`coterie --help` lists them; names may be added, and none is removed."""
    help_text = subprocess.run([sys.executable, "-m", "coterie", "--help"], check=True, capture_output=True, text=True)
    listed = {line.split()[0] for line in help_text.stdout.partition("Commands:")[2].splitlines() if line.strip()}
    assert {
        "run",
        "report",
        "compare",
        "sweep",
        "pretrain",
        "predict",
        "data",
        "probe",
        "deploy",
        "peer",
        "watch",
    } <= listed
