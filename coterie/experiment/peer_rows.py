"""A participant whose file holds its own rows: all agree on shapes, classes, categories and scale through the mailbox.

Each participant leaves its facts in the mailbox, counts and names and never a row, and then, where columns are
standardised by the federated exchange, its sums. Each merges the letters of all by the rules by which a coordinator of
silos does (`coterie.experiment.silos`). So all reach one agreement, that of a simulation with everybody's rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from coterie.core.digests import digest
from coterie.core.errors import Mistake
from coterie.core.packing import pack, unpack
from coterie.core.tree import Tree
from coterie.data import SOURCES
from coterie.data.origins import Origins
from coterie.data.standardize import Scale
from coterie.data.unusual_data import remarks_on_data
from coterie.experiment.build_experiment import Experiment, Prepared, assemble_experiment
from coterie.experiment.choose_seed_set import choose_seed_set, refuse_dealt_seed_set
from coterie.experiment.engine_choice import Machine
from coterie.experiment.read_keys import registry_keys
from coterie.experiment.settings import Settings
from coterie.experiment.silos.facts import Facts, read_facts
from coterie.experiment.silos.load_own_rows import load_own_rows
from coterie.experiment.silos.merge_facts import Merged, merge_facts
from coterie.experiment.silos.own_rows import OwnRows
from coterie.experiment.silos.plans import needs_scale, scale_of, standardize_own, sum_clients
from coterie.experiment.silos.silo_file import SiloFile
from coterie.experiment.silos.silo_settings import complete_data
from coterie.experiment.silos.stand_ins import make_stand_ins
from coterie.peers.exchange import exchange_letters
from coterie.peers.letter import Letter
from coterie.peers.signed_mailbox import SignedMailbox

MAX_SUMS_BYTES = 2**26
"""The longest sums that are read."""


@dataclass(frozen=True)
class Agreed:
    """What all participants have agreed on.

    Attributes:
        settings: with the standardisation that all data together suggest.
        merged: see there.
        scale: of the federated exchange, or None.
    """

    settings: Settings
    merged: Merged
    scale: Scale | None

    @property
    def digest(self) -> str:
        """SHA-256 of what all must have alike."""
        scale = None if self.scale is None else [self.scale.mean.tolist(), self.scale.deviation.tolist()]
        agreement = [self.merged.agreement.to_record(), self.settings.data["standardize"], scale]
        return digest(json.dumps(agreement, sort_keys=True).encode())


def holds_own_rows(settings: Settings, names_own_file: bool) -> bool:
    """Return whether the data are this participant's own, and not dealt as a simulation deals them.

    They are where the source is a file, or a function of the user's own, and no clients are made of its rows; and where
    this participant names its own file.

    Args:
        settings: of the experiment.
        names_own_file: whether this participant gives another `data.path` than the experiment's file.
    """
    source, data = settings.data["source"], settings.data
    if "path" not in registry_keys(SOURCES, source, settings.folders) and ":" not in source:
        return False
    is_dealt = data.get("num_clients") is not None or data["partition"] not in (None, "natural")
    return names_own_file or not is_dealt


def without_dealing(settings: Settings) -> Settings:
    """Return the settings without keys that deal rows to clients, which mean nothing for rows of one's own.

    Raises:
        Mistake: the seed set is to be taken from the clients' rows.
    """
    refuse_dealt_seed_set(
        settings, "rows of each participant would go to all others; name a set that everyone holds, by seed_set.source"
    )
    kept = {*registry_keys(SOURCES, settings.data["source"], settings.folders), "source", "standardize", "augment"}
    data = {key: value if key in kept else None for key, value in settings.data.items()}
    return replace(settings, data=data | {"partition": "natural"})


def load_participant_rows(settings: Settings, me: str, say: Callable[[str], None]) -> OwnRows:
    """Return the rows of a participant: those that carry its name in the client column, or all of its file.

    Raises:
        Mistake: the data are missing or damaged, cannot be used, or hold no row of this participant.
    """
    keys = registry_keys(SOURCES, settings.data["source"], settings.folders)
    data = {key: settings.data[key] for key in keys if key != "rng_seed" and settings.data.get(key) is not None}
    if "task" in keys and settings.task.kind is not None:
        data["task"] = settings.task.kind
    file = SiloFile(Path(), me, None, settings.data["source"], data, folders=settings.folders)
    try:
        rows = load_own_rows(file, settings.rng_seed)
    except Mistake as mistake:
        if mistake.key != "client_column" or "path" not in data:
            raise
        say(f"{data['path']}: has no column {data['client_column']}, so all of its rows are those of {me}")
        file = replace(file, data={key: value for key, value in data.items() if key != "client_column"})
        rows = load_own_rows(file, settings.rng_seed)
    return rows if list(rows.clients) == [me] else load_own_rows(replace(file, clients=[me]), settings.rng_seed)


def agree_on_data(
    settings: Settings, rows: OwnRows, mailbox: SignedMailbox, deadline: float, say: Callable[[str], None]
) -> Agreed:
    """Return what all participants agree on, once all have come.

    Args:
        settings: of the experiment, from `without_dealing`.
        rows: this participant's.
        mailbox: of what is known before the data are.
        deadline: seconds to wait for all.
        say: is told who is waited for.

    Raises:
        Mistake: not all come, a participant's data do not fit the others', or this one's have changed since it came.
    """
    mailbox.announce()
    mine = {"rows": rows.facts().to_record(), "standardize": settings.data["standardize"]}
    letters = exchange_letters(mailbox, "facts", mine, deadline=deadline, say=say)
    left = letters[mailbox.me].facts
    if left.get("rows") != json.loads(json.dumps(mine["rows"])):
        raise Mistake(
            f"the data of {mailbox.me} are not those with which it came into this mailbox; put them back, or start all "
            "participants in a new mailbox"
        )
    facts = {name: _read_facts(letter, name) for name, letter in sorted(letters.items())}
    merged = merge_facts(facts)
    settings = complete_data(_agree_on_standardization(settings, letters, mailbox.me), merged.agreement)
    if not needs_scale(settings):
        return Agreed(settings, merged, None)
    own = pack(sum_clients(rows, merged.agreement)[mailbox.me])
    letters = exchange_letters(mailbox, "sums", {}, own, max_bytes=MAX_SUMS_BYTES, deadline=deadline, say=say)
    return Agreed(settings, merged, scale_of({name: _read_sums(each) for name, each in letters.items()}, merged))


def participant_experiment(
    agreed: Agreed, rows: OwnRows, me: str, machine: Machine, start_folder: Path | None = None
) -> Experiment:
    """Return the experiment of all participants, in which only this one's rows are real.

    The others have stand-ins with their counts and labels, so that the plan has all clients in the order of a
    simulation; nobody trains on them. Test rows are this participant's own.

    Raises:
        Mistake: the settings do not fit the data.
    """
    settings, agreement = agreed.settings, agreed.merged.agreement
    ready = standardize_own(rows.examples(agreement), settings, agreed.scale)
    stand_ins = make_stand_ins(agreed.merged, settings.data["source"]).clients
    remarks = remarks_on_data(ready.source, ready.clients)
    ready = replace(ready, clients=stand_ins | {me: ready.clients[me]})
    origins = Origins(contents={settings.data["source"]: {"rows": rows.digest}})
    prepared = Prepared(settings, ready, choose_seed_set(settings, ready), origins, remarks)
    experiment = assemble_experiment(prepared, machine, start_folder)
    task = experiment.settings.task
    if task.class_weights == "balanced" and task.kind not in ("classification", "binary"):
        raise Mistake(
            f"participants count one class for each row, and this is a {task.kind} task; give numbers",
            key="class_weights",
            value=task.class_weights,
            table="task",
        )
    kept = experiment.plan.evaluation
    evaluation = replace(kept, own=None if kept.test is None else {me: kept.test}, shares=None)
    return replace(experiment, plan=replace(experiment.plan, evaluation=evaluation))


def _read_facts(letter: Letter, name: str) -> Facts:
    """Return a participant's facts.

    Raises:
        Mistake: they are not what an honest participant sends.
    """
    facts = read_facts(letter.facts.get("rows"), name)
    if [each.client for each in facts.clients] != [name]:
        raise Mistake(f"{name}: its data are those of other clients too; let it name its own file, by data.path")
    return facts


def _agree_on_standardization(settings: Settings, letters: Mapping[str, Letter], me: str) -> Settings:
    """Return the settings with the standardisation that all participants have named.

    Raises:
        Mistake: they differ in it.
    """
    named: dict[str, Any] = {name: letter.facts.get("standardize") for name, letter in letters.items()}
    other = next((name for name, how in named.items() if how != named[me]), None)
    if other is not None:
        raise Mistake(
            f"{other} standardises by {named[other]}, and {me} by {named[me]}; all need the same",
            key="standardize",
            value=named[me],
            table="data",
        )
    return replace(settings, data=settings.data | {"standardize": named[me]})


def _read_sums(letter: Letter) -> Tree:
    """Return the sums in a letter; nothing if it holds none, which `scale_of` refuses."""
    try:
        return unpack(letter.body)
    except Exception:  # another's bytes: they may break anything
        return {}
