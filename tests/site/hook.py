"""The modules of docs/, which mkdocs loads and which are no package."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
sys.path.append(str(DOCS))

messages = import_module("messages")
site_hook = import_module("site_hook")
