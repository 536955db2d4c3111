"""The loop: who is asked, what is counted, what is dropped and why, and what a round costs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import coterie
from coterie import Algorithm, Examples, Faults, Mistake, Recipe, Round, Task
from coterie.core import tree
from coterie.core.engine import Job, Reply
from coterie.core.examples import pool_examples
from coterie.core.tree import Tree
from coterie.engines.sequential import Sequential
from coterie.engines.vectorised import Vectorised
from coterie.loop import federate as loop
from coterie.loop import jobs
from tests.federations import dense, distance, ragged


def rounds(recipe: Recipe | None = None, count: int = 3, **options: Any) -> list[Round]:
    clients = options.pop("clients", None) or ragged()
    recipe = recipe or coterie.fedavg(lr=0.1, batch_size=5)
    return list(coterie.federate(recipe, dense().float(), clients, rounds=count, **{"rng_seed": 1} | options))


def message(recipe: Recipe | None = None) -> int:
    """Bytes of one client's update."""
    (only,) = rounds(recipe, 1, keep_updates=True)
    assert only.updates is not None
    return tree.nbytes(only.updates["0"])


def test_a_record_has_the_fields_of_a_run_folder_in_their_order() -> None:
    (only,) = rounds(count=1, test=ragged()["1"])
    assert list(only.record()) == [
        "round", "seconds", "elapsed", "cohort_size", "reached", "dropped", "bytes_up", "bytes_down",
        "train_loss", "test_loss", "test_accuracy",
    ]  # fmt: skip
    assert (only.round, only.record()["cohort_size"], only.reached) == (1, 6, 6)
    assert (only.train_loss, only.test_loss, only.test_accuracy) == tuple(only.measures.values())


def test_time_goes_on_over_rounds_and_resumes() -> None:
    times = [r.elapsed for r in rounds()]
    assert times == sorted(times)
    resume = coterie.Resume(2, rounds(count=2)[-1].state, rounds(count=2)[-1].store, elapsed=1000.0)
    (last,) = rounds(resume=resume)
    assert last.round == 3
    assert last.elapsed > 1000


def test_nothing_is_left_to_do_after_the_last_round() -> None:
    last = rounds()[-1]
    assert rounds(resume=coterie.Resume(3, last.state, last.store)) == []


def test_train_loss_is_the_mean_over_the_examples_processed() -> None:
    """With one full batch each and one round, the loss of the initial model over all examples: of each client's part,
    weighted by its size. The model is linear, so that no batch statistics are in the way."""
    torch.manual_seed(0)
    model, clients = nn.Linear(6, 3), ragged()
    (only,) = coterie.federate(coterie.fedsgd(lr=0.1), model, clients, rounds=1)
    x, y = pool_examples(clients.values()).tensors()
    assert only.train_loss == pytest.approx(float(nn.functional.cross_entropy(model(x.float()), y).detach()), rel=1e-5)


def test_faults_are_listed_client_by_client() -> None:
    """Everyone whom `faults` chose is dropped, with the reason, and nobody else; over rounds each kind occurs."""
    faults = Faults(drop=0.2, straggle=0.2, corrupt=0.2)
    said: set[str] = set()
    for r in rounds(count=12, faults=faults, cohort=4):
        fate = {client: faults.of(1, r.round, client) for client in r.cohort}
        why = {entry["client"]: entry["why"] for entry in r.dropped}
        assert set(why) == {client for client, fault in fate.items() if fault}
        assert all((why[c] == "dropped out") == (fate[c] == "drop") for c in why)
        assert all((why[c] == "missed the deadline") == (fate[c] == "straggle") for c in why)
        assert r.reached == len(r.cohort) - len(why)
        said |= set(why.values())
    assert {"dropped out", "missed the deadline"} < said
    assert any("delta/params" in words or "delta/buffers" in words for words in said)


