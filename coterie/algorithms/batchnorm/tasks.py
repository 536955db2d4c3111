"""Tasks whose BatchNorm layers call a normaliser."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from coterie.core.errors import Mistake
from coterie.core.normaliser import Normaliser, statistic_names
from coterie.core.task import Task
from coterie.core.tree import Tree


def with_normaliser(task: Task, normaliser: Normaliser) -> Task:
    """Return the task, its BatchNorm layers calling the normaliser in training; refuse a model that has none.

    After a forward, their buffers hold what they reported; see `coterie.core.task.Task.apply_with`.

    Raises:
        Mistake: the model has no BatchNorm layer, or one that cannot call a normaliser.
    """
    if task.unsupported_batch_norms:
        raise Mistake(
            f"model: the BatchNorm layer {task.unsupported_batch_norms[0] or 'itself'} cannot be given running "
            "statistics; make it a torch.nn.BatchNorm layer with track_running_stats = True"
        )
    if not task.batch_norms or task.apply_with is None:
        all_frozen = any(name.endswith("running_mean") for name in task.frozen)
        reason = "its BatchNorm layers are all frozen" if all_frozen else "it has no BatchNorm layer"
        raise Mistake(f"model: {reason}, and this algorithm needs one that trains; choose fedavg")
    return replace(task, apply=task.apply_with(normaliser))


def keep_statistics(task: Task) -> Task:
    """Return the task, its forward leaving the running statistics of BatchNorm layers unchanged."""
    kept = {name for layer in task.batch_norms for name in statistic_names(layer)}

    def apply(params: Tree, buffers: Tree, x: Tensor, mask: Tensor | None, key: Tensor) -> tuple[Tensor, Tree]:
        outputs, after = task.apply(params, buffers, x, mask, key)
        return outputs, {name: buffers[name] if name in kept else b for name, b in after.items()}

    return replace(task, apply=apply)
