"""Attack a finished run as others could, and keep what was found in its folder: privacy.json, and in the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from coterie.core.digests import file_digest
from coterie.core.errors import Mistake, require
from coterie.experiment.finished_run import WEIGHTS_FILE, FinishedRun, load_finished_run
from coterie.experiment.infer_members import MembershipOptions, infer_members
from coterie.experiment.invert_updates import InversionOptions, Progress, UpdateAttack
from coterie.report.run_page import write_report
from coterie.track import RunFolder
from coterie.track.run_folder import SILOS_FILE

Attack = Literal["both", "inversion", "membership"]


@dataclass(frozen=True)
class PrivacyProbe:
    """Which attacks are made.

    Attributes:
        attack: "inversion" of an update, "membership" from the model, or "both".

    Raises:
        Mistake: there is no such attack.
    """

    attack: Attack = "both"
    inversion: InversionOptions = field(default_factory=InversionOptions)
    membership: MembershipOptions = field(default_factory=MembershipOptions)

    def __post_init__(self) -> None:
        known = self.attack in ("both", "inversion", "membership")
        require("attack", self.attack, known, "both, inversion or membership")


def probe_privacy(
    folder: Path, others: Sequence[Path], probe: PrivacyProbe, progress: Progress, trust: bool = False
) -> dict[str, Any]:
    """Attack the run in a folder; write privacy.json there and the report again. Return what was found.

    Args:
        folder: of the run.
        others: folders of further runs whose models are attacked too, such as the same file with a protection.
        probe: which attacks.
        progress: what shows how far they are.
        trust: whether code that the folders name may be run.

    Raises:
        Mistake: a folder is not one of a finished run with one model, its data are at silos or cannot be had, it learns
            without labels, or an attack does not apply to it. Nothing is written then.
    """
    run, *further = (_load(each, trust) for each in (folder, *others))
    attack = UpdateAttack(run, probe.inversion) if probe.attack != "membership" else None  # refuses before the work
    found: dict[str, Any] = {"model": file_digest(folder / WEIGHTS_FILE)}
    if probe.attack != "inversion":
        found["membership"] = [
            {"run": each.folder.resolve().name, **row}
            for each in (run, *further)
            for row in infer_members(each, probe.membership, progress)
        ]
    if attack is not None:
        found["inversion"] = attack.measure(progress)
    with RunFolder(folder).hold():
        RunFolder(folder).write_privacy(found)
        write_report(folder)
    return found


def _load(folder: Path, trust: bool) -> FinishedRun:
    """Load a run; refuse one whose examples cannot be attacked from here."""
    if (folder / SILOS_FILE).is_file():
        raise Mistake(
            f"{folder}: its clients' examples are at silos, so they cannot be attacked from here; run its file in "
            "simulation, and give that folder"
        )
    run = load_finished_run(folder, trust)
    if not run.experiment.plan.algorithm.traits.predicts or run.experiment.source.train.y is None:
        raise Mistake(
            f"{folder}: it learns without labels, and the attacks need the loss of a labelled example; give a run that "
            "predicts labels"
        )
    return run
