"""Numbers as a reader wants them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def size(number: float) -> str:
    """Bytes in the unit that suits them.

    >>> size(512), size(1_924_000), size(1e12)
    ('512 B', '1.9 MB', '1.0 TB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def share(value: float | None) -> str:
    """An accuracy in per cent.

    >>> share(0.91234), share(None)
    ('91.23 %', '-')
    """
    return "-" if value is None else f"{100 * value:.2f} %"


def number(value: float | None) -> str:
    """A loss, say, with four digits.

    >>> number(0.123456), number(None)
    ('0.1235', '-')
    """
    return "-" if value is None else f"{value:.4g}"


def spread(end: Mapping[str, Any]) -> str:
    """How far outputs are spread at a run's end, which is 1 where they go everywhere.

    >>> spread({"spread": 0.987, "collapsed": False}), spread({"spread": 0.01, "collapsed": True})
    ('0.99', '0.01, collapsed')
    """
    return f"{end['spread']:.2f}{', collapsed' if end['collapsed'] else ''}"


def duration(seconds: float) -> str:
    """A time in the unit that suits it.

    >>> duration(0.25), duration(75), duration(7384)
    ('0.25 s', '1 min 15 s', '2 h 3 min')
    """
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, left = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {left} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def value(given: object) -> str:
    """A setting as TOML would write it, without quotes.

    >>> value(True), value([1, "a"]), value(0.1), value({"north": "cnn", "south": "mlp"})
    ('true', '[1, a]', '0.1', '{north = cnn, south = mlp}')
    """
    if isinstance(given, Mapping):
        return "{" + ", ".join(f"{name} = {value(part)}" for name, part in given.items()) + "}"
    if isinstance(given, list):
        return f"[{', '.join(map(value, given))}]"
    return str(given).lower() if isinstance(given, bool) else str(given)