def test_bytes() -> None:
    """Down to everyone who is asked; up from everyone who answers, also where the answer is refused. What a corrupt
    weight accompanies has its full length, so bytes lie between those of the reached and of the answering."""
    each = message()
    for r in rounds(count=8, faults=Faults(drop=0.3, straggle=0.2)):
        assert r.bytes_up == r.reached * each
        assert r.bytes_down == 6 * tree.nbytes(r.plan.algorithm.server.broadcast(r.state))
    corrupt = rounds(count=8, faults=Faults(corrupt=0.5))
    assert all(r.reached * each <= r.bytes_up for r in corrupt)
    assert any(r.bytes_up > r.reached * each for r in corrupt)


def test_a_client_that_is_dropped_keeps_the_state_it_had() -> None:
    """What the server did not accept did not happen: SCAFFOLD's c_i moves with the clients that were reached alone."""
    for r in rounds(coterie.scaffold(lr=0.1, batch_size=5), 4, faults=Faults(drop=0.3, corrupt=0.3)):
        now = {c for c, made in r.store.versions().items() if made == r.round}
        assert now == set(r.cohort) - {entry["client"] for entry in r.dropped}


def test_faults_of_others_change_nothing_for_a_client() -> None:
    """An update is the same whether or not others answer; in the first round, where all start alike."""
    (all_of_them,) = rounds(count=1, keep_updates=True)
    (some,) = rounds(count=1, keep_updates=True, faults=Faults(drop=0.5))
    assert 0 < some.reached < 6
    assert some.updates is not None
    assert all_of_them.updates is not None
    for client, update in some.updates.items():
        assert distance(tree.flatten(update), tree.flatten(all_of_them.updates[client])) == 0


def test_a_client_without_examples_is_named_and_the_others_go_on() -> None:
    clients = {**ragged(), "none": Examples(torch.zeros(0, 6), torch.zeros(0, dtype=torch.int64))}
    for engine in (Sequential(), Vectorised()):
        last = rounds(clients=clients, engine=engine)[-1]
        assert last.dropped == [{"client": "none", "why": "has no examples"}]
        assert last.reached == 6


def test_a_round_in_which_nothing_came_back() -> None:
    """The state stays, nothing was trained, and the next round is as good as any."""
    before, empty, after = rounds(available=lambda round, client: round != 2)
    assert (empty.cohort, empty.reached, empty.dropped) == ([], 0, [])
    assert (empty.bytes_up, empty.bytes_down, empty.train_loss) == (0, 0, None)
    assert distance(before.weights(), empty.weights()) == 0
    assert distance(empty.weights(), after.weights()) > 0
    assert after.reached == 6


def test_everyone_silent() -> None:
    for r in rounds(faults=Faults(drop=1.0), test=ragged()["0"]):
        assert (r.reached, r.bytes_up, len(r.dropped)) == (0, 0, 6)
        assert r.test_accuracy is not None


def test_updates_are_kept_only_if_asked_for() -> None:
    assert all(r.updates is None for r in rounds())
    (only,) = rounds(count=1, cohort=3, keep_updates=True)
    assert only.updates is not None
    assert list(only.updates) == list(only.cohort)


def test_an_earlier_round_stays_what_it_was() -> None:
    """Its weights, of the server and of each client, after later rounds have gone by."""
    taken: list[tuple[Round, dict[str, Tensor]]] = []
    recipe = coterie.independent(lr=0.1, momentum=0.5)
    for r in coterie.federate(recipe, dense().float(), ragged(), rounds=3):
        taken.append((r, {name: w.clone() for name, w in r.weights("1").items()}))
    for r, weights in taken:
        assert distance(r.weights("1"), weights) == 0
    assert distance(taken[0][1], taken[2][1]) > 0


Parts = Mapping[str, Callable[[Algorithm], Any]]


def changed(client: Parts = MappingProxyType({}), server: Parts = MappingProxyType({})) -> Recipe:
    """Return FedAvg with other parts in its two halves."""

    def bind(task: Task) -> Algorithm:
        base = coterie.fedavg(lr=0.1, batch_size=5)(task)
        return replace(
            base,
            client=replace(base.client, **{name: make(base) for name, make in client.items()}),
            server=replace(base.server, **{name: make(base) for name, make in server.items()}),
        )

    return bind


