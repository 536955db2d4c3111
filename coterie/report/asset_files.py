"""What goes into every page: its style, its scripts, and uPlot 1.6.32 (MIT, Leon Sorokin), which draws the curves.

uPlot lies in `assets/` as its package on npm has it, with its licence. A page holds it, and loads nothing.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from functools import cache
from importlib.resources import files

PLOTS = ("uPlot.iife.min.js",)
"""The scripts that a page with curves needs in addition."""


@cache
def read_asset(name: str) -> str:
    """Return the text of a file in `assets/`."""
    return (files("coterie.report") / "assets" / name).read_text(encoding="utf-8").strip()


def style(*more: str) -> str:
    """Return the style of a page, and of further files, as an HTML element."""
    return f"<style>{' '.join(map(read_asset, ('page.css', 'uPlot.min.css', *more)))}</style>"


def script(text: str) -> str:
    """Return a script as an HTML element."""
    return f"<script>{text}</script>"


def policy(scripts: Iterable[str]) -> str:
    """Return a rule for browsers, as an HTML element: the page loads nothing, and no script runs but these.

    Reference: Content Security Policy Level 3, W3C.
    """
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts)
    sources = " ".join(f"'sha256-{digest}'" for digest in digests)
    rule = f"default-src 'none'; script-src {sources}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'"
    return f'<meta http-equiv="Content-Security-Policy" content="{rule}">'
