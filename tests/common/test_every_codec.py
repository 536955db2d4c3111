"""Every algorithm with every codec: it learns as before, resumes bit for bit, or is refused in one sentence."""

import pytest
import torch

import coterie
from coterie import Communication, Faults, Mistake, Recipe, Round
from coterie.aggregation import aggregation
from coterie.core import tree
from coterie.engines.sequential import Sequential
from coterie.loop.checkpoint import Checkpoints
from tests.common.recipes import RECIPES
from tests.common.test_every_algorithm import FAULTS, all_weights
from tests.federations import dense, distance, ragged, seed_set

CODECS = {"float16": Communication("float16"), "uint8": Communication("uint8"), "top_k": Communication("top_k", 0.1)}
REFUSED = ("feddyn", "fedh2l", "fedmd")
WITHOUT_UPDATES = ("centralized", "independent")

every_codec = pytest.mark.parametrize("up", CODECS.values(), ids=CODECS)
NAMES = [name for name in RECIPES if not name.startswith(REFUSED)]
PAIRS = [(name, list(CODECS)[k % len(CODECS)]) for k, name in enumerate(NAMES)]
"""Each recipe with one codec, in turn."""


def run(recipe: Recipe, up: Communication | None, rounds: int = 4, **options: object) -> list[Round]:
    options = {"cohort": 0.7, "faults": FAULTS, "rng_seed": 3, "seed_set": seed_set()} | options
    engine = Sequential(dtype=torch.float64)
    return list(coterie.federate(recipe, dense(), ragged(), rounds=rounds, engine=engine, up=up, **options))


@pytest.mark.parametrize(("name", "codec"), PAIRS)
def test_a_run_with_a_codec_sends_less_and_resumes_bit_for_bit(
    name: str, codec: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder, up = tmp_path_factory.mktemp("checkpoint"), CODECS[codec]
    plain, whole = run(RECIPES[name], None), run(RECIPES[name], up)
    assert [len(r.dropped) for r in whole] == [len(r.dropped) for r in plain]
    assert all(tree.is_finite(r.state) for r in whole)
    if name in WITHOUT_UPDATES:
        assert distance(all_weights(plain[-1]), all_weights(whole[-1])) == 0
        return
    assert sum(r.bytes_up for r in whole) < sum(r.bytes_up for r in plain)
    Checkpoints(folder).save(run(RECIPES[name], up, rounds=2)[-1])
    rest = run(RECIPES[name], up, resume=Checkpoints(folder).load())
    assert distance(all_weights(whole[-1]), all_weights(rest[-1])) == 0


@every_codec
@pytest.mark.parametrize("name", REFUSED)
def test_algorithms_whose_updates_must_arrive_exactly_are_refused(name: str, up: Communication) -> None:
    with pytest.raises(Mistake, match=f'codec = "{up.codec}": .*no codec may round; leave it out'):
        run(RECIPES[name], up)


def sent(recipe: Recipe, up: Communication | None) -> Round:
    """The first round, with its updates as they arrived."""
    options = {"faults": None, "cohort": None, "keep_updates": True}
    return run(recipe, up, rounds=1, **options)[-1]


@every_codec
@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("fedavg", ("delta", "buffers")),
        ("scaffold", ("control",)),
        ("fbn, the paper's", ("statistics",)),
        ("feddf", ("scores",)),
    ],
)
def test_statistics_and_control_variates_arrive_bit_for_bit(
    name: str, kept: tuple[str, ...], up: Communication
) -> None:
    """Variances, control variates and scores are as without a codec, while the parameters of "delta" are not."""
    plain, encoded = sent(RECIPES[name], None).updates, sent(RECIPES[name], up).updates
    assert plain is not None
    assert encoded is not None
    differences = []
    for client in plain:
        a, b = plain[client], encoded[client]
        for key in kept:
            a, b = a[key], b[key]
        assert tree.leaves(a)
        assert distance(tree.flatten(a), tree.flatten(b)) == 0
        pair = [tree.flatten(each[client]["delta"]["params"]) for each in (plain, encoded)]
        differences.append(distance(*pair))
    assert max(differences) > 0


@pytest.mark.parametrize("rule", [{"name": "median"}, {"name": "mean", "pre": ["nnm"], "num_byzantine": 1}])
def test_top_k_is_refused_beside_a_robust_rule_and_bytes_are_not(rule: dict[str, object]) -> None:
    chosen = aggregation(**rule)
    with pytest.raises(Mistake, match=r'codec = "top_k": a rule other than the mean would take'):
        run(RECIPES["fedavg"], CODECS["top_k"], aggregation=chosen)
    assert run(RECIPES["fedavg"], CODECS["uint8"], rounds=1, aggregation=chosen, faults=None)[-1].reached


def test_top_k_works_where_only_statistics_are_robust() -> None:
    recipe = coterie.fbn(lr=0.1, batch_size=5, robust="statistics")
    assert run(recipe, CODECS["top_k"], aggregation=aggregation(name="median"))[-1].reached


def test_a_residual_is_kept_by_the_clients_whose_replies_count_and_by_no_others() -> None:
    """A client's own state counts only if its reply does, so a refused update is not half sent."""
    broken = Faults(corrupt=0.6)
    rounds = run(coterie.fedavg(lr=0.1, batch_size=5), CODECS["top_k"], rounds=2, keep_updates=True, faults=broken)
    arrived = {client for r in rounds for client in r.updates or ()}
    refused = {d["client"] for r in rounds for d in r.dropped} - arrived
    plan, store = rounds[-1].plan, rounds[-1].store
    assert {client for client in plan.ids if plan.client_state(store, client)["up"]} == arrived
    assert refused


def test_keys_by_hand() -> None:
    assert Communication("top_k").share == 0.01
    for given in ({"codec": "uint8", "share": 0.1}, {"share": 0.1}):
        with pytest.raises(Mistake, match="share"):
            Communication(**given)
    with pytest.raises(Mistake, match="codec"):
        Communication("gzip")  # type: ignore[arg-type]
