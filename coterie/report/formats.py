"""Format numbers and settings for a reader."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coterie.report.seed_groups import Mean


def format_bytes(number: float) -> str:
    """Format a number of bytes in the unit that suits it.

    >>> format_bytes(512), format_bytes(1_924_000), format_bytes(1e12)
    ('512 B', '1.9 MB', '1.0 TB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def format_percent(share: float | None) -> str:
    """Format a share, such as an accuracy, in per cent.

    >>> format_percent(0.91234), format_percent(None)
    ('91.23 %', '-')
    """
    return "-" if share is None else f"{100 * share:.2f} %"


def format_number(number: float | None) -> str:
    """Format a number, such as a loss, with four digits.

    >>> format_number(0.123456), format_number(None)
    ('0.1235', '-')
    """
    return "-" if number is None else f"{number:.4g}"


def format_epsilon(epsilon: float) -> str:
    """Format a privacy loss with three decimals, never lower than it is.

    >>> format_epsilon(2.9991), format_epsilon(3.0)
    ('3', '3')
    """
    return f"{math.ceil(epsilon * 1000) / 1000:g}"


def format_mean(mean: Mean | None, scale: float = 1.0, unit: str = "") -> str:
    """Format a mean with its standard error, where it has one.

    >>> from coterie.report.seed_groups import Mean
    >>> format_mean(Mean(0.91234, 0.00312), 100, " %"), format_mean(Mean(87.25, None)), format_mean(None)
    ('91.23 ± 0.31 %', '87.25', '-')
    """
    if mean is None:
        return "-"
    error = "" if mean.error is None else f" ± {scale * mean.error:.2f}"
    return f"{scale * mean.value:.2f}{error}{unit}"


def format_speed_up(ratio: float | None) -> str:
    """Format a speed-up as the FedAvg paper does.

    >>> format_speed_up(3.632), format_speed_up(None)
    ('3.6x', '-')
    """
    return "-" if ratio is None else f"{ratio:.1f}x"


def format_interval(number: float | None, ends: tuple[float, float] | None) -> str:
    """Format a number, and the ends of its interval where it has one.

    >>> format_interval(0.9, (0.81, 0.95)), format_interval(0.9, None)
    ('0.9 (0.81 to 0.95)', '0.9')
    """
    return format_number(number) + (f" ({ends[0]:.3g} to {ends[1]:.3g})" if ends else "")


def format_spread(end: Mapping[str, Any]) -> str:
    """Format the spread of outputs in a summary, and whether it is a collapse; "-" where it has none.

    >>> format_spread({"spread": 0.987, "collapsed": False}), format_spread({"spread": 0.01, "collapsed": True})
    ('0.99', '0.01, collapsed')
    """
    if "spread" not in end:
        return "-"
    return f"{end['spread']:.2f}{', collapsed' if end['collapsed'] else ''}"


def format_duration(seconds: float) -> str:
    """Format a time in the units that suit it.

    >>> format_duration(0.25), format_duration(75), format_duration(7384)
    ('0.25 s', '1 min 15 s', '2 h 3 min')
    """
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def format_setting(value: object) -> str:
    """Format a setting as TOML writes it, without quotes.

    >>> format_setting(True), format_setting([1, "a"]), format_setting({"north": "cnn", "south": "mlp"})
    ('true', '[1, a]', '{north = cnn, south = mlp}')
    """
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name} = {format_setting(part)}" for name, part in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(format_setting, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)
