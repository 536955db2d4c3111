"""The partition label: each client holds a fixed number of labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coterie.core.errors import Mistake
from coterie.core.kinds import Count
from coterie.data.argument_checks import require_count
from coterie.data.partitions.partition import NumberedPartition, Rows


def label(labels_per_client: Count) -> NumberedPartition:
    """Give every client exactly `labels_per_client` labels, such that every label is held.

    The number of holders differs by at most one between labels. Each label's examples, shuffled, are split evenly among
    its holders.

    Args:
        labels_per_client: how many distinct labels each client holds.

    Raises:
        Mistake: the number is below 1; or when it deals, there are fewer labels than a client is to hold, nobody would
            hold some label, or a label has fewer examples than holders.

    Reference: Li, Diao, Chen, He 2022 (arXiv 2102.02079), section 4.1, made exact.
    """
    arguments = {"labels_per_client": require_count("labels_per_client", labels_per_client)}
    return NumberedPartition("label", _split_by_label, arguments, by_label=True)


def _split_by_label(
    labels: NDArray[np.int64], num_clients: int, rng: np.random.Generator, labels_per_client: int
) -> list[Rows]:
    classes = np.unique(labels)
    _require_holders(len(classes), num_clients, labels_per_client)
    holders = _draw_holders(len(classes), num_clients, labels_per_client, rng)
    parts: list[list[Rows]] = [[] for _ in range(num_clients)]
    for c, held_by in zip(classes, holders, strict=True):
        examples = rng.permutation(np.flatnonzero(labels == c))
        if len(examples) < len(held_by):
            raise Mistake(
                f"label {c} has {len(examples)} examples for {len(held_by)} clients; "
                "lower `num_clients` or `labels_per_client`",
                key="num_clients",
                value=num_clients,
            )
        for k, part in zip(held_by, np.array_split(examples, len(held_by)), strict=True):
            parts[k].append(part)
    return [np.sort(np.concatenate(part)) for part in parts]


def _require_holders(num_labels: int, num_clients: int, labels_per_client: int) -> None:
    """Refuse `labels_per_client` above the number of labels, or too small for every label to be held."""
    wrong = ""
    if labels_per_client > num_labels:
        wrong = f"the data have only {num_labels} labels; give a number from 1 to {num_labels}"
    elif num_clients * labels_per_client < num_labels:
        wrong = (
            f"with `num_clients` = {num_clients} nobody would hold some of the {num_labels} labels; "
            f"give at least {-(-num_labels // num_clients)}"
        )
    if wrong:
        raise Mistake(wrong, key="labels_per_client", value=labels_per_client)


def _draw_holders(
    num_labels: int, num_clients: int, labels_per_client: int, rng: np.random.Generator
) -> list[list[int]]:
    """Draw the clients that hold each label.

    Each client in turn takes the labels with the fewest holders so far, ties at random. If the numbers of holders
    differ by at most one before a client chooses, they do so after: it either takes only labels from the lower level,
    or all of those and some of the next.
    """
    holders: list[list[int]] = [[] for _ in range(num_labels)]
    for k in range(num_clients):
        order = sorted(rng.permutation(num_labels).tolist(), key=lambda c: len(holders[c]))
        for c in order[:labels_per_client]:
            holders[c].append(k)
    return holders
