"""The coordinator's side of a beginning: ask silos for facts, agree, and let them begin.

What was agreed lies in the run folder. So a coordinator that is started again asks for nothing twice, and goes on with
the same agreement while a silo is away.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from coterie.core.digests import digest, seal_json, unseal_json
from coterie.core.errors import Mistake, few, mistakes_in, reason
from coterie.core.files import write_atomic
from coterie.core.printable import printable
from coterie.core.tree import Tree
from coterie.data.standardize import Scale
from coterie.experiment.build_experiment import Experiment
from coterie.experiment.engine_choice import Machine
from coterie.experiment.privacy import refuse_open_exchanges
from coterie.experiment.settings import Settings, model_names
from coterie.experiment.silos.begin import Begin, Waits, request_fields
from coterie.experiment.silos.facts import read_facts, read_record
from coterie.experiment.silos.merge_facts import Agreement, ClientCount, Merged, merge_facts
from coterie.experiment.silos.plans import coordinator_experiment, needs_scale, scale_of
from coterie.experiment.silos.silo_settings import (
    complete_data,
    models_by_client,
    refuse_simulation,
    require_possible,
    settings_to_send,
)
from coterie.experiment.starting_weights import weights_for
from coterie.experiment.tables import Deploy
from coterie.silos.carrier import Carrier, Failure
from coterie.silos.coordinate import remote_plan
from coterie.silos.message import MAX_REASON_LENGTH, Message, Unusable, read_message, write_message
from coterie.track.file_writing import disk_mistakes
from coterie.track.run_folder import SILOS_FILE
from coterie.track.weights_file import pack_weights

log = logging.getLogger(__name__)

AGREED_FILE = SILOS_FILE
"""In the run folder: what all silos agreed on."""
ROUND_TIMEOUT_SECONDS = 600.0
"""What deploy.round_timeout is where the file leaves it open."""
MAX_ANSWER_BYTES = 2**26
"""The longest answer that is read before the first round."""


@dataclass(frozen=True)
class JoinOptions:
    """How silos take part.

    Attributes:
        run: the run's name; a new one for a run that starts from the beginning.
        deadline: seconds to wait for the silos' answers before the first round.
        say: gets a sentence about what is out of the ordinary.
        facts: of silos that have answered. They are not asked again while others wait for a person, as for hours.
    """

    run: str = "run"
    deadline: float = 600.0
    say: Callable[[str], None] = log.info
    facts: dict[str, Message] = field(default_factory=dict)


def join_silos(
    settings: Settings,
    carrier: Carrier,
    silos: Sequence[str],
    machine: Machine,
    folder: Path,
    options: JoinOptions | None = None,
    start_folder: Path | None = None,
) -> Experiment:
    """Return the coordinator's experiment, whose plan lets the silos work: it runs as any other does.

    Args:
        settings: of the experiment file.
        carrier: the coordinator's end.
        silos: those that take part. All of them must answer before a run first begins.
        machine: the coordinator's.
        folder: where what was agreed is kept.
        options: see there.
        start_folder: see `build_experiment`.

    Raises:
        Mistake: the settings mean nothing between silos, a silo gives no answer or does not fit the others, or a file
            cannot be written. It is `Waits` where a silo waits for a person who approves the run.
    """
    options = options or JoinOptions()
    refuse_simulation(settings)
    known = (folder / AGREED_FILE).is_file()
    merged, scale = read_agreed(folder / AGREED_FILE) if known else _agree(settings, carrier, silos, options)
    experiment = coordinator_experiment(settings, merged, scale, machine, start_folder)
    begins = _begins(experiment, merged, scale)
    if not known:
        with disk_mistakes(folder):
            write_atomic(folder / AGREED_FILE, _format_agreed(merged, scale))
    messages = {silo: begin.to_message(options.run) for silo, begin in begins.items()}
    present = set(carrier.sites())
    answers = _ask(carrier, {s: m for s, m in messages.items() if s in present or not known}, options, must=not known)
    for silo in merged.digests.keys() - answers.keys():
        options.say(f"{silo} is not here; it is asked again when it is back")
    hosts = {client.client: client.silo for client in merged.clients}
    deploy = _complete(settings.deploy, experiment.plan.cohort_size())
    assert deploy.min_clients is not None
    assert deploy.round_timeout is not None
    plan = remote_plan(
        experiment.plan,
        carrier,
        hosts=hosts,
        run=options.run,
        experiment=next(iter(begins.values())).text(),
        min_clients=deploy.min_clients,
        round_timeout=deploy.round_timeout,
        say=options.say,
    )
    return replace(experiment, plan=plan, settings=replace(experiment.settings, deploy=deploy))


def _complete(deploy: Deploy, size: int) -> Deploy:
    """Return [deploy] with nothing left open, for rounds that ask `size` clients.

    Raises:
        Mistake: a round can never have as many replies as are wanted.
    """
    require_possible(deploy, size)
    return Deploy(deploy.min_clients or size // 2 + 1, deploy.round_timeout or ROUND_TIMEOUT_SECONDS)


def _agree(
    settings: Settings, carrier: Carrier, silos: Sequence[str], options: JoinOptions
) -> tuple[Merged, Scale | None]:
    """Return what the silos agree on, and the scale of their columns, where it is exchanged."""
    about = {**request_fields(options.run, "facts"), "tables": settings_to_send(settings)}
    answers = _ask(carrier, dict.fromkeys(silos, write_message(about)), options, answers=options.facts)
    merged = merge_facts({silo: read_facts(answers[silo].fields.get("facts"), silo) for silo in silos})
    with mistakes_in("cohort"):
        size = settings.cohort.count(len(merged.clients))
    require_possible(settings.deploy, size)  # before anything further leaves a silo
    if not needs_scale(complete_data(settings, merged.agreement)):
        return merged, None
    refuse_open_exchanges(complete_data(settings, merged.agreement))
    fields = {**about, **request_fields(options.run, "sums"), "agreement": merged.agreement.to_record()}
    answers = _ask(carrier, dict.fromkeys(silos, write_message(fields)), options)
    hosts = {client.client: client.silo for client in merged.clients}
    sums: dict[str, Tree] = {}
    for silo, answer in answers.items():
        given = _tree(silo, answer)
        sums |= {client: tree for client, tree in given.items() if hosts.get(client) == silo}
    return merged, scale_of(sums, merged)


def _begins(experiment: Experiment, merged: Merged, scale: Scale | None) -> dict[str, Begin]:
    """Return what each silo is told."""
    settings, names = experiment.settings, model_names(experiment.settings)
    named = models_by_client(settings, [c.client for c in merged.clients])
    tables = settings_to_send(settings)
    starts = {
        experiment.names[architecture]: pack_weights(model, dict(model.state_dict()))
        for architecture, model in experiment.models.items()
        if settings.model.get("adapter_weights") is not None
        or weights_for(settings.pretrain, experiment.names[architecture]) is not None
    }
    begins = {}
    for silo, rows in merged.digests.items():
        own = {c.client: named[c.client] for c in merged.clients if c.silo == silo}
        models = own if len(names) > 1 else None
        begins[silo] = Begin(tables, merged.agreement, scale, models, starts, rows)
    return begins


def _ask(
    carrier: Carrier,
    messages: Mapping[str, bytes],
    options: JoinOptions,
    must: bool = True,
    answers: dict[str, Message] | None = None,
) -> dict[str, Message]:
    """Return the answers of silos to their requests.

    Args:
        carrier, options: see `join_silos`.
        messages: silo -> its request.
        must: whether all must answer.
        answers: silo -> its answer, of those that need not be asked again; the others' are put there as they come.

    Raises:
        Mistake: a silo gives no answer though it must, or says that it cannot do what it is asked.
    """
    carrier.renew()
    answers = {} if answers is None else answers
    requests = {silo: message for silo, message in messages.items() if silo not in answers}
    waiting = {silo: digest(message) for silo, message in requests.items()}
    failures: dict[str, str] = {}
    refusals: dict[str, Mistake] = {}
    for silo, answer in carrier.ask(requests, options.deadline) if requests else ():
        if silo not in waiting or silo in answers:
            continue
        if isinstance(answer, Failure):
            failures[silo] = answer.why
            continue
        try:
            message = _judge(silo, answer, waiting[silo], options.run)
        except Mistake as mistake:
            refusals[silo] = mistake
        else:
            if message is not None:
                answers[silo] = message
        if len(waiting.keys() & answers.keys()) + len(failures) + len(refusals) == len(waiting):
            break
    _raise_together([refusals[silo] for silo in messages if silo in refusals])
    absent = [silo for silo in messages if silo not in answers]
    if absent and must:
        why = failures.get(absent[0], f"it gave no answer within {options.deadline:g} seconds")
        raise Mistake(
            f"silo {few(absent)}: {printable(why[:MAX_REASON_LENGTH])}; all silos must be there before the first "
            "round: start `coterie deploy serve` at each"
        )
    return {silo: answers[silo] for silo in messages if silo in answers}


def _raise_together(refusals: Sequence[Mistake]) -> None:
    """Raise what silos have refused as one mistake; those that wait for approval count where no silo refuses for good.

    Raises:
        Mistake: there are some.
    """
    final = [each for each in refusals if not isinstance(each, Waits)]
    if final:
        raise Mistake("; ".join(map(str, final)))
    if refusals:
        raise Waits("; ".join(map(str, refusals)))


def _judge(silo: str, answer: bytes, request: str, run: str) -> Message | None:
    """Return what a silo has answered; None if it answers an earlier request.

    Raises:
        Mistake: the silo cannot do what it is asked, or its answer cannot be used.
    """
    try:
        message = read_message(answer, MAX_ANSWER_BYTES)
        if message.text("request") != request or message.text("run") != run:
            return None
        if message.text("kind") == "failed":
            kind = Waits if message.fields.get("waits") is True else Mistake
            raise kind(f"silo {silo}: {printable(message.text('why')[:MAX_REASON_LENGTH])}")
    except Unusable as error:
        raise Mistake(f"silo {silo}: its answer {error}") from error
    return message


def _tree(silo: str, message: Message) -> Tree:
    try:
        return message.tree(0)
    except Unusable as error:
        raise Mistake(f"silo {silo}: its answer {error}") from error


@dataclass(frozen=True)
class _Agreed:
    agreement: Agreement
    clients: tuple[ClientCount, ...]
    test: int
    digests: dict[str, str]
    mean: tuple[float, ...] | None
    deviation: tuple[float, ...] | None


def _format_agreed(merged: Merged, scale: Scale | None) -> bytes:
    numbers = {name: None if scale is None else getattr(scale, name).tolist() for name in ("mean", "deviation")}
    return seal_json({**asdict(merged), **numbers})


def read_agreed(path: Path) -> tuple[Merged, Scale | None]:
    """Return what the silos agreed on when the run began.

    Raises:
        Mistake: the file is damaged.
    """
    try:
        body: Any = unseal_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise Mistake(f"{path}: cannot be read ({reason(error)}); put back a copy, or start another run") from error
    found = read_record(json.loads(json.dumps(body)), _Agreed, f"{path}: what it holds")
    merged = Merged(found.agreement, found.clients, found.test, found.digests)
    if found.mean is None or found.deviation is None:
        return merged, None
    return merged, Scale(*(torch.tensor(v, dtype=torch.float64) for v in (found.mean, found.deviation)))
