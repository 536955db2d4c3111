"""Collective functions, which every process of a run must call in the same order: their callers say so too."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2] / "coterie"
SENTENCE = "Collective: every process calls it"
VERBS = {"gather", "sum", "exchange"}
"""Collective methods of a team, which a caller has as `team` or as `....team`."""


class Function(NamedTuple):
    place: str  # "package.module:function"
    node: ast.FunctionDef
    names: dict[str, str]  # what a name of its module means: name -> place

    @property
    def is_collective(self) -> bool:
        return SENTENCE in " ".join((ast.get_docstring(self.node) or "").split())

    @property
    def can_be_alone(self) -> bool:
        """Whether it is collective only if it is given a team."""
        arguments = [*self.node.args.args, *self.node.args.kwonlyargs]
        return any(argument.arg == "team" for argument in arguments) and "ALONE" in ast.unparse(self.node.args)


def functions() -> Iterator[Function]:
    for path in sorted(ROOT.rglob("*.py")):
        module = ast.parse(path.read_text(encoding="utf-8"))
        here = ".".join(path.relative_to(ROOT.parent).with_suffix("").parts)
        names: dict[str, str] = {}
        for node in ast.walk(module):
            if isinstance(node, ast.ImportFrom):
                names |= {alias.asname or alias.name: f"{node.module}:{alias.name}" for alias in node.names}
        own = [node.name for node in module.body if isinstance(node, ast.FunctionDef)]
        names |= {name: f"{here}:{name}" for name in own}
        for node in ast.walk(module):
            if isinstance(node, ast.FunctionDef):
                yield Function(f"{here}:{node.name}", node, names)


@cache
def all_functions() -> list[Function]:
    return list(functions())


@cache
def collective_functions() -> dict[str, Function]:
    return {function.place: function for function in all_functions() if function.is_collective}


def collective_calls(function: Function) -> Iterator[str]:
    for node in ast.walk(function.node):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        receiver, _, name = called.rpartition(".")
        if name in VERBS and receiver.split(".")[-1] == "team":
            yield called
        module, _, attribute = function.names.get(receiver or name, "").partition(":")
        place = f"{module}.{attribute}:{name}" if receiver else f"{module}:{attribute}"
        if place in collective_functions():
            given = any(keyword.arg == "team" for keyword in node.keywords) or any(
                "team" in ast.unparse(argument) for argument in node.args
            )
            if given or not collective_functions()[place].can_be_alone:
                yield called


def test_who_calls_a_collective_function_is_collective_itself_and_says_so() -> None:
    """In the rooms below those that start processes or are started in several."""
    rooms = ("coterie.loop.", "coterie.processes.", "coterie.probes.")
    callers = {
        function.place: set(collective_calls(function)) for function in all_functions() if not function.is_collective
    }
    assert {place: calls for place, calls in callers.items() if calls and place.startswith(rooms)} == {}


def test_calls_are_found() -> None:
    """Of the team itself, of an imported function, and of one in an imported module."""
    calls = {function.place: set(collective_calls(function)) for function in all_functions()}
    assert "self.team.gather" in calls["coterie.loop.checkpoint:load"]
    assert "jobs_of_cohort" in calls["coterie.loop.round:work"]
    assert "evaluate.scores" in calls["coterie.loop.measure:_measure_common_model"]
    assert calls["coterie.loop.measure:own_accuracy"] == set()  # of one process alone
