"""The coordinator's workplace: the loop over the rounds is the simulation's, and the clients' work is done at silos.

A round closes when every silo that was asked has answered, or at its deadline. With fewer sound replies than
`min_clients`, those that gave no answer are asked again, for as long as it takes: after a while, or as soon as a silo
connects. Replies that are here already stay. Where all of them say that they cannot work, as after their data changed,
they are asked a few times more, and then the run stops: rounds that change nothing are worth nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from coterie.core.engine import Reply
from coterie.core.errors import Mistake
from coterie.core.packing import pack
from coterie.core.tree import Tree
from coterie.loop.jobs import Assignment, clients_to_ask
from coterie.loop.plan import Plan
from coterie.loop.private_round import without_bound
from coterie.loop.store import Store
from coterie.loop.tally import Tally
from coterie.loop.template import Templates
from coterie.silos.carrier import Failure
from coterie.silos.exchange import Exchange, Refused
from coterie.silos.letters import Start, ask_models, ask_work, read_results, server_tree
from coterie.silos.merge_measures import merge_measures, read_measures
from coterie.silos.message import Message, Unusable
from coterie.silos.remote_round import FRAMING_BYTES, RemoteRound
from coterie.silos.sum_remote import RemoteSecureWork, Waiting

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 60.0
"""How long to wait before a round that has too few replies asks again: twice as long each time."""
TRIES = 4
"""How often silos are asked in a round that has too few replies since they say that they cannot work."""
ARRIVAL_LOOK_SECONDS = 2.0
"""How often it is looked meanwhile whether a silo has connected."""


class RemoteWork:
    """The silos as a `coterie.loop.workplace.Workplace`.

    Attributes:
        exchange: with the silos.
        hosts: client -> the silo that hosts it.
        min_clients: how many sound replies a round needs.
        go_back: how many rounds a coordinator may go back, to an earlier checkpoint.
        pause: waits for some seconds.
    """

    def __init__(
        self,
        exchange: Exchange,
        hosts: Mapping[str, str],
        min_clients: int = 1,
        go_back: int = 2,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.exchange, self.hosts, self.min_clients, self.go_back = exchange, hosts, min_clients, go_back
        self.pause = pause
        self._templates = Templates()
        self._measures_nothing = False

    def work(
        self, plan: Plan, number: int, broadcast: Tree, store: Store, tally: Tally
    ) -> Iterator[tuple[Assignment, Reply]]:
        """Draw the cohort now; ask the silos as the replies are wanted. See `coterie.loop.workplace.Workplace`."""
        costs = clients_to_ask(plan, number, broadcast, tally)
        round = RemoteRound(plan, number, costs, self._templates.of_round(plan, broadcast))
        shares_noise = plan.guarantee is not None and plan.guarantee.where == "clients"
        cohort = plan.cohort_size() if shares_noise else None
        return self._replies(round, pack(broadcast), store.versions(), tally, cohort)

    def secure_work(self, plan: Plan, number: int, broadcast: Tree, store: Store, tally: Tally) -> RemoteSecureWork:
        """Draw the cohort now; return the silos' part in a secure sum. See `coterie.loop.workplace.Workplace`."""
        waiting = Waiting(self._pause_until_someone_connects, FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, TRIES)
        return RemoteSecureWork(plan, number, broadcast, store, tally, self.exchange, self.hosts, self.go_back, waiting)

    def _replies(
        self, round: RemoteRound, broadcast: bytes, versions: Mapping[str, int], tally: Tally, cohort: int | None
    ) -> Iterator[tuple[Assignment, Reply]]:
        """Ask until there are enough replies; yield them in the order of the clients.

        Raises:
            Mistake: there are too few, and those who could help say again and again that they cannot work.
        """
        tries = 0
        open_clients, is_first, seconds, earlier = list(round.costs), True, FIRST_PAUSE_SECONDS, ""
        while True:
            self.exchange.renew()
            starts = self._starts(open_clients, versions)
            to_ask = self._silos_to_ask(starts, round, is_first)
            messages = ask_work(self.exchange.run, round.number, to_ask, broadcast, self.go_back, cohort)
            bounds = {site: round.max_bytes([start.client for start in own]) for site, own in to_ask.items()}
            for site, outcome in self.exchange.ask(messages, round.number, bounds):
                self._take(round, to_ask[site], outcome)
                yield from round.in_turn()
            if round.sound >= min(self.min_clients, len(round.costs)) or not round.absent:
                break
            tries += round.absent.keys() <= round.failed
            if tries == TRIES:
                raise Mistake(
                    f"{self._count_replies(round)}; mend that, and continue with --resume: all earlier rounds are kept"
                )
            earlier = self._say_too_few(round, earlier)
            self._pause_until_someone_connects(seconds)
            open_clients, is_first, seconds = list(round.absent), False, min(2 * seconds, LONGEST_PAUSE_SECONDS)
        yield from round.in_turn(closed=True)
        place = {client: k for k, client in enumerate(tally.cohort)}
        tally.silent = sorted([*tally.silent, *round.silent()], key=lambda entry: place[entry["client"]])

    def _starts(self, clients: Sequence[str], versions: Mapping[str, int]) -> dict[str, list[Start]]:
        """Return silo -> its clients, in order, each with the round whose state counts."""
        by_site: dict[str, list[Start]] = {}
        for client in clients:
            by_site.setdefault(self.hosts[client], []).append(Start(client, versions.get(client, 0)))
        return by_site

    def _silos_to_ask(
        self, starts: Mapping[str, Sequence[Start]], round: RemoteRound, is_first: bool
    ) -> dict[str, Sequence[Start]]:
        """Return the silos to ask with their clients, and note why the others are not asked.

        Who was left out is asked again if a round has too few replies.
        """
        to_ask = dict[str, Sequence[Start]]()
        for site, clients in starts.items():
            why = self.exchange.absence(site)
            if why is None or (not is_first and site in self.exchange.left_out):
                to_ask[site] = clients
            else:
                round.absent |= {start.client: why for start in clients}
        return to_ask

    def _take(self, round: RemoteRound, starts: Sequence[Start], outcome: Message | Refused | Failure) -> None:
        """Take what came of asking one silo."""
        clients = [start.client for start in starts]
        round.failed -= set(clients)
        if isinstance(outcome, Failure):
            round.absent |= dict.fromkeys(clients, outcome.why)
            return
        for client in clients:
            round.absent.pop(client, None)
        if isinstance(outcome, Refused) and outcome.own_word:
            round.failed |= set(clients)
            round.absent |= dict.fromkeys(clients, outcome.why)
            return
        if isinstance(outcome, Refused):
            round.refused |= dict.fromkeys(clients, outcome.why)
            return
        try:
            results = read_results(outcome, starts)
        except Unusable as error:
            round.refused |= dict.fromkeys(clients, f"the answer of {self.hosts[clients[0]]} {error}")
            return
        k = 0
        for result in results:
            round.take(result, k, outcome)
            k += result.why is None

    def _say_too_few(self, round: RemoteRound, earlier: str) -> str:
        """Say that a round waits for more replies, unless that is the `earlier` sentence; return it."""
        sentence = f"{self._count_replies(round)}; asking again until there are enough"
        if sentence != earlier:
            self.exchange.say(sentence)
        return sentence

    def _count_replies(self, round: RemoteRound) -> str:
        """Return how many replies a round has, how many it needs, and why there are no more."""
        who = "; ".join(
            why if why.startswith(client) else f"{client}: {why}" for client, why in list(round.absent.items())[:3]
        )
        return f"round {round.number}: {round.sound} sound replies so far, and {self.min_clients} are needed ({who})"

    def _pause_until_someone_connects(self, seconds: float) -> None:
        """Wait for some seconds, or less if a silo connects meanwhile: it need not wait for the next time."""
        while seconds > 0 and not self.exchange.someone_came():
            self.pause(min(seconds, ARRIVAL_LOOK_SECONDS))
            seconds -= ARRIVAL_LOOK_SECONDS

    def measure(self, plan: Plan, number: int, state: Tree, store: Store) -> dict[str, Any]:
        """Return the measures after a round, from the silos' own; see `coterie.silos.merge_measures`.

        Where silos could not measure, `silos_not_measured` says how many: the other measures leave out their test rows.
        """
        due = not (number % plan.evaluation.every and number != plan.rounds)
        measured = self._measure(plan, number, state, store) if due and not self._measures_nothing else {}
        return measured | self.exchange.traffic.take_record()

    def _measure(self, plan: Plan, number: int, state: Tree, store: Store) -> dict[str, Any]:
        read = []
        for site, starts, outcome in self._ask_about_models("measure", plan, number, state, store):
            try:
                read.append((site, read_measures(outcome, plan, [start.client for start in starts])))
            except Unusable as error:
                self.exchange.say(f"round {number}: the measures of {site} are left out, since its answer {error}")
        place = {site: k for k, site in enumerate(dict.fromkeys(self.hosts.values()))}
        in_order = [measures for _, measures in sorted(read, key=lambda item: place[item[0]])]
        merged = merge_measures(in_order, plan)
        absent = len(place) - len(in_order)
        self._measures_nothing = not merged and not absent  # no silo has test data, so ask no more
        return {**merged, **({"silos_not_measured": absent} if absent else {})}

    def save(self, plan: Plan, number: int, state: Tree, store: Store) -> list[str]:
        """Let every silo write its clients' models into its folder; return the silos that have, as they answered."""
        self.exchange.renew()
        saved = [site for site, _, _ in self._ask_about_models("save", plan.in_round(number), number, state, store)]
        for site in dict.fromkeys(self.hosts.values()):
            if site not in saved:
                self.exchange.say(f"{site} has not written its clients' models of round {number} into its folder")
        return saved

    def _ask_about_models(
        self, kind: str, plan: Plan, number: int, state: Tree, store: Store
    ) -> Iterator[tuple[str, list[Start], Message]]:
        """Ask all silos that are there about the models after a round; yield (silo, its clients, its answer)."""
        packed, starts = pack(server_tree(plan, without_bound(state))), self._starts(plan.ids, store.versions())
        to_ask = {site: own for site, own in starts.items() if self.exchange.absence(site) is None}
        messages = ask_models(self.exchange.run, kind, number, to_ask, packed)
        bounds = {site: FRAMING_BYTES * (1 + len(own)) for site, own in to_ask.items()}
        for site, outcome in self.exchange.ask(messages, number, bounds):
            if isinstance(outcome, Message):
                yield site, starts[site], outcome
            else:
                self.exchange.say(f"round {number}: {kind} at {site} failed: {outcome.why.removeprefix(f'{site}: ')}")
