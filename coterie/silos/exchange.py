"""One exchange of messages with silos: who is asked, what comes back, and who is left out until it is back.

A silo that gives no answer costs its round the whole deadline. So it is left out of the rounds that follow, and gets a
short message beside everyone's requests, which nobody waits for. Once it answers that, or connects again, it is in
again from the next exchange on.
"""

from __future__ import annotations

import time
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from coterie.core.digests import digest
from coterie.core.printable import printable
from coterie.silos.carrier import Carrier, Failure
from coterie.silos.letters import Run
from coterie.silos.message import MAX_REASON_LENGTH, Message, Unusable, read_message, write_message
from coterie.silos.traffic import Traffic


class Refused(NamedTuple):
    """An answer that is left out, and the reason in a few words.

    Asking again would bring the same, unless it is the silo's `own_word` that it cannot work now.
    """

    why: str
    own_word: bool = False


class Exchange:
    """The coordinator's exchanges in one run.

    Attributes:
        carrier: takes the messages.
        run: which run they belong to.
        deadline: seconds to wait for answers.
        say: gets a sentence about what is out of the ordinary.
        left_out: silo -> why it is left out.
        traffic: with each silo since the record before.
    """

    def __init__(self, carrier: Carrier, run: Run, deadline: float, say: Callable[[str], None]) -> None:
        self.carrier, self.run, self.deadline, self.say = carrier, run, deadline, say
        self.left_out: dict[str, str] = {}
        self.traffic = Traffic()
        self._connected: set[str] = set()

    def renew(self) -> None:
        """Look again who is connected, as between rounds. A silo that was gone and is back is left out no more."""
        self.carrier.renew()
        connected = set(self.carrier.sites())
        for site in connected - self._connected:
            self.left_out.pop(site, None)
        self._connected = connected

    def someone_came(self) -> bool:
        """Return whether a silo is connected now that was not at the last `renew`."""
        return not set(self.carrier.sites()) <= self._connected

    def absence(self, site: str) -> str | None:
        """Return why a silo is not to be asked now, or None."""
        return self.left_out.get(site) if site in self._connected else f"{site} is not connected"

    def ask(
        self, messages: Mapping[str, bytes], round: int, max_bytes: Mapping[str, int]
    ) -> Iterator[tuple[str, Message | Refused | Failure]]:
        """Send messages; yield (silo, what came of it) once for each silo, as it comes.

        Args:
            messages: silo -> its request.
            round: of the requests.
            max_bytes: silo -> the length of the longest honest answer.
        """
        pings = {site: self._ping(round) for site in self.left_out if site in self._connected and site not in messages}
        requests = ChainMap(dict(pings), messages)  # type: ignore[arg-type]  # it is only read
        digests = {site: digest(data) for site, data in requests.items()}
        began = time.monotonic()
        waiting, ends = dict.fromkeys(messages), began + self.deadline
        self.traffic.count_sent({site: len(data) for site, data in requests.items()})
        if not messages:
            return
        for site, answer in self.carrier.ask(requests, self.deadline):
            if site in digests and not isinstance(answer, Failure):
                self.traffic.count_answer(site, len(answer), time.monotonic() - began)
            outcome = self._read(site, answer, round, digests, max_bytes)
            if outcome is not None and site in waiting:
                del waiting[site]
                if isinstance(outcome, Failure):
                    self._leave_out(site, round, outcome.why)
                yield site, outcome
            elif outcome is not None and site in messages:
                self.say(f"round {round}: {site} has answered twice; its first answer counts")
            if not waiting or time.monotonic() > ends:
                break
        for site in waiting:
            why = f"gave no answer within {self.deadline:g} seconds"
            self._leave_out(site, round, why)
            yield site, Failure(f"{site} {why}")

    def _read(
        self, site: str, answer: bytes | Failure, round: int, digests: Mapping[str, str], max_bytes: Mapping[str, int]
    ) -> Message | Refused | Failure | None:
        """Return what an answer holds, or why it is left out; None if it answers nothing that was asked now."""
        if site not in digests:
            return None
        if isinstance(answer, Failure):
            return Failure(printable(f"{site}: {answer.why}"[:MAX_REASON_LENGTH]))
        was_left_out = self.left_out.pop(site, None) is not None  # it is there, whatever it says
        try:
            message = read_message(answer, max_bytes.get(site, len(answer)))
            self.run.judge(message)
            request, kind = message.text("request"), message.text("kind")
            if request != digests[site]:
                self.say(f"round {round}: {site} has answered an earlier request, too late; that answer is left out")
                return None
            if kind == "ping":
                if was_left_out:
                    self.say(f"round {round}: {site} is back")
                return None
            if kind == "failed":
                return Refused(f"{site}: {printable(message.text('why')[:MAX_REASON_LENGTH])}", own_word=True)
            return message
        except Unusable as error:
            return Refused(f"the answer of {site} {error}")

    def _leave_out(self, site: str, round: int, why: str) -> None:
        """Leave a silo out until it is back."""
        self.left_out[site] = f"{site} is left out until it is back, since in round {round} it failed: {why}"

    def _ping(self, round: int) -> bytes:
        """Return a message that asks whether a silo is there."""
        return write_message(self.run.fields("ping", round))
