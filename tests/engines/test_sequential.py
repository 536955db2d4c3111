"""One client after another: what a step sees, what comes back, and what is left alone."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import coterie
from coterie import Algorithm, Batch, Examples, Recipe, Task
from coterie.core.engine import Job
from coterie.engines.sequential import Sequential
from tests.federations import dense, distance, ragged


def watched(seen: list[Batch], **options: Any) -> Recipe:
    """FedAvg that notes every batch."""

    def bind(task: Task) -> Algorithm:
        base = coterie.fedavg(lr=0.1, **options)(task)

        def step(carry: Any, batches: Any, ctx: Any) -> Any:
            seen.append(batches["private"])
            return base.client.step(carry, batches, ctx)

        return replace(
            base,
            client=replace(
                base.client,
                step=step,
            ),
        )

    return bind


def jobs(recipe: Recipe, names: str = "351") -> tuple[Any, Any, list[Job]]:
    plan = coterie.plan(recipe, dense(), ragged(), rounds=1)
    broadcast = plan.algorithm.server.broadcast(
        plan.algorithm.server.initial_state(plan.initial["model"], plan.federation())
    )
    return plan, broadcast, [Job(c, "model", {}, plan.data(c), None, 1, 0) for c in names]


def test_short_batches_stay_short_and_unmasked() -> None:
    """12 examples in batches of 5, twice: 5, 5, 2, 5, 5, 2; every row once in each pass."""
    seen: list[Batch] = []
    recipe = watched(seen, batch_size=5, local_epochs=2)
    plan, broadcast, work = jobs(recipe, "3")
    list(Sequential().run(plan.algorithms, broadcast, work))
    assert [len(batch.x) for batch in seen] == [5, 5, 2, 5, 5, 2]
    assert all(batch.mask is None for batch in seen)
    for half in (seen[:3], seen[3:]):
        assert sorted(row for batch in half for row in batch.rows.tolist()) == list(range(12))
    assert len({int(batch.key) for batch in seen}) == 6
    x, y = ragged()["3"].tensors()
    assert all(torch.equal(batch.x, x[batch.rows].float()) and torch.equal(batch.y, y[batch.rows]) for batch in seen)


def test_replies_come_one_by_one_in_order() -> None:
    """The second client's work begins when its reply is asked for, so that updates can be summed as they come."""
    seen: list[Batch] = []
    plan, broadcast, work = jobs(watched(seen, batch_size="full"))
    replies: Iterator[Any] = Sequential().run(plan.algorithms, broadcast, work)
    order = []
    for k, reply in enumerate(replies):
        order.append(reply.client)
        assert len(seen) == k + 1
    assert order == ["3", "5", "1"]


def test_weights_of_a_reply() -> None:
    """12 examples, of which three epochs process 36, and seven steps of 5 in passes of 5 + 5 + 2 process 29."""
    for options, processed in (({"local_epochs": 3}, 36), ({"local_steps": 7}, 29)):
        plan, broadcast, work = jobs(coterie.fedavg(lr=0.1, batch_size=5, **options), "3")
        (reply,) = Sequential().run(plan.algorithms, broadcast, work)
        assert reply.weighting == {"examples": 12, "processed": processed, "one": 1}
        assert reply.logs["count"] == processed


def test_examples_are_counted_exactly_whatever_the_type_of_number() -> None:
    """2051 needs twelve bits; bfloat16 has eight."""
    client = {"a": Examples(torch.zeros(2051, 6), torch.zeros(2051, dtype=torch.long))}
    recipe, engine = coterie.fedsgd(lr=0.1), Sequential(dtype=torch.bfloat16)
    (only,) = coterie.federate(recipe, nn.Linear(6, 3), client, rounds=1, engine=engine)
    assert only.client_weights["a"]["examples"] == 2051


class Noisy(nn.Module):
    """A layer that draws from torch's own generator."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.drop = nn.Linear(6, 3), nn.AlphaDropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.drop(x))


def test_torch_s_generator_is_set_for_each_client_and_given_back() -> None:
    """A model that draws from it depends on (rng seed, round, client) too, not on who came before; the caller's own
    draws go on as if nothing had happened."""
    torch.manual_seed(0)
    model = Noisy()
    ends = []
    for clients in (ragged(), dict(reversed(ragged().items()))):
        torch.manual_seed(len(ends))
        expected = torch.rand(3, generator=torch.Generator().manual_seed(len(ends)))
        ends.append(list(coterie.federate(coterie.fedavg(lr=0.1), model, clients, rounds=2))[-1])
        assert torch.equal(torch.rand(3), expected)
    assert distance(ends[0].weights(), ends[1].weights()) < 1e-6


def test_gradients_are_not_recorded() -> None:
    """Neither in what is sent nor in what is kept, or every round would hold on to the ones before."""
    plan, broadcast, work = jobs(coterie.fedavg(lr=0.1, momentum=0.5, keep_momentum=True))
    work = [job._replace(state=plan.algorithm.client.initial_state(plan.initial["model"])) for job in work]
    for reply in Sequential().run(plan.algorithms, broadcast, work):
        leaves = [*reply.update["delta"]["params"].values(), *reply.state["momentum"].values()]
        assert leaves
        assert not any(leaf.requires_grad for leaf in leaves)


@pytest.mark.parametrize("local_steps", [1, 4])
def test_a_parameter_that_is_not_used_does_not_move(local_steps: int) -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.idle = nn.Linear(6, 3), nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(x)

    model = Idle()
    (last,) = coterie.federate(coterie.fedavg(lr=0.1, local_steps=local_steps), model, ragged(), rounds=1)
    assert torch.equal(last.weights()["idle.weight"], model.idle.weight)
    assert not torch.equal(last.weights()["head.weight"], model.head.weight)