def test_a_part_of_the_update_without_a_weight_is_a_mistake_that_names_both() -> None:
    def with_extra(base: Algorithm) -> Any:
        return lambda sent, carry, ctx: ({**base.client.finish(sent, carry, ctx)[0], "extra": {"n": ctx.examples}}, {})

    with pytest.raises(Mistake, match=r"has the parts \['delta', 'extra'\] but it names weights for \['delta'\]"):
        rounds(changed(client={"finish": with_extra}))
    with pytest.raises(Mistake, match=r"has the parts \['delta'\] but it names weights for \['delta', 'extra'\]"):
        rounds(changed(server={"weighting": lambda base: {"delta": "examples", "extra": "one"}}))


def test_a_weight_that_does_not_exist_is_a_mistake_that_names_those_that_do() -> None:
    with pytest.raises(
        Mistake, match='weight "example" for its part delta; it must be one of examples, processed, one'
    ):
        rounds(changed(server={"weighting": lambda base: {"delta": "example"}}))


def test_every_part_is_weighted_as_it_says() -> None:
    """Of clients with 7, 23, 1, 12, 16 and 9 examples (68) the mean of n_i, weighted by n_i, by what is processed in
    one pass, and evenly: sum n^2 / sum n = 1060 / 68 twice, and 68 / 6."""
    found: list[Tree] = []

    def finish(base: Algorithm) -> Any:
        def end(sent: Tree, carry: Tree, ctx: Any) -> tuple[Tree, Tree]:
            update, kept = base.client.finish(sent, carry, ctx)
            return {**update, "a": ctx.examples, "b": ctx.examples, "c": ctx.examples}, kept

        return end

    def update(base: Algorithm) -> Any:
        return lambda state, aggregate, info: found.append(aggregate) or base.server.update(state, aggregate, info)

    recipe = changed(
        client={"finish": finish},
        server={
            "update": update,
            "weighting": lambda base: {"delta": "examples", "a": "examples", "b": "processed", "c": "one"},
        },
    )
    rounds(recipe, 1)
    assert [float(found[0][name]) for name in "abc"] == pytest.approx([1060 / 68, 1060 / 68, 68 / 6])


def test_a_message_may_have_another_shape_in_every_round() -> None:
    """Each is held against what an honest client would send in that round."""

    def finish(base: Algorithm) -> Any:
        def end(sent: Tree, carry: Tree, ctx: Any) -> tuple[Tree, Tree]:
            size = int(sent["round"].shape[0])
            return {**base.client.finish(sent, carry, ctx)[0], "extra": torch.zeros(size)}, {}

        return end

    recipe = changed(
        client={"finish": finish},
        server={
            "initial_state": lambda base: lambda w, f: {**base.server.initial_state(w, f), "round": torch.zeros(1)},
            "broadcast": lambda base: lambda s: {name: s[name] for name in ("params", "buffers", "round")},
            "weighting": lambda base: {"delta": "examples", "extra": "one"},
            "update": lambda base: lambda s, u, r: {**base.server.update(s, u, r), "round": torch.zeros(r.round + 1)},
        },
    )
    for r in rounds(recipe):
        assert (r.reached, r.dropped) == (6, [])


def test_too_large_a_cohort_is_noticed_before_anything_runs() -> None:
    with pytest.raises(Mistake, match=r"cohort\.size = 7: there are 6 clients; lower it to 6 or less"):
        rounds(cohort=7)


class Population(Mapping[str, Examples]):
    """A million clients who are made when they are looked at; counts the looks."""

    def __init__(self, n: int) -> None:
        self.n, self.looks = n, 0

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[str]:
        raise AssertionError("all clients were looked at")

    def __getitem__(self, client: str) -> Examples:
        self.looks += 1
        g = torch.Generator().manual_seed(int(client))
        return Examples(torch.randn(4, 6, generator=g), torch.randint(3, (4,), generator=g))


