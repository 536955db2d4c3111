"""A rehearsal: the whole of a run between silos on one machine, and whether it ends as the simulation does.

DIR/                  a run folder like any other
DIR/silos/NAME/       each silo's folder, with its rows, its keys, its policy and its audit log
DIR/coordinator/      the project: the root of trust, and the coordinator's keys
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from coterie.core.errors import Mistake
from coterie.core.files import write_atomic
from coterie.core.toml_text import toml_text
from coterie.experiment.build_experiment import Experiment, build_experiment
from coterie.experiment.folder_jobs import Outcome
from coterie.experiment.resolve_engine import this_machine
from coterie.experiment.run_recorder import RunWatch
from coterie.experiment.settings import Settings, model_names
from coterie.experiment.silos.compare_weights import Comparison, compare_with_simulation
from coterie.experiment.silos.deal_to_silos import deal_to_silos
from coterie.experiment.silos.deployed_run import Waiting, read_run_name, run_deployed
from coterie.experiment.silos.silo_folder import POLICY_FILE, load_silo_folder
from coterie.experiment.silos.silo_settings import refuse_simulation
from coterie.report import write_report
from coterie.silos.carrier import Carrier
from coterie.silos.policy import DEFAULT_POLICY
from coterie.silos.project import PROJECT_FILE, is_silo_name
from coterie.silos.silo import model_path
from coterie.track import RunFolder
from coterie.track.file_writing import client_file_names
from coterie.track.rounds_file import read_records

MOST_SILOS = 8
"""How many silos there are at most unless the user asks for more: each has a few processes."""
CONNECT_SECONDS = 300.0
"""How long the silos' processes may take to connect."""

SILOS, COORDINATOR = "silos", "coordinator"


@dataclass(frozen=True)
class Venue:
    """Where a rehearsal takes place.

    Attributes:
        folder: the run folder.
        silos: the names of the silos; the folder of each is `folder / "silos" / name`.
    """

    folder: Path
    silos: Sequence[str]

    def silo(self, name: str) -> Path:
        """Return a silo's folder."""
        return self.folder / SILOS / name


class Staged(AbstractContextManager["Staged"]):
    """Silos and a coordinator that run until the block ends.

    Attributes:
        carrier: the coordinator's end.
    """

    carrier: Carrier

    def pause(self, seconds: float) -> None:
        """Wait for some seconds while silos get ready; it raises where one of them has ended."""


@dataclass(frozen=True)
class Rehearsal:
    """How a rehearsal ended.

    Attributes:
        outcome: of the run.
        hosts: client -> its silo.
        comparison: with the simulation.
    """

    outcome: Outcome
    hosts: Mapping[str, str]
    comparison: Comparison


def rehearse(
    settings: Settings,
    out: Path,
    number: int | None,
    resume: bool,
    watch: RunWatch,
    prepare: Callable[[Venue], None],
    start: Callable[[Venue], Staged],
) -> Rehearsal:
    """Rehearse an experiment, and compare its weights with those of the simulation.

    Args:
        settings: of the experiment file.
        out: the run folder.
        number: of silos; None: one for each client.
        resume: go on with a rehearsal that was stopped; start if there is none.
        watch: is told how the run goes on.
        prepare: makes keys, and whatever else the silos and the coordinator need.
        start: starts them.

    Raises:
        Mistake: the settings or the folder cannot be used. Nothing is left in the folder then.
    """
    refuse_simulation(settings)
    engine = settings.engine
    plain = replace(engine, name="sequential" if engine.name == "auto" and engine.chunk is None else engine.name)
    simulation = build_experiment(replace(settings, engine=replace(plain, workers=1)), this_machine())
    settings = replace(settings, engine=simulation.settings.engine)
    venue = Venue(out, name_silos(simulation.plan.ids, number))
    goes_on = RunFolder(out).has_run
    if goes_on and not resume:
        raise Mistake(f"{out}: holds a run already; continue it with --resume, or choose another folder with --out")
    if not goes_on and resume and (out / COORDINATOR / PROJECT_FILE).is_file():
        _remove(out)  # it was stopped before its run began
    if not goes_on:
        _refuse_leftovers(out)
    try:
        hosts = _deal(settings, venue, prepare, goes_on)
        with start(venue) as staged:
            waiting = Waiting(CONNECT_SECONDS, staged.pause)
            outcome = run_deployed(settings, out, staged.carrier, venue.silos, resume, watch, waiting)
    except Mistake:
        if not RunFolder(out).has_run:
            _remove(out)
        raise
    if simulation.plan.algorithm.traits.own_models:
        _collect_models(venue, simulation, hosts)
    records = read_records(RunFolder(out).rounds.path)
    dropped = sum(len(record["dropped"]) for record in records)
    compared = compare_with_simulation(out, simulation, len(records), dropped)
    return Rehearsal(outcome, hosts, compared)


