"""Augmentation inside the training forward."""

import torch
from torch import Tensor, nn

import coterie
from coterie.core import rng
from coterie.data.augment import augmentation
from coterie.models.functional import initial_weights, make_task
from coterie.objectives import cross_entropy
from tests.common.test_every_algorithm import ENGINES
from tests.federations import convolutional, distance, ragged


def test_only_training_sees_augmented_examples_and_the_key_alone_decides() -> None:
    def times(x: Tensor, key: Tensor) -> Tensor:
        return x * (1 + rng.uniform(key, (x.shape[0], 1)))

    model = nn.Linear(3, 2)
    task, weights = make_task(model, loss=cross_entropy, augment=times), initial_weights(model)
    x = torch.ones(4, 3)

    def outputs(key: int) -> Tensor:
        return task.apply(weights["params"], {}, x, None, torch.tensor(key))[0]

    assert torch.equal(task.predict(weights["params"], {}, x), model(x))
    assert torch.equal(outputs(1), outputs(1))
    assert not torch.equal(outputs(1), outputs(2))
    assert not torch.equal(outputs(1)[0], outputs(1)[1])


def test_engines_agree_under_augmentation() -> None:
    """Padded batches draw the same numbers for their real examples as short ones do."""
    weights = [
        list(
            coterie.federate(
                coterie.fedavg(lr=0.1, batch_size=5),
                convolutional(),
                ragged(shape=(1, 8, 8)),
                rounds=2,
                engine=make(),
                augment=augmentation("crop_flip"),
            )
        )[-1].weights()
        for make in ENGINES.values()
    ]
    assert distance(weights[0], weights[1]) < 1e-10
    assert distance(weights[0], weights[2]) < 1e-10
    plain = list(
        coterie.federate(
            coterie.fedavg(lr=0.1, batch_size=5),
            convolutional(),
            ragged(shape=(1, 8, 8)),
            rounds=2,
            engine=ENGINES["sequential"](),
        )
    )[-1].weights()
    assert distance(weights[0], plain) > 1e-4
