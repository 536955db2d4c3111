"""A run without a server, as one participant carries it out: the experiment of `coterie run`, of which it is a client.

Its examples are those of its own file, about which all participants agree first (`coterie.experiment.peer_rows`). Where
the file deals rows to clients, as a simulation does, they are the rows of the client of its name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from coterie.core.digests import digest
from coterie.core.errors import Mistake, few
from coterie.core.packing import pack
from coterie.experiment.algorithm_options import complete_algorithm
from coterie.experiment.build_experiment import Experiment, build_experiment
from coterie.experiment.engine_choice import Machine
from coterie.experiment.peer_rows import (
    agree_on_data,
    holds_own_rows,
    load_participant_rows,
    participant_experiment,
    without_dealing,
)
from coterie.experiment.settings import Settings
from coterie.experiment.tables import TABLES
from coterie.loop.cohort import Cohort
from coterie.loop.plan import Plan, Resume, Round
from coterie.peers.agreed_rounds import take_part
from coterie.peers.first_sight import exchange_keys
from coterie.peers.keys import PrivateKey, load_key, make_key
from coterie.peers.names import spell
from coterie.peers.objects import open_objects
from coterie.peers.own_plan import own_plan, require_computable
from coterie.peers.pace import Pace
from coterie.peers.roster import Roster, read_roster
from coterie.peers.signed_mailbox import SignedMailbox
from coterie.track import RunFolder
from coterie.track.run_folder import ROSTER_FILE

_EARLY = ("rng_seed", "data", "algorithm", "cohort", "aggregation", "seed_set")
"""What participants compare before they know their data: it is the same in the file and in a run folder's config.toml,
where nothing is left open any more."""
_OWN = ("engine", "evaluate", "probe", "pretrain", "rounds", "track")
"""Tables and keys in which participants may differ. Weights to start from must be the same, and are compared."""


def default_key(me: str) -> Path:
    """Return where a participant's private key lies unless it says otherwise."""
    return Path.home() / ".coterie" / "keys" / f"{spell(me)}.key"


@dataclass
class Peer:
    """One participant of a run without a server; see `coterie.experiment.shared_run.Participation`.

    Attributes:
        me: the client that this participant is.
        url: the mailbox, a path or a URL.
        roster: the file of public keys. None: keys are taken from the mailbox at first sight.
        key: the file of the private key.
        pace: how long participants wait for one another.
        names_own_file: whether it gives another `data.path` than the experiment's file, which then holds its own rows.
        say: is told what the user should know.
    """

    me: str
    url: str
    roster: Path | None = None
    key: Path | None = None
    pace: Pace = field(default_factory=Pace)
    names_own_file: bool = False
    say: Callable[[str], None] = lambda sentence: None

    def adapt(self, settings: Settings) -> Settings:
        """Return the settings with one client at a time and one process; see `Participation`.

        Raises:
            Mistake: they ask for what only a simulation, or a server, has.
        """
        for table, is_set in (
            ("attack", settings.attack["name"] != "none"),
            ("probe", bool(settings.probe)),
            ("faults", any(vars(settings.faults).values())),
        ):
            if is_set:
                raise Mistake(
                    f"[{table}] belongs to a simulation, in which one process sees every update; leave it out where "
                    "participants train without a server"
                )
        if settings.privacy.unit != "none":
            raise Mistake(
                "every participant sees every update, so no server can add noise to their sum; run between silos, with "
                "a coordinator, or leave the table out",
                key="unit",
                value=settings.privacy.unit,
                table="privacy",
            )
        if settings.privacy.secure_sum:
            raise Mistake(
                "every participant checks every update, so none can be hidden; run between silos, with a "
                "coordinator, or leave it out",
                key="secure_sum",
                value=True,
                table="privacy",
            )
        for key in ("target_accuracy", "target", "patience"):
            value = getattr(settings.evaluate, key)
            if value is not None:
                raise Mistake(
                    "each participant measures on test rows of its own, so one of them would stop alone; leave it out",
                    key=key,
                    value=value,
                    table="evaluate",
                )
        if settings.engine.workers not in ("auto", 1):
            raise Mistake(
                "a participant is one process; leave it out",
                key="workers",
                value=settings.engine.workers,
                table="engine",
            )
        name = "sequential" if settings.engine.name == "auto" else settings.engine.name
        self._own_rows = holds_own_rows(settings, self.names_own_file)
        if self._own_rows:
            unused = [key for key in ("num_clients", "examples_per_client") if settings.data.get(key) is not None]
            if unused:
                self.say(f"data.{', data.'.join(unused)}: without effect, since {self.me} has rows of its own")
            settings = without_dealing(settings)
        return replace(settings, engine=replace(settings.engine, name=name, workers=1))

    def build(
        self, settings: Settings, machine: Machine, folder: RunFolder, start_folder: Path | None = None
    ) -> Experiment:
        """Return the experiment of this participant's client; see `Participation`.

        Raises:
            Mistake: its name, key, roster or data do not fit, or its algorithm needs a server.
        """
        key = self._key()
        if self._own_rows:
            experiment, roster, parts = self._agree(complete_algorithm(settings), machine, folder, key, start_folder)
        else:
            experiment = build_experiment(settings, machine, start_folder)
            roster, parts = self._roster(list(experiment.plan.ids), folder, key), {}
        plan = _population(experiment, self.me, roster)
        parts |= _parts(experiment.settings, plan.algorithm.traits.own_models) | _seed_set_part(plan)
        self._mailbox = self._open(roster, key, parts)
        require_computable(plan, self._mailbox)
        plan.cohort_size()
        self._plan, alone = plan, replace(own_plan(plan, self.me), cohort=Cohort())
        clients = {self.me: plan.clients[self.me]}
        return replace(experiment, plan=alone, clients=clients, bytes_once={}, why="")

    def rounds(self, folder: RunFolder, resume: Resume | None, warn: Callable[[str], None]) -> Iterator[Round]:
        """Yield the rounds that are left; see `Participation`."""
        folder.write_roster(self._mailbox.roster.text())
        for round in take_part(self._plan, self._mailbox, self.pace, resume, warn):
            yield replace(round, plan=replace(round.plan, cohort=Cohort()))

    def _agree(
        self, settings: Settings, machine: Machine, folder: RunFolder, key: PrivateKey, start_folder: Path | None
    ) -> tuple[Experiment, Roster, dict[str, str]]:
        """Return the experiment on this participant's own rows, who takes part, and a digest of what they agree on."""
        rows = load_participant_rows(settings, self.me, self.say)
        roster = self._roster(list(settings.model.get("clients", {})), folder, key)
        left_open = replace(settings, data=settings.data | {"standardize": None})  # it is agreed on
        parts = _parts(left_open, own_models=False)
        mailbox = self._open(roster, key, {name: parts[name] for name in _EARLY})
        agreed = agree_on_data(settings, rows, mailbox, self.pace.start_deadline, self.say)
        experiment = participant_experiment(agreed, rows, self.me, machine, start_folder)
        return experiment, roster, {"agreement on the data": agreed.digest}

    def _open(self, roster: Roster, key: PrivateKey, parts: dict[str, str]) -> SignedMailbox:
        return SignedMailbox(open_objects(self.url), roster, self.me, key, parts, say=self.say)

    def _key(self) -> PrivateKey:
        """Return the private key, which is made where no file and no roster is named and there is none."""
        path = self.key or default_key(self.me)
        if self.key is None and self.roster is None and not path.exists():
            self.say(f"{path}: made a private key for {self.me}; keep it here and show it to nobody")
            return make_key(path)
        return load_key(path)

    def _roster(self, names: list[str], folder: RunFolder, key: PrivateKey) -> Roster:
        """Return the roster: the one that is named, that of the run so far, or the keys of `names` in the mailbox."""
        if self.roster is not None:
            return read_roster(self.roster)
        if (folder.path / ROSTER_FILE).is_file():
            return read_roster(folder.path / ROSTER_FILE)
        if not names:
            raise Mistake(
                "the file does not name the clients: name the participants and their keys with --roster, to which each "
                "gives the line that `coterie peer-key` prints"
            )
        if self.me not in names:
            raise Mistake(
                f"the clients of the file are {few(names, 5)}, and {self.me} is none of them: name all participants "
                "and their keys with --roster, or give the right --id"
            )
        roster = exchange_keys(open_objects(self.url), names, self.me, key, self.pace.start_deadline, self.say)
        self.say(
            f"no roster: the keys that lie in the mailbox are trusted. Compare {roster.digest[:16]} with the other "
            "participants by phone; it is the same for all if nobody has put in keys of their own"
        )
        return roster


