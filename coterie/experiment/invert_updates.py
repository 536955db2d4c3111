"""Attack what a client of a finished run sends: reconstruct its examples, without a protection and with each.

Legend: B examples of each client, n clients whose updates are summed, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from coterie.core import rng, tree
from coterie.core.engine import as_input, batch_rows, count_steps
from coterie.core.errors import Mistake, require
from coterie.core.examples import Examples, pool_examples
from coterie.core.tree import Tree
from coterie.experiment.finished_run import FinishedRun
from coterie.experiment.reconstructions import describe_examples, match_examples, signal_to_noise
from coterie.probes import closed_forms
from coterie.probes.inversion import Inversion, Range
from coterie.probes.local_work import LocalWork
from coterie.probes.noised_work import NoisedWork, can_hide_examples, median_gradient_norm, without_guarantee
from coterie.probes.protections import Sight, see

SUCCESS = 0.5
"""An attack succeeded if its squared error is below this share of what the mean training example has."""
MAX_RANGE_EXAMPLES = 5000
"""From how many examples their range and mean are taken."""

Progress = Callable[[Sequence[Any]], Iterable[Any]]


@dataclass(frozen=True)
class InversionOptions:
    """How updates are attacked.

    Attributes:
        at: the model that the server broadcasts: at the "start" or the "end" of the run.
        work: whether the client takes one local "step" or a whole local "round" on its examples.
        client: whose update is attacked; None: the first of the first cohort.
        batches: how many examples it holds; each number is an attack.
        clip: the clipping norm; None: the median length of the cohort's updates.
        noise: multipliers of the clipping norm.
        top_k: the share of entries that top-k sends.
        clients: how many clients' updates are summed, at most.
        how: the search.
        pictures: whether examples are kept beside the numbers.

    Raises:
        Mistake: a value is out of its range.
    """

    at: Literal["start", "end"] = "start"
    work: Literal["step", "round"] = "step"
    client: str | None = None
    batches: Sequence[int] = (1, 4)
    clip: float | None = None
    noise: Sequence[float] = (0.01, 0.1)
    top_k: float = 0.01
    clients: int = 5
    how: Inversion = field(default_factory=lambda: Inversion(iterations=120))
    pictures: bool = True

    def __post_init__(self) -> None:
        require("at", self.at, self.at in ("start", "end"), "start or end")
        require("work", self.work, self.work in ("step", "round"), "step or round")
        for size in self.batches:
            require("batches", size, size >= 1, "1 or more")
        require("clip", self.clip, self.clip is None or 0 < self.clip < float("inf"), "above 0")
        for multiplier in self.noise:
            require("noise", multiplier, 0 < multiplier < float("inf"), "above 0")
        require("top-k", self.top_k, 0 < self.top_k <= 1, "above 0 and at most 1")
        require("clients", self.clients, self.clients >= 1, "1 or more")


class UpdateAttack:
    """The attack on one client of a finished run.

    Args:
        run: the run.
        options: how it is attacked.

    Raises:
        Mistake: the run has no such client, it holds too few examples, its updates do not follow from its own examples,
            or no attack can reconstruct such examples.
    """

    def __init__(self, run: FinishedRun, options: InversionOptions) -> None:
        self.options, self.source, self.guarantee = options, run.experiment.source, run.experiment.plan.example_privacy
        self.plan = without_guarantee(run.experiment.plan)
        (self.model,) = run.experiment.models.values()
        weights = run.start if options.at == "start" else run.end
        self.work = LocalWork(self.plan, weights, 1 if options.work == "step" else None)
        self.cohort = self._choose_clients()
        sample = self._sample()
        tokens = not sample.is_floating_point()
        self.embedding = closed_forms.first_embedding(self.model) if tokens else None
        if tokens and self.embedding is None:
            raise Mistake(
                f"{run.folder}: its examples are whole numbers, which no search can move, and its model does not begin "
                "with an embedding; choose --attack membership"
            )
        self.bias = closed_forms.classifier_bias(self.model, run.experiment.inputs.outputs or 0)
        self.bias = None if run.experiment.inputs.task else self.bias  # only cross-entropy of classes has this form
        self.box = _range_of(sample) if not tokens else Range(torch.tensor(0.0), torch.tensor(1.0))
        self.mean = sample.double().mean(0, keepdim=True).to(sample)
        self.held = {size: [self._first_examples(c, size) for c in self.cohort] for size in options.batches}
        self.updates = {
            size: [self.work.send(c, examples) for c, examples in zip(self.cohort, held, strict=True)]
            for size, held in self.held.items()
        }

    def measure(self, progress: Progress) -> dict[str, Any]:
        """Return what was found, as plain values: for each number of examples a row for each protection."""
        options, largest = self.options, max(self.options.batches)
        lengths = torch.stack([tree.norm(update) for update in self.updates[largest]])
        clip_norm = float(lengths.median()) if options.clip is None else options.clip
        batches = [self._describe_batch(size) for size in options.batches]
        jobs = [(batch, sight) for batch in batches for sight in self._sights(batch["examples"], clip_norm)]
        for batch, sight in progress(jobs):
            batch["rows"].append(self._attack(batch, sight))
        return {
            "client": self.cohort[0],
            "at": options.at,
            "work": options.work,
            "clip_norm": clip_norm,
            "match": options.how.match,
            "iterations": options.how.iterations,
            "batches": batches,
        }

    def _choose_clients(self) -> list[str]:
        """Return the attacked client and the others of its cohort."""
        plan, client = self.plan, self.options.client
        if client is not None and client not in plan.ids:
            raise Mistake("the run has no such client; choose one of clients.json", key="client", value=client)
        cohort = plan.cohort.draw(plan.ids, plan.rng_seed, 1, plan.available)
        first = cohort[0] if client is None else client
        return [first, *(other for other in cohort if other != first)][: self.options.clients]

    def _sample(self) -> Tensor:
        """Return training examples [m, ...] of the cohort, from which the range and the mean are taken."""
        pool = pool_examples([self.plan.clients[client] for client in self.cohort])
        return as_input(pool.batch(torch.arange(min(len(pool), MAX_RANGE_EXAMPLES)))[0], self.plan.engine)

    def _first_examples(self, client: str, size: int) -> Examples:
        """Return the first examples that the client's steps of the first round would take."""
        own = next(iter(self.plan.data(client).values()))
        if size > len(own):
            sentence = f"client {client} holds {len(own)} examples; give fewer, or another --client"
            raise Mistake(sentence, key="batches", value=size)
        job = self.work.job(client, own)
        batches = next(iter(batch_rows(self.plan.algorithm, job, count_steps(self.plan.algorithm, job)).values()))
        order = dict.fromkeys([*torch.cat(batches).tolist(), *range(len(own))])
        return own.take(torch.tensor(list(order)[:size]))

    def _sights(self, size: int, clip_norm: float) -> list[Sight]:
        key = rng.key(self.plan.rng_seed, "noise of an attack", size)
        sights = see(self.updates[size], clip_norm, self.options.noise, self.options.top_k, key)
        return [*sights, *self._sights_of_noised_gradients(size)]

    def _sights_of_noised_gradients(self, size: int) -> Iterator[Sight]:
        """Yield what is seen where gradients of single examples are noised; nothing where they cannot be.

        The bound and the noise are those of the run, if it has such a guarantee, and then those of the options.
        """
        if not can_hide_examples(self.plan):
            return
        held, run = self.held[size][0], self.guarantee
        bound = median_gradient_norm(self.work, held) if run is None or run.clip_norm is None else run.clip_norm
        chosen = [run.noise_multiplier] if run is not None and run.noise_multiplier is not None else []
        statistics = (None, None) if run is None else (run.statistics_clip, run.statistics_share)
        secret = f"rng seed {self.plan.rng_seed}, noise of an attack {size}"  # so that the command repeats
        noised = NoisedWork(self.work, max(bound, 1e-12), secret, *statistics)
        for multiplier in dict.fromkeys([*chosen, *self.options.noise]):
            yield noised.see(self.cohort[0], held, multiplier)

    def _describe_batch(self, size: int) -> dict[str, Any]:
        """Return what is known of an attack on B examples before it: how many steps, and what a mean example gives."""
        x, _ = self.work.batch(self.held[size][0])
        job = self.work.job(self.cohort[0], self.held[size][0])
        steps = self.work.steps or count_steps(self.plan.algorithm, job)
        batch: dict[str, Any] = {"examples": size, "steps": steps, "rows": []}
        if self.embedding is not None:
            return {**batch, "kind": "tokens", "baseline": {"tokens": self._share_of_frequent_tokens(x)}}
        error = float(match_examples(self.mean, x, self.box)[1].mean())
        kind = "pictures" if x.dim() == 4 and x.shape[1] in (1, 3) else "numbers"
        shown = describe_examples(x, self.box) if self.options.pictures else []
        return {**batch, "kind": kind, "baseline": {"mse": error, "psnr": signal_to_noise(error)}, "shown": shown}

    def _share_of_frequent_tokens(self, x: Tensor) -> float:
        """Return which share of a text's distinct tokens is among the most frequent ones of as many."""
        distinct, frequent = torch.unique(x), self._sample().flatten().long().bincount().argsort(descending=True)
        return float(torch.isin(frequent[: len(distinct)], distinct).double().sum() / len(distinct))

    def _attack(self, batch: dict[str, Any], sight: Sight) -> dict[str, Any]:
        """Attack one sight of the update; return the row of a table."""
        size, (x, _) = batch["examples"], self.work.batch(self.held[batch["examples"]][0])
        row: dict[str, Any] = {"protection": sight.name, "clients": sight.clients, "epsilon": sight.epsilon}
        if self.embedding is not None:
            distinct = torch.unique(x)
            guess = closed_forms.recover_tokens(sight.update, self.embedding, len(distinct))
            share = float(torch.isin(guess, distinct).double().mean())
            return {**row, "attack": "closed form", "tokens": share, "succeeded": share > _half_way(batch["baseline"])}
        mean = tree.scale(sight.update, 1 / sight.clients)
        labels, rate = self._labels(mean, self.held[size][: sight.clients])
        guesses = {"closed form": self._solve(mean, size * sight.clients)}
        guesses[self.options.how.match] = self._search(mean, size, sight.clients, labels)
        found = {name: match_examples(guess, x, self.box) for name, guess in guesses.items() if guess is not None}
        best = min(found, key=lambda name: float(found[name][1].mean()))
        error = float(found[best][1].mean())
        return {
            **row,
            "attack": best,
            "mse": error,
            "psnr": signal_to_noise(error),
            "labels": rate,
            "succeeded": error < SUCCESS * batch["baseline"]["mse"],
            "shown": describe_examples(found[best][0], self.box) if self.options.pictures else [],
        }

    def _labels(self, update: Tree, held: Sequence[Examples]) -> tuple[Tensor | None, float | None]:
        """Return the labels [n B] that the search takes, and the share of them that follows from the update.

        Where none follows from it, the search gets the true ones, and the share is None.
        """
        labels = [y for _, y in map(self.work.batch, held) if y is not None]
        true = torch.cat(labels) if labels else None
        if self.bias is None or true is None or self.bias not in update:
            return true, None
        guess = closed_forms.recover_labels(update[self.bias], len(true))
        classes = len(update[self.bias])
        right = torch.minimum(torch.bincount(guess, minlength=classes), torch.bincount(true.long(), minlength=classes))
        return guess.to(true), float(right.sum() / len(true))

    def _solve(self, update: Tree, number: int) -> Tensor | None:
        """Return what the first dense layer says of the examples [M, ...]; None where the first layer is another."""
        shape = tuple(self.mean.shape[1:])
        layer = closed_forms.first_dense_layer(self.model, shape)
        if layer is None or not {f"{layer}.weight".lstrip("."), f"{layer}.bias".lstrip(".")} <= update.keys():
            return None
        guess = closed_forms.dense_inputs(update, layer, number).reshape(-1, *shape)
        return torch.minimum(torch.maximum(guess.nan_to_num(0.0), self.box.low), self.box.high)

    def _search(self, update: Tree, size: int, clients: int, labels: Tensor | None) -> Tensor:
        """Return the examples [n B, ...] that the search finds."""
        number = size * clients
        work = self.work.as_function(self.cohort[0], self.held[size][0], number)
        key = rng.key(self.plan.rng_seed, "start of an attack", number)
        return self.options.how.invert(work, update, labels, (number, *self.mean.shape[1:]), self.box, key)


def _half_way(baseline: dict[str, float]) -> float:
    """Return the share of tokens above which an attack succeeded: half way from the baseline to all."""
    return (1 + baseline["tokens"]) / 2


def _range_of(sample: Tensor) -> Range:
    """Return the range of pictures as two numbers, and that of other examples as two for each of their numbers."""
    if sample.dim() >= 4:
        return Range(sample.min(), sample.max())
    return Range(sample.amin(0), sample.amax(0))
