"""Lines and planes through models, with known barriers."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from coterie import Mistake
from coterie.core import tree
from coterie.models.batchnorm_statistics import recalibration
from coterie.models.functional import initial_weights
from coterie.probes import Surface, line, plane
from tests.federations import dense, ragged
from tests.probes.surfaces import ENGINE, network_surface, perturb, point, point_surface


def wells(outputs: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """(w_1^2 - 1)^2 + w_2^2: two valleys, at (-1, 0) and (1, 0), with a pass of height 1 between them."""
    return (outputs[:, 0] ** 2 - 1) ** 2 + outputs[:, 1] ** 2, torch.ones(len(outputs))


def bowl(outputs: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """|w|^2, which is convex."""
    return outputs.square().sum(1), torch.ones(len(outputs))


def test_between_two_valleys_there_is_a_barrier() -> None:
    found = line(point_surface(wells), point(-1.0, 0.0), point(1.0, 0.0))
    by_t = dict(zip(found.t, found.measures["loss"], strict=True))
    assert (found.barrier, found.distance, by_t[0.0], by_t[0.5]) == pytest.approx((1, 2, 0, 1))
    assert by_t[1.2] == pytest.approx((1.4**2 - 1) ** 2)  # beyond the second model


def test_a_barrier_is_measured_from_the_chord() -> None:
    """From the pass at (0, 0) down to (1, 0), the barrier is the largest difference from the chord."""
    found = line(point_surface(wells), point(0.0, 0.0), point(1.0, 0.0), ts=[0.0, 0.25, 0.5, 0.75, 1.0])
    chords = [loss - (1 - t) for t, loss in zip(found.t, found.measures["loss"], strict=True)]
    assert found.barrier == pytest.approx(max(chords))
    assert found.barrier == pytest.approx((0.25**2 - 1) ** 2 - 0.75)  # at t = 1/4


@given(st.integers(0, 1000))
def test_a_convex_loss_has_no_barrier(seed: int) -> None:
    """Logistic regression is convex between any two weights."""
    model = nn.Linear(6, 3).double()
    surface = network_surface(model, ragged()["1"], batch=50)
    found = line(surface, perturb(model, seed, by=3.0), perturb(model, seed + 1, by=3.0), ts=[0.0, 0.3, 0.5, 1.0])
    assert found.barrier == pytest.approx(0, abs=1e-9)
    assert all(0 <= accuracy <= 1 for accuracy in found.measures["accuracy"])


def test_the_ends_of_a_line_are_the_models() -> None:
    model = dense()
    a, b = perturb(model, 1), perturb(model, 2)
    surface = network_surface(model, ragged()["1"])
    found = line(surface, a, b, ts=[0.0, 1.0])
    assert found.measures["loss"] == [surface.at(a)["loss"], surface.at(b)["loss"]]
    with pytest.raises(Mistake, match=r"ts = \[0.0, 0.5\]: it must be a list with 0 and 1"):
        line(surface, a, b, ts=[0.0, 0.5])


def test_statistics_between_models_can_be_averaged_or_measured() -> None:
    """Beyond the models an averaged variance may be below 0; it counts as 0, so no loss is undefined."""
    model, examples = dense(), ragged()["1"]
    a, b = perturb(model, 1), perturb(model, 2)
    b = tree.merge(b, {"buffers": {"1.running_var": torch.full((8,), 100.0, dtype=torch.float64)}})
    averaged = network_surface(model, examples)
    measured = Surface(averaged.task, ENGINE, examples, recalibration(model, examples, ENGINE))
    before, after = line(averaged, b, a, ts=[0.0, 1.0, 1.2]), line(measured, b, a, ts=[0.0, 1.0, 1.2])
    assert all(loss == loss for loss in before.measures["loss"] + after.measures["loss"])
    assert before.measures["loss"][0] != pytest.approx(after.measures["loss"][0])


def test_a_plane_keeps_distances() -> None:
    """a = 0, b = (0, 3, 0) and c = (2, 1, 0) lie at (0, 0), (3, 0) and (1, 2) of the plane, where |w|^2 = x^2 + y^2."""
    models = [point(0.0, 0.0, 0.0), point(0.0, 3.0, 0.0), point(2.0, 1.0, 0.0)]
    found = plane(point_surface(bowl, d=3), *models, points=5, margin=0.5)
    assert found.models == ((0, 0), pytest.approx((3, 0)), pytest.approx((1, 2)))
    assert (found.x[0], found.x[-1], found.y[0], found.y[-1]) == pytest.approx((-1.5, 4.5, -1, 3))
    for y, row in zip(found.y, found.measures["loss"], strict=True):
        assert row == pytest.approx([x**2 + y**2 for x in found.x])


def test_three_models_on_a_line_span_no_plane() -> None:
    models = [point(float(k), 2.0 * k) for k in range(3)]
    with pytest.raises(Mistake, match="lie on one line"):
        plane(point_surface(bowl), *models)
    with pytest.raises(Mistake, match="lie on one line"):
        plane(point_surface(bowl), models[0], models[0], models[1])
    with pytest.raises(Mistake, match="points = 1: it must be 2 or more"):
        plane(point_surface(bowl), *models, points=1)


def test_progress_sees_every_place() -> None:
    seen: list[object] = []

    def record(places):
        for place in places:
            seen.append(place)
            yield place

    plane(point_surface(bowl), point(0.0, 0.0), point(1.0, 0.0), point(0.0, 1.0), points=3, progress=record)
    assert len(seen) == 9


def test_measuring_a_line_does_not_change_the_models() -> None:
    model = dense()
    a, b = initial_weights(model), perturb(model, 3)
    kept = tree.clone(a)
    line(network_surface(model, ragged()["1"]), a, b, ts=[0.0, 0.5, 1.0])
    assert all(torch.equal(x, y) for x, y in zip(tree.leaves(a), tree.leaves(kept), strict=True))
