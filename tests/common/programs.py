"""Programs of local steps: made by a compiler, or traces that run as they are."""

import pytest

from coterie.engines import compiled

needs_compiler = pytest.mark.skipif(compiled.cpp_compiler() is None, reason="needs a C++ compiler")
either_program = pytest.mark.parametrize(
    "program", ["traced", pytest.param("compiled", marks=[pytest.mark.long, needs_compiler])]
)
"""A trace holds all that a step computes, and shows what tracing gets wrong; a compiler takes half a minute for it."""


def make(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `Compiled` run programs of this kind."""
    if program == "traced":
        monkeypatch.setattr(compiled, "cpp_compiler", lambda: "g++")
        monkeypatch.setattr("torch._inductor.compile", lambda trace, given, options: trace)