def _population(experiment: Experiment, me: str, roster: Roster) -> Plan:
    """Return the plan with all participants as clients, in the order in which a simulation has them."""
    plan = experiment.plan
    if me not in roster.keys:
        raise Mistake(f"{me} is not in the roster, which has {few(sorted(roster.keys), 5)}")
    if plan.algorithm.traits.pooled:
        raise Mistake("this algorithm pools all data in one place, and participants keep theirs; choose another")
    ids = _in_order(roster.keys, experiment.settings.data["partition"])
    unknown = [name for name in ids if name not in plan.ids]
    if unknown:
        raise Mistake(
            f"the file deals its rows to {few(list(plan.ids), 5)}, and the roster has {unknown[0]}; give the roster "
            "the clients' names, or let each participant name its own file, by data.path=FILE"
        )
    return replace(plan, ids=ids)


def _in_order(names: Iterable[str], partition: str | None) -> tuple[str, ...]:
    """Return names in the order of the clients: numbers by value, unless the data name their clients themselves."""
    names = list(names)
    if partition != "natural" and all(name.isdecimal() for name in names):
        return tuple(sorted(names, key=int))
    return tuple(sorted(names))


def _parts(settings: Settings, own_models: bool) -> dict[str, str]:
    """Return digests of what all participants must have alike in their settings, for every table of a file."""
    given = settings.tables()
    tables: dict[str, Any] = {"rng_seed": given["rng_seed"]} | {name: given.get(name, {}) for name in TABLES}
    for name in ("data", "seed_set"):
        tables[name] = {k: v for k, v in tables[name].items() if k != "path"}
    own = (*_OWN, "model") if own_models else _OWN
    return {
        name: digest(json.dumps(table, sort_keys=True).encode()) for name, table in tables.items() if name not in own
    }


def _seed_set_part(plan: Plan) -> dict[str, str]:
    """Return a digest of the seed set, which all participants must have alike."""
    if plan.seed_set is None:
        return {}
    x, y = plan.seed_set.tensors()
    return {"seed_set's examples": digest(pack({"x": x} if y is None else {"x": x, "y": y}))}
