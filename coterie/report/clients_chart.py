"""Draw the clients' data: one column per client, and a dot for each label that it holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING, Any

from coterie.report.charts import SERIES_COLOURS, draw_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_CLIENTS = 100
"""More clients are drawn as histograms."""

MAX_LABEL_ROWS = 60
"""A chart grows with the number of labels up to so many."""

MAX_DOTS = 2500
"""More labels of clients are drawn as the shades of a picture."""

MAX_TICK_NAMES = 40
"""Of more clients, every tenth name is written on the axis."""

Client = dict[str, Any]


def clients_chart(clients: Sequence[Client], names: Sequence[str] | None = None) -> str | None:
    """Return a chart, as SVG, of how many examples of which label each client holds.

    Up to `MAX_CLIENTS` clients are shown one by one. More are shown as histograms of their numbers of examples and of
    labels, above the labels of groups of clients that follow one another. None where no client's examples are counted.

    Args:
        clients: as in clients.json.
        names: of the labels, where they have names.
    """
    known = [client for client in clients if client["examples"] is not None]
    if not known:
        return None
    labels = _labels(known)
    if len(known) > MAX_CLIENTS:
        height = 2.8 + (0.22 * min(len(labels), MAX_LABEL_ROWS) + 0.8 if labels else 0)
        return draw_svg(lambda figure: _draw_many(figure, known, labels, names), (9.6, height), "sizes of clients")
    label_rows = 0.22 * min(len(labels), MAX_LABEL_ROWS) + 0.4 if labels else 0
    client_names = 0.08 * _max_length(known) if _names_are_vertical(known) else 0
    height = 1.6 + label_rows + client_names  # inches
    return draw_svg(lambda figure: _draw_each(figure, known, labels, names), (9.6, height), "examples of each client")


def _labels(clients: Sequence[Client]) -> list[str]:
    """Return every label that occurs, by its number; none if some client's labels were not counted."""
    if any(client["label_counts"] is None for client in clients):
        return []
    return sorted({label for c in clients for label in c["label_counts"]}, key=int)


def label_name(label: str, names: Sequence[str] | None) -> str:
    """Return a label's name, or its number where labels have no names."""
    return label if names is None else names[int(label)]


def _draw_each(figure: Figure, clients: Sequence[Client], labels: list[str], names: Sequence[str] | None) -> None:
    """Draw a bar for each client's number of examples and, above it, a dot for each label that it holds."""
    from matplotlib.ticker import MaxNLocator

    if labels:
        share = max(0.22 * min(len(labels), MAX_LABEL_ROWS), 0.6)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[share, 1])
        _draw_dots(upper, clients, labels, names)
    else:
        lower = figure.subplots()
    lower.bar(range(len(clients)), [c["examples"] for c in clients], color=SERIES_COLOURS[0], width=0.75, linewidth=0)
    lower.set_ylabel("examples")
    lower.grid(visible=False, axis="x")
    lower.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    lower.set_xlim(-0.8, len(clients) - 0.2)
    _label_clients(lower, clients)


def _draw_dots(axes: Axes, clients: Sequence[Client], labels: list[str], names: Sequence[str] | None) -> None:
    """Draw a dot for each label of each client, whose area shows the count; beyond `MAX_DOTS`, draw shades."""
    place = {label: k for k, label in enumerate(labels)}
    cells = [(x, place[label], n) for x, c in enumerate(clients) for label, n in c["label_counts"].items()]
    most = max(n for _, _, n in cells)
    if len(cells) > MAX_DOTS:
        _draw_shades(axes, cells, most, (len(labels), len(clients)))
    else:
        biggest = min(150.0, (600 / len(clients)) ** 2, (900 / len(labels)) ** 2)  # so that neighbours do not touch
        xs, ys, ns = zip(*cells, strict=True)
        axes.scatter(xs, ys, s=[max(biggest * n / most, 1.5) for n in ns], color=SERIES_COLOURS[0], linewidths=0)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    _label_labels(axes, labels, names)
    axes.tick_params(axis="x", length=0)


