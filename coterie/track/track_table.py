"""Where the numbers of a run are sent besides its folder, as plain options: the table [track]."""

from __future__ import annotations

from dataclasses import dataclass

from coterie.core.errors import Mistake
from coterie.core.registry import Registry

TRACKERS = Registry(
    "to",
    {
        "tensorboard": "coterie.track.tensorboard_tracker:TensorBoardTracker",
        "mlflow": "coterie.track.mlflow_tracker:MlflowTracker",
        "wandb": "coterie.track.wandb_tracker:WandbTracker",
    },
)
"""The trackers by name; each is a class, see `coterie.track.trackers.Tracker`."""
_KEEP_MODELS = ("mlflow", "wandb")


@dataclass(frozen=True)
class Track:
    """[track]: which trackers get the rounds, the settings and the summary of a run.

    Attributes:
        to: names of trackers; None: none. The run folder has the same numbers in any case.
        model: whether the trackers get the weights at the end too.

    Raises:
        Mistake: there is no tracker of a name, a name stands twice, or no tracker keeps models and `model` is set.
    """

    to: list[str] | None = None
    model: bool = False

    def __post_init__(self) -> None:
        names = self.to or []
        for name in names:
            if name not in TRACKERS:
                raise Mistake(key="to", value=name, allowed=TRACKERS.offer())
        if len(set(names)) < len(names):
            raise Mistake(key="to", value=self.to, allowed="names, each once")
        if self.model and not set(names) & set(_KEEP_MODELS):
            raise Mistake(
                f"only {' and '.join(_KEEP_MODELS)} keep models; name one of them in `to`, or leave it out",
                key="model",
                value=True,
            )
