"""Build the training that a pre-training's settings describe, and decide what they leave open."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace

import torch
from torch import nn

from coterie.core.errors import Mistake, mistakes_in, reason
from coterie.engines.mixed_precision import check_precision
from coterie.experiment.engine_choice import Machine
from coterie.experiment.make_model import make_model
from coterie.experiment.pretraining_settings import Pretraining
from coterie.experiment.resolve_engine import find_device
from coterie.pretrain.fps import Trainer

CLASSIFIER_CLASSES = 10
"""Classes of the classifier that a model is made with."""
MIN_TIMED_STEPS, MIN_TIMED_SECONDS = 4, 2.0
"""This many steps and this many seconds are timed, to find how many steps a number of minutes holds."""


def build_trainer(settings: Pretraining) -> tuple[nn.Module, Trainer]:
    """Return the model as its author wrote it, and its training before the first step.

    Raises:
        Mistake: the model cannot be made, does not fit the images, or has nothing to train but a classifier.
    """
    size, given = settings.pretrain.image_size, settings.model
    shape = [settings.pretrain.channels, size, size]
    model = make_model(given, given["name"], shape, CLASSIFIER_CLASSES, settings.rng_seed, settings.folders)
    device = find_device(settings.device)
    with mistakes_in("engine"):
        check_precision(settings.precision, torch.float32, device)
    with mistakes_in("pretrain"):
        trainer = Trainer(
            settings.pretrain,
            model,
            settings.rng_seed,
            device,
            compile=settings.compile,
            precision=settings.precision,
        )
    try:
        trainer.check_images(torch.zeros(2, *shape))
    except (RuntimeError, ValueError, IndexError, TypeError, NotImplementedError) as error:
        if isinstance(error, Mistake):
            raise
        raise Mistake(
            f"the model cannot take images of shape {shape} ({reason(error)}); choose another",
            key="name",
            value=given["name"],
            table="model",
        ) from error
    return model, trainer


def resolve_pretraining(settings: Pretraining, machine: Machine) -> Pretraining:
    """Return the settings with nothing left open: a device, a number of steps, and what follows from the image size.

    Where only minutes are given, the first steps are taken and timed, once, before the training begins. From then on
    the number of steps is a setting like any other: no time is measured again, and the run can be repeated.

    Raises:
        Mistake: as `build_trainer`.
    """
    device = machine.device if settings.device == "auto" else settings.device
    settings = replace(settings, device=device, pretrain=settings.pretrain.resolve())
    if settings.pretrain.steps is not None:
        build_trainer(settings)  # its mistakes must be found before anything is written
        return settings
    assert settings.pretrain.minutes is not None, "one of the two was asked for"
    _, trainer = build_trainer(replace(settings, pretrain=replace(settings.pretrain, steps=1)))
    steps = max(1, round(60 * settings.pretrain.minutes / _seconds_per_step(trainer)))
    return replace(settings, pretrain=replace(settings.pretrain, steps=steps))


def _seconds_per_step(trainer: Trainer) -> float:
    """Take some steps, and return the median of their seconds, without the first step's."""
    taken: list[float] = []
    while len(taken) < MIN_TIMED_STEPS or sum(taken) < MIN_TIMED_SECONDS:
        began = time.perf_counter()
        float(trainer.advance()["loss"])  # which waits for a device
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[1:])
