"""The modules of docs/, which mkdocs loads and which are no package."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

DOCS = Path(__file__).parents[2] / "docs"
sys.path.append(str(DOCS))


def import_from_docs(name: str) -> ModuleType:
    """Import a module of docs/ by its name."""
    return import_module(name)


messages = import_from_docs("messages")
site_hook = import_from_docs("site_hook")
