"""A run without a server, as one participant carries it out: the experiment of `coterie run`, of which it is a client.

Its examples are the rows that the file deals to the client of its name. Where its data deal one client alone, they are
its own, whatever that client is called.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from coterie.core.digests import digest
from coterie.core.errors import Mistake, few
from coterie.core.packing import pack
from coterie.experiment.build_experiment import Experiment
from coterie.experiment.settings import Settings
from coterie.loop.cohort import Cohort
from coterie.loop.plan import Plan, Resume, Round
from coterie.peers.agreed_rounds import Pace, take_part
from coterie.peers.first_sight import exchange_keys
from coterie.peers.keys import PrivateKey, load_key, make_key
from coterie.peers.mailbox import spell
from coterie.peers.objects import open_objects
from coterie.peers.own_plan import own_plan, require_computable
from coterie.peers.roster import Roster, read_roster
from coterie.peers.signed_mailbox import SignedMailbox
from coterie.track import RunFolder
from coterie.track.run_folder import ROSTER_FILE

_OWN = ("engine", "evaluate", "probe", "pretrain", "rounds")
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
        say: is told what the user should know.
    """

    me: str
    url: str
    roster: Path | None = None
    key: Path | None = None
    pace: Pace = field(default_factory=Pace)
    say: Callable[[str], None] = lambda sentence: None

    def adapt(self, settings: Settings) -> Settings:
        """Return the settings with one client at a time and one process; see `Participation`.

        Raises:
            Mistake: they ask for what only a simulation has.
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
        if settings.engine.workers not in ("auto", 1):
            raise Mistake(
                "a participant is one process; leave it out",
                key="workers",
                value=settings.engine.workers,
                table="engine",
            )
        name = "sequential" if settings.engine.name == "auto" else settings.engine.name
        self._cohort = settings.cohort
        engine = replace(settings.engine, name=name, workers=1)
        return replace(settings, engine=engine)

    def join(self, experiment: Experiment, folder: RunFolder) -> Experiment:
        """Return the experiment of this participant's client; see `Participation`.

        Raises:
            Mistake: its name, key, roster or data do not fit, or its algorithm needs a server.
        """
        key = self._key()
        roster = self._roster(experiment, folder, key)
        plan = replace(_population(experiment, self.me, roster), cohort=self._cohort)
        self._mailbox = SignedMailbox(
            open_objects(self.url), roster, self.me, key, _parts(experiment, plan), say=self.say
        )
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

    def _key(self) -> PrivateKey:
        """Return the private key, which is made where no file and no roster is named and there is none."""
        path = self.key or default_key(self.me)
        if self.key is None and self.roster is None and not path.exists():
            self.say(f"{path}: made a private key for {self.me}; keep it here and show it to nobody")
            return make_key(path)
        return load_key(path)

    def _roster(self, experiment: Experiment, folder: RunFolder, key: PrivateKey) -> Roster:
        """Return the roster: the one that is named, that of the run so far, or the keys in the mailbox."""
        if self.roster is not None:
            return read_roster(self.roster)
        if (folder.path / ROSTER_FILE).is_file():
            return read_roster(folder.path / ROSTER_FILE)
        names = list(experiment.plan.ids)
        if self.me not in names:
            raise Mistake(
                f"the data here deal to {few(names, 5)}, not to {self.me}: name the other participants and their keys "
                "with --roster, or give the right --id"
            )
        roster = exchange_keys(open_objects(self.url), names, self.me, key, self.pace.start_deadline, self.say)
        self.say(
            f"no roster: the keys that lie in the mailbox are trusted. Compare {roster.digest[:16]} with the other "
            "participants by phone; it is the same for all if nobody has put in keys of their own"
        )
        return roster


def _population(experiment: Experiment, me: str, roster: Roster) -> Plan:
    """Return the plan with all participants as clients, in the order in which a simulation has them."""
    plan, names = experiment.plan, list(roster.keys)
    if me not in roster.keys:
        raise Mistake(f"{me} is not in the roster, which has {few(sorted(names), 5)}")
    ids = _in_order(names, experiment.settings.data["partition"])
    if plan.algorithm.traits.pooled:
        raise Mistake("this algorithm pools all data in one place, and participants keep theirs; choose another")
    if len(plan.ids) > 1 or list(plan.ids) == names:
        unknown = [name for name in ids if name not in plan.ids]
        if unknown:
            raise Mistake(
                f"the data here deal to {few(list(plan.ids), 5)}, and the roster has {unknown[0]}; give the roster the "
                "clients' names, or let the data be this participant's alone"
            )
        return replace(plan, ids=ids)
    if experiment.settings.data["standardize"] == "federated":
        raise Mistake(
            'it needs the sums of all participants, and the data here are this participant\'s alone; choose "local" or '
            '"none" for all of them',
            key="standardize",
            value="federated",
            table="data",
        )
    return _rename(plan, me, ids)


def _rename(plan: Plan, me: str, ids: Sequence[str]) -> Plan:
    """Return the plan of data that are one participant's own, with that participant's name."""
    (only,) = plan.ids
    architecture, kept = plan.architecture(only), plan.evaluation
    own = None if kept.own is None or only not in kept.own else {me: kept.own[only]}
    shares = None if kept.shares is None else {me: kept.shares[only]}
    return replace(
        plan,
        ids=ids,
        clients={me: plan.clients[only]},
        architecture=lambda client: architecture,
        evaluation=replace(kept, own=own, shares=shares),
    )


def _in_order(names: Sequence[str], partition: str | None) -> tuple[str, ...]:
    """Return names in the order of the clients: numbers by value, unless the data name their clients themselves."""
    if partition != "natural" and all(name.isdecimal() for name in names):
        return tuple(sorted(names, key=int))
    return tuple(sorted(names))


def _parts(experiment: Experiment, plan: Plan) -> dict[str, str]:
    """Return digests of what all participants must have alike."""
    tables: dict[str, Any] = {k: v for k, v in experiment.settings.tables().items() if k not in _OWN}
    tables["data"] = {k: v for k, v in tables["data"].items() if k != "path"}
    if plan.algorithm.traits.own_models:
        tables.pop("model")
    parts = {name: digest(json.dumps(table, sort_keys=True).encode()) for name, table in tables.items()}
    if plan.seed_set is not None:
        x, y = plan.seed_set.tensors()
        parts["seed_set's examples"] = digest(pack({"x": x} if y is None else {"x": x, "y": y}))
    return parts
