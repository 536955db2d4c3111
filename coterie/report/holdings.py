"""Who holds what, as a chart: one column per client, a dot for each label it holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from coterie.report.charts import SERIES, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_CLIENTS = 100
MOST_DOTS = 2500
_MOST_NAMES = 40

Client = dict[str, Any]


def holdings(clients: Sequence[Client], names: Sequence[str] | None = None) -> str | None:
    """A chart of clients.json as SVG: who holds how many examples of which label; `names` are the labels'.

    Up to a hundred clients are shown one by one; more of them as histograms of their sizes and of how many labels they
    hold. None where nothing is known about any client.
    """
    known = [client for client in clients if client["examples"] is not None]
    if not known:
        return None
    labels = _labels(known)
    if len(known) > MOST_CLIENTS:
        return svg(lambda figure: _histograms(figure, known, bool(labels)), (9.6, 2.8), "sizes of the clients")
    height = (
        1.6 + (0.22 * min(len(labels), 60) + 0.4 if labels else 0) + (0.08 * _longest(known) if _turned(known) else 0)
    )
    return svg(lambda figure: _one_by_one(figure, known, labels, names), (9.6, height), "examples of each client")


def _labels(clients: Sequence[Client]) -> list[str]:
    """Every label that occurs, in the order of their numbers."""
    if any(client["label_counts"] is None for client in clients):
        return []
    return sorted({label for c in clients for label in c["label_counts"]}, key=int)


def called(label: str, names: Sequence[str] | None) -> str:
    """A label's name, or its number where it has none."""
    return label if names is None else names[int(label)]


def _one_by_one(figure: Figure, clients: Sequence[Client], labels: list[str], names: Sequence[str] | None) -> None:
    from matplotlib.ticker import MaxNLocator

    if labels:
        share = max(0.22 * min(len(labels), 60), 0.6)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[share, 1])
        _dots(upper, clients, labels, names)
    else:
        lower = figure.subplots()
    lower.bar(range(len(clients)), [c["examples"] for c in clients], color=SERIES[0], width=0.75, linewidth=0)
    lower.set_ylabel("examples")
    lower.grid(visible=False, axis="x")
    lower.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    lower.set_xlim(-0.8, len(clients) - 0.2)
    _name(lower, clients)


def _dots(axes: Axes, clients: Sequence[Client], labels: list[str], names: Sequence[str] | None) -> None:
    place = {label: k for k, label in enumerate(labels)}
    cells = [(x, place[label], n) for x, c in enumerate(clients) for label, n in c["label_counts"].items()]
    most = max(n for _, _, n in cells)
    if len(cells) > MOST_DOTS:
        _shades(axes, cells, most, (len(labels), len(clients)))
    else:
        biggest = min(150.0, (600 / len(clients)) ** 2, (900 / len(labels)) ** 2)  # so that neighbours do not touch
        xs, ys, ns = zip(*cells, strict=True)
        axes.scatter(xs, ys, s=[max(biggest * n / most, 1.5) for n in ns], color=SERIES[0], linewidths=0)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.set_ylabel("label")
    stride = -(-len(labels) // 30)
    axes.set_yticks(range(0, len(labels), stride), [_short(called(label, names)) for label in labels[::stride]])
    axes.tick_params(axis="x", length=0)


def _shades(axes: Axes, cells: Sequence[tuple[int, int, int]], most: int, shape: tuple[int, int]) -> None:
    """The same as a picture, whose opacity is the count: too many dots would make a heavy page."""
    import numpy as np

    picture = np.zeros((*shape, 4))
    picture[..., :3] = (0.31, 0.49, 0.95)
    for x, y, n in cells:
        picture[y, x, 3] = 0.15 + 0.85 * n / most
    axes.imshow(picture, aspect="auto", interpolation="nearest")
    axes.grid(visible=False)


def _name(axes: Axes, clients: Sequence[Client]) -> None:
    names = [_short(c["id"]) for c in clients]
    if len(names) > _MOST_NAMES:
        axes.set_xlabel(f"client, from {names[0]} to {names[-1]}")
        axes.set_xticks(range(0, len(names), 10), names[::10])
    else:
        axes.set_xlabel("client")
        axes.set_xticks(range(len(names)), names, rotation=90 if _turned(clients) else 0)


def _longest(clients: Sequence[Client]) -> int:
    """The length of the longest name, as it is shown."""
    return max(len(_short(c["id"])) for c in clients)


def _turned(clients: Sequence[Client]) -> bool:
    """Whether the names of all clients are shown, and do not fit beside one another."""
    return len(clients) <= _MOST_NAMES and _longest(clients) * len(clients) > 110


def _short(name: str) -> str:
    """A long name without its middle: names that begin alike, "hospital number 7", tend to differ at the end."""
    return name if len(name) <= 14 else f"{name[:7]}…{name[-6:]}"


def _histograms(figure: Figure, clients: Sequence[Client], labelled: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    sizes, *rest = figure.subplots(1, 1 + labelled, squeeze=False)[0]
    sizes.hist([c["examples"] for c in clients], bins=30, color=SERIES[0])
    sizes.set_xlabel("examples of a client")
    sizes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    sizes.set_ylabel("clients")
    for axes in rest:
        held = [len(c["label_counts"]) for c in clients]
        axes.hist(held, bins=[k - 0.5 for k in range(1, max(held) + 2)], color=SERIES[0], rwidth=0.8)
        axes.set_xlabel("labels of a client")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
