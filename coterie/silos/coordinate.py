"""Run a federation whose clients are at silos.

for round in coordinate(plan, carrier):   # the rounds of `coterie.federate`, and the same weights
    print(round.round, round.reached, round.dropped)
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from coterie.core.errors import Mistake, few, require
from coterie.loop.federate import federate, warn_caller
from coterie.loop.plan import Plan, Resume, Round
from coterie.processes.team import ALONE
from coterie.silos.carrier import Carrier
from coterie.silos.exchange import Exchange
from coterie.silos.letters import Run, experiment_digest
from coterie.silos.remote import RemoteWork

log = logging.getLogger(__name__)


def coordinate(
    plan: Plan,
    carrier: Carrier,
    *,
    hosts: Mapping[str, str] | None = None,
    run: str = "run",
    experiment: str = "",
    min_clients: int = 1,
    round_timeout: float = 600.0,
    go_back: int = 2,
    resume: Resume | None = None,
    keep_updates: bool = False,
    save_models: bool = True,
    say: Callable[[str], None] = log.info,
    warn: Callable[[str], None] = warn_caller,
) -> Iterator[Round]:
    """Run a federation over silos, yielding each round when it is complete.

    With the same rows at the same clients, and the same engine, the weights are those of `coterie.federate(...)` bit
    for bit, if every client answers in every round.

    Args:
        plan: the coordinator's: the clients in their order with their numbers of examples, and no data; see
            `coterie.silos.counts.CountedClients`. Test data, here or there, are the silos' own.
        carrier: the coordinator's end; the caller closes it.
        hosts: client -> the silo that hosts it; by default a client is a silo of that name.
        run: the run's name. A run that starts from the beginning has a new one, one that continues the old one.
        experiment: the text that both ends must have alike, such as the experiment file.
        min_clients: a round needs as many sound replies. With fewer, silos that gave no answer are asked again.
        round_timeout: seconds after which a round closes without those that gave no answer.
        go_back: how many rounds `resume` may lie behind; silos keep their clients' states for as long.
        resume: continue from here.
        keep_updates: whether each round carries every accepted update.
        save_models: whether, after the last round, every silo writes its clients' models into its folder.
        say: gets a sentence about what is out of the ordinary, such as a silo that is late.
        warn: see `coterie.loop.federate.federate`.

    Raises:
        Mistake: the plan asks for what silos cannot do, or an argument cannot be used.
    """
    remote = remote_plan(
        plan, carrier, hosts=hosts, run=run, experiment=experiment, min_clients=min_clients,
        round_timeout=round_timeout, go_back=go_back, say=say,
    )  # fmt: skip
    for round in federate(remote, resume, keep_updates, warn):
        yield round
        if save_models and round.round == plan.rounds:
            save_at_silos(round)


def remote_plan(
    plan: Plan,
    carrier: Carrier,
    *,
    hosts: Mapping[str, str] | None = None,
    run: str = "run",
    experiment: str = "",
    min_clients: int = 1,
    round_timeout: float = 600.0,
    go_back: int = 2,
    say: Callable[[str], None] = log.info,
) -> Plan:
    """Return the plan with the silos as its workplace, for `coterie.loop.federate`. See `coordinate`.

    Raises:
        Mistake: the plan asks for what silos cannot do, or an argument cannot be used.
    """
    hosts = {client: client for client in plan.ids} if hosts is None else hosts
    homeless = [client for client in plan.ids if client not in hosts]
    if homeless:
        raise Mistake(f"no silo hosts {few(homeless)}: name one for each client", key="hosts")
    require("round_timeout", round_timeout, 0 < round_timeout < float("inf"), "a number of seconds above 0")
    require("go_back", go_back, go_back >= 1, "1 or more")
    size = plan.cohort_size()
    require("min_clients", min_clients, 1 <= min_clients <= size, f"from 1 to {size}, as many as a round asks")
    _check_possible(plan)
    exchange = Exchange(carrier, Run(run, experiment_digest(plan, experiment)), round_timeout, say)
    return replace(plan, workplace=RemoteWork(exchange, hosts, min_clients, go_back))


def save_at_silos(round: Round) -> list[str]:
    """Let every silo write its clients' models after this round into its folder; return the silos that have.

    It is the one model, or each client's own; see `coterie.silos.silo.model_path`.
    """
    workplace = round.plan.workplace
    assert isinstance(workplace, RemoteWork), "the round was made by `coordinate`"
    return workplace.save(round.plan, round.round, round.state, round.store)


def _check_possible(plan: Plan) -> None:
    """Refuse what cannot be done where the data are at silos.

    Raises:
        Mistake: the plan asks for it.
    """
    if plan.algorithm.traits.pooled:
        raise Mistake("this algorithm needs all data in one place, and they are at silos: choose another one")
    if plan.attack is not None:
        raise Mistake("an attack is simulated: leave it out where the clients are at silos")
    if plan.team is not ALONE and plan.team.size > 1:
        raise Mistake("one process coordinates silos: ask for one worker")