class Names:
    """Their ids, likewise."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, k: int) -> str:
        return str(k)


@pytest.mark.parametrize("recipe", [coterie.fedavg(lr=0.1), coterie.scaffold(lr=0.1, objective="clients")])
@pytest.mark.parametrize("population", [100, 10**6])
def test_a_round_costs_the_same_in_any_population(population: int, recipe: Recipe) -> None:
    """Four rounds of five clients are twenty looks at a client's data, and at most twenty states kept."""
    clients = Population(population)
    plan = coterie.plan(recipe, dense().float(), ragged(), rounds=4, cohort=5, test=ragged()["0"])
    plan = replace(plan, clients=clients, ids=Names(population))  # type: ignore[arg-type]
    last = list(loop.federate(plan))[-1]
    assert clients.looks == 20
    assert len(last.store.versions()) <= 20


class CountedPopulation(Population):
    """One that can be counted without a look."""

    def sizes(self, clients: Sequence[str]) -> list[int]:
        return [4] * len(clients)


def test_a_counted_population_is_looked_at_for_its_work_alone() -> None:
    """Also by an algorithm that weighs all clients: n = 4 x 10^6 before the first round."""
    clients = CountedPopulation(10**6)
    plan = coterie.plan(coterie.scaffold(lr=0.1), dense().float(), ragged(), rounds=4, cohort=5)
    plan = replace(plan, clients=clients, ids=Names(10**6))  # type: ignore[arg-type]
    last = list(loop.federate(plan))[-1]
    assert clients.looks == 20
    assert float(last.state["total"]) == 4e6


class Noting(Sequential):
    """Notes the clients of each call."""

    def run(self, algorithms: Mapping[str, Algorithm], broadcast: Tree, jobs: Sequence[Job]) -> Iterator[Reply]:
        calls.append([job.client for job in jobs])
        return super().run(algorithms, broadcast, jobs)


calls: list[list[str]] = []


@pytest.mark.parametrize(("kind", "looks"), [(CountedPopulation, 6), (Population, 10)])
def test_a_cohort_s_data_are_made_part_by_part(
    monkeypatch: pytest.MonkeyPatch, kind: type[Population], looks: int
) -> None:
    """A client's 4 examples of 6 numbers take 128 bytes with their labels, so two fit. Who cannot be counted is looked
    at beforehand: two of them are kept, and the other four looked at again. What comes out does not depend on it.
    """
    outcomes = []
    for fits in (2**20, 300):
        monkeypatch.setattr(jobs, "PART_BYTES", fits)
        calls.clear()
        clients = kind(6)
        plan = coterie.plan(coterie.scaffold(lr=0.1, objective="clients"), dense().float(), ragged(), rounds=1)
        plan = replace(plan, clients=clients, engine=Noting())
        outcomes.append(list(loop.federate(plan))[-1])
        assert [len(call) for call in calls] == ([6] if fits > 300 else [2, 2, 2])
    assert clients.looks == looks
    assert tree.flatten(outcomes[0].state).keys() == tree.flatten(outcomes[1].state).keys()
    assert all(torch.equal(a, b) for a, b in zip(*(tree.leaves(o.state) for o in outcomes), strict=True))


def test_a_client_s_data_are_looked_up_once_a_round_whatever_the_streams() -> None:
    class Looking(dict[str, Examples]):
        looks = 0

        def __getitem__(self, client: str) -> Examples:
            self.looks += 1
            return super().__getitem__(client)

    clients = Looking(ragged())
    two_streams = changed(
        client={"streams": lambda base: {**base.client.streams, "again": base.client.streams["private"]}}
    )
    rounds(two_streams, 2, clients=clients, faults=Faults())
    assert clients.looks == 12
    silent = Looking(ragged())
    rounds(two_streams, 2, clients=silent, faults=Faults(drop=1.0))
    assert silent.looks == 0


def test_no_round_runs_before_it_is_asked_for() -> None:
    """A generator: what the caller does between rounds is the caller's, and stopping early costs nothing."""
    asked: list[int] = []
    federation = coterie.federate(
        coterie.fedavg(lr=0.1),
        dense().float(),
        ragged(),
        rounds=10**9,
        available=lambda round, client: bool(asked.append(round)) or True,
    )
    assert asked == []
    next(federation)
    assert set(asked) == {1}
    next(federation)
    assert set(asked) == {1, 2}