def _label_labels(axes: Axes, labels: list[str], names: Sequence[str] | None) -> None:
    """Write the labels' names on the y axis; of many, about thirty evenly spaced ones."""
    axes.set_ylabel("label")
    stride = -(-len(labels) // 30)
    axes.set_yticks(range(0, len(labels), stride), [_shorten(label_name(label, names)) for label in labels[::stride]])


def _draw_shades(axes: Axes, cells: Sequence[tuple[int, int, int]], most: int, shape: tuple[int, int]) -> None:
    """Draw cells (client, label, count) as the opacity of a picture, since too many dots would make a heavy page."""
    import numpy as np

    picture = np.zeros((*shape, 4))
    picture[..., :3] = (0.16, 0.55, 0.80)  # seen on light and dark pages
    for x, y, n in cells:
        picture[y, x, 3] = 0.15 + 0.85 * n / most
    axes.imshow(picture, aspect="auto", interpolation="nearest")
    axes.grid(visible=False)


def _label_clients(axes: Axes, clients: Sequence[Client]) -> None:
    """Write the clients' names on the x axis; of more than `MAX_TICK_NAMES`, every tenth."""
    names = [_shorten(c["id"]) for c in clients]
    if len(names) > MAX_TICK_NAMES:
        axes.set_xlabel(f"client, from {names[0]} to {names[-1]}")
        axes.set_xticks(range(0, len(names), 10), names[::10])
    else:
        axes.set_xlabel("client")
        axes.set_xticks(range(len(names)), names, rotation=90 if _names_are_vertical(clients) else 0)


def _max_length(clients: Sequence[Client]) -> int:
    """Return the number of characters in the longest client's name, as shown."""
    return max(len(_shorten(c["id"])) for c in clients)


def _names_are_vertical(clients: Sequence[Client]) -> bool:
    """Whether all clients' names are shown and do not fit next to one another."""
    return len(clients) <= MAX_TICK_NAMES and _max_length(clients) * len(clients) > 110


def _shorten(name: str) -> str:
    """Cut the middle out of a long name: names that begin alike, "hospital number 7", tend to differ at the end."""
    return name if len(name) <= 14 else f"{name[:7]}…{name[-6:]}"


def _draw_many(figure: Figure, clients: Sequence[Client], labels: list[str], names: Sequence[str] | None) -> None:
    """Draw histograms and, where labels were counted, the labels of groups of clients below them."""
    if not labels:
        return _draw_histograms(list(figure.subplots(1, 1, squeeze=False)[0]), clients)
    rows = 0.22 * min(len(labels), MAX_LABEL_ROWS)
    parts: Any = figure.subfigures(2, 1, height_ratios=[2.8, rows + 0.8])
    above, below = parts
    _draw_histograms(list(above.subplots(1, 2)), clients)
    axes = below.subplots()
    size = ceil(len(clients) / MAX_CLIENTS)
    groups = [clients[k : k + size] for k in range(0, len(clients), size)]
    place = {label: k for k, label in enumerate(labels)}
    sums = Counter[tuple[int, int]]()
    for x, group in enumerate(groups):
        for client in group:
            for label, n in client["label_counts"].items():
                sums[x, place[label]] += n
    _draw_shades(axes, [(x, y, n) for (x, y), n in sums.items()], max(sums.values()), (len(labels), len(groups)))
    _label_labels(axes, labels, names)
    stride = ceil(len(groups) / 10)
    axes.set_xticks(range(0, len(groups), stride), [_shorten(group[0]["id"]) for group in groups[::stride]])
    axes.set_xlabel(f"clients in groups of {size}, by their first")
    return None


def _draw_histograms(each: list[Axes], clients: Sequence[Client]) -> None:
    """Draw how many clients have how many examples and, on a second chart, how many have how many labels."""
    from matplotlib.ticker import MaxNLocator

    sizes, *rest = each
    sizes.hist([c["examples"] for c in clients], bins=30, color=SERIES_COLOURS[0])
    sizes.set_xlabel("examples of a client")
    sizes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    sizes.set_ylabel("clients")
    for axes in rest:
        numbers = [len(c["label_counts"]) for c in clients]
        axes.hist(numbers, bins=[k - 0.5 for k in range(1, max(numbers) + 2)], color=SERIES_COLOURS[0], rwidth=0.8)
        axes.set_xlabel("labels of a client")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
