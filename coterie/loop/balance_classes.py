"""Class weights that make all classes count alike, from one count of the labels of all clients.

Legend: C classes, L labels of an example.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from coterie.core.errors import Mistake
from coterie.core.examples import Clients, Examples
from coterie.core.task_options import TaskOptions
from coterie.objectives import kinds
from coterie.objectives.kinds import Kind
from coterie.objectives.task_losses import balance_weights, check_weights, count_labels

BYTES_PER_NUMBER = 8


def balance_classes(
    options: TaskOptions, kind: Kind | None, clients: Clients, num_classes: int | None
) -> list[float] | None:
    """Return the class weights as numbers; None where there are none.

    Args:
        options: of the task.
        kind: of the task.
        clients: whose training labels are counted.
        num_classes: C; by default the highest label plus 1.

    Raises:
        Mistake: labels are not classes, or clients make their examples on demand.
    """
    weights = options.class_weights
    if weights is None:
        return None
    labelled = [y for examples in _examples_of(clients) if (y := examples.labels()) is not None]
    if kind is None or kind.labels == kinds.NUMBERS or not labelled:
        found = "without a kind of task" if kind is None else f"of a {kind.name} task"
        raise Mistake(f"{found} no class is counted; leave it out", key="class_weights", value=weights)
    outputs = kinds.count_outputs(kind, labelled[0], num_classes)
    if weights != "balanced":
        check_weights(kind, weights, outputs)
        return list(weights)
    if not isinstance(clients, dict):
        sentence = "clients make their examples on demand, so nobody can count their labels; give numbers"
        raise Mistake(sentence, key="class_weights", value=weights)
    if outputs is None:
        outputs = max(int(y.max()) for y in labelled) + 1
    total = torch.stack([count_labels(kind, y, outputs, options.ignore_index) for y in labelled]).sum(0)
    return balance_weights(kind, total.tolist())


def bytes_of_counting(kind: Kind, clients: int, outputs: int) -> int:
    """Return what all clients together send up to have their labels counted, and receive as weights."""
    numbers = 2 * outputs if kind.name == "multilabel" else max(outputs, 2)
    weights = outputs if kind.name == "multilabel" else max(outputs, 2)
    return clients * BYTES_PER_NUMBER * (numbers + weights)


def _examples_of(clients: Clients) -> Sequence[Examples]:
    """Return the examples of all clients; of those made on demand, the first client's."""
    return list(clients.values()) if isinstance(clients, dict) else [clients[next(iter(clients))]]
