"""Compare the weights that a run between silos ended with to those of the simulation of the same file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from coterie.core.threads import compute_with
from coterie.experiment.build_experiment import Experiment
from coterie.loop.evaluate import Evaluation
from coterie.loop.federate import federate
from coterie.track.file_writing import client_file_names
from coterie.track.run_folder import weights_file


@dataclass(frozen=True)
class Comparison:
    """How far the weights of two runs lie apart.

    Attributes:
        same_bits: whether they are equal in every bit.
        difference: the largest, of one number.
        dropped: how many updates did not count in the run between silos.
        hidden_noise: whether each of both drew noise from a secret of its own.
    """

    same_bits: bool
    difference: float
    dropped: int
    hidden_noise: bool = False

    def sentence(self) -> str:
        """Return the result in a sentence."""
        if self.same_bits:
            return "the weights are the simulation's, bit for bit"
        why = ""
        if self.dropped:
            why = f"; {self.dropped} updates did not count here and did there, see `dropped` in rounds.jsonl"
        if self.hidden_noise:
            why += (
                '; the noise of each comes from a secret of its own, and with privacy.noise = "rng_seed" it is the same'
            )
        return f"the weights differ from the simulation's by {self.difference:.2g} at most{why}"


def compare_with_simulation(folder: Path, simulation: Experiment, rounds: int, dropped: int) -> Comparison:
    """Simulate as many rounds as were run, and compare the weights with those in a run folder.

    Args:
        folder: of the run between silos, which is finished.
        simulation: of the same file; it is run here, on its own engine.
        rounds: how many were run.
        dropped: how many updates did not count in them.
    """
    own, threads = simulation.plan.algorithm.traits.own_models, simulation.settings.engine.threads
    assert threads != "auto", "the settings are resolved"
    evaluation = Evaluation(every=simulation.plan.rounds)  # nothing is measured
    with compute_with(threads):
        for last in federate(replace(simulation.plan, evaluation=evaluation), warn=lambda sentence: None):
            if last.round == rounds:
                break
    names = client_file_names(simulation.plan.ids) if own else {}
    same, difference = True, 0.0
    for client in simulation.plan.ids if own else simulation.plan.ids[:1]:
        ours = safetensors.torch.load_file(folder / weights_file(names.get(client)))
        theirs = simulation.plan.tasks[simulation.plan.architecture(client)].state_dict(
            simulation.plan.evaluated_weights(last.state, last.store, client)
        )
        same = same and _same_bits(ours, theirs)
        difference = max([difference, *(_difference(x, ours.get(name)) for name, x in theirs.items())])
    privacy = simulation.plan.either_guarantee
    return Comparison(same, difference, dropped, privacy is not None and privacy.noise == "secret")


def _same_bits(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(
        ours[name].dtype == x.dtype and torch.equal(ours[name].nan_to_num(7.0), x.cpu().nan_to_num(7.0))
        for name, x in theirs.items()
    )


def _difference(x: Tensor, other: Tensor | None) -> float:
    """Return the largest difference of two tensors; infinite if they have not the same shape."""
    if other is None or x.shape != other.shape:
        return float("inf")
    return float((x.cpu().double() - other.double()).abs().max()) if x.numel() else 0.0