def name_silos(ids: Sequence[str], number: int | None) -> list[str]:
    """Return names for the silos of a rehearsal: those of the clients where each has its own, and they can be names.

    Raises:
        Mistake: there are more silos than clients, or so many clients that a number must be given.

    >>> name_silos(["north", "south"], None), name_silos(["0", "1", "2"], 2)
    (['north', 'south'], ['silo-1', 'silo-2'])
    """
    if number is None and len(ids) > MOST_SILOS:
        raise Mistake(
            f"there are {len(ids)} clients, and a silo for each would need as many times a few processes; "
            f"say how many there shall be, such as --silos {MOST_SILOS // 2}"
        )
    number = len(ids) if number is None else number
    if not 1 <= number <= len(ids):
        raise Mistake(f"--silos {number}: it must be from 1 to {len(ids)}, the number of clients")
    names = [re.sub("[^a-z0-9]+", "-", client.lower()).strip("-") for client in ids]
    if number == len(ids) and len(set(names)) == number and all(is_silo_name(name) for name in names):
        return names
    return [f"silo-{k}" for k in range(1, number + 1)]


def _deal(settings: Settings, venue: Venue, prepare: Callable[[Venue], None], goes_on: bool) -> dict[str, str]:
    """Give silos their rows, policies and keys, unless they have them already; return client -> its silo."""
    if goes_on:
        return _hosts_of(venue)
    dealing = deal_to_silos(settings, venue.silos, venue.folder / SILOS)
    for silo in venue.silos:
        write_atomic(venue.silo(silo) / POLICY_FILE, policy_for(settings).encode())
    prepare(venue)
    return dict(dealing.hosts)


def _hosts_of(venue: Venue) -> dict[str, str]:
    from coterie.experiment.silos.load_own_rows import load_own_rows

    return {c: silo for silo in venue.silos for c in load_own_rows(load_silo_folder(venue.silo(silo)).file).clients}


def policy_for(settings: Settings) -> str:
    """Return a policy that allows this experiment without asking a person, and the code that it names."""
    code = [name for name in [settings.algorithm["name"], *model_names(settings)] if ":" in str(name)]
    code += [name for name in [settings.seed_set.get("source")] if name and ":" in str(name)]
    text = re.sub("^approve = .*$", 'approve = "never"', DEFAULT_POLICY, flags=re.MULTILINE)
    text = re.sub("^max_rounds = .*$", f"max_rounds = {max(1000, settings.rounds)}", text, flags=re.MULTILINE)
    names = ", ".join(toml_text(name) for name in ["any", *code])
    return re.sub(r"^(algorithms|models) = .*$", lambda m: f"{m[1]} = [{names}]", text, flags=re.MULTILINE)


def _refuse_leftovers(out: Path) -> None:
    """Refuse a folder with the silos of a rehearsal that never began."""
    for name in (SILOS, COORDINATOR):
        if (out / name).exists():
            raise Mistake(
                f"{out}: holds {name} of an earlier rehearsal; remove it, or choose another folder with --out"
            )


def _remove(out: Path) -> None:
    """Remove what a rehearsal wrote that did not begin."""
    for name in (SILOS, COORDINATOR):
        shutil.rmtree(out / name, ignore_errors=True)
    for name in ("silos.json", "deployment.json"):
        (out / name).unlink(missing_ok=True)
    with suppress(OSError):
        out.rmdir()


def _collect_models(venue: Venue, simulation: Experiment, hosts: Mapping[str, str]) -> None:
    """Copy each client's own model from its silo's folder into the run folder, as a simulation leaves them."""
    folder, run = RunFolder(venue.folder), read_run_name(venue.folder)
    assert run is not None, "the run has begun"
    names = client_file_names(simulation.plan.ids)
    for client, silo in hosts.items():
        path = model_path(load_silo_folder(venue.silo(silo)).run(run), client)
        if not path.is_file():
            raise Mistake(f"{path}: is not there, so {silo} was away at the end; rehearse again")
        folder.write_weights(path.read_bytes(), names[client])
    folder.seal(over=True)
    write_report(folder.path)
