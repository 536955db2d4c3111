"""What a silo's clients have spent of a guarantee for single examples, in the silo's own folder.

    spent.json     client -> the rounds that it worked in, in their order, under a checksum of its own

A round is written down before its work is done, so a silo that is killed at any instant has counted everything that can
have left it. The silo takes nobody's word for it: not how often it worked, nor what that cost.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path

from coterie.core.digests import seal_json, unseal_json
from coterie.core.errors import Mistake, reason
from coterie.core.examples import sizes
from coterie.core.files import write_atomic
from coterie.loop.example_plan import spent_by_clients
from coterie.loop.plan import Plan
from coterie.privacy.table import Privacy


class SiloLedger:
    """The ledger of one run.

    Args:
        plan: the silo's.
        folder: of this run at this silo.

    Raises:
        Mistake: the file is damaged.
    """

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan, self._path = plan, folder / "spent.json"
        self._rounds: dict[str, list[int]] = {}
        if self._path.exists():
            try:
                self._rounds = unseal_json(self._path.read_bytes())["rounds"]
            except (OSError, ValueError, KeyError) as error:
                raise Mistake(
                    f"{self._path} is damaged ({reason(error)}): put back a copy of {folder}, since nobody else knows "
                    "what its clients have spent"
                ) from error

    def enter(self, clients: Sequence[str], round: int) -> str | None:
        """Count a round of these clients, before they work, and return the secret that their noise is drawn from.

        The secret is new for each request and kept nowhere: work that is asked for again may start from another model,
        and two answers with the same noise would tell what lies under it.

        Returns:
            The secret; None where the run promises nothing for single examples.

        Raises:
            Mistake: a client would spend more than the run's epsilon.
        """
        privacy = self.plan.example_privacy
        if privacy is None:
            return None
        later = {**self._rounds, **{client: [*self._rounds.get(client, []), round] for client in clients}}
        self._check(privacy, later, clients)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self._path, seal_json({"rounds": later}))
        self._rounds = later
        return secrets.token_hex(32) if privacy.noise == "secret" else self.plan.example_secret

    def epsilons(self) -> dict[str, float]:
        """Return what each client has spent so far; nothing where the run promises nothing for single examples."""
        privacy = self.plan.example_privacy
        return {} if privacy is None else self._spent(privacy, self._rounds)

    def _check(self, privacy: Privacy, rounds: dict[str, list[int]], clients: Sequence[str]) -> None:
        """Refuse to spend more than `epsilon`. The plan was checked, so only rounds that are run again can."""
        if privacy.epsilon is None or all(len(rounds[c]) == len(set(rounds[c])) for c in clients):
            return
        spent = self._spent(privacy, rounds)
        for client in clients:
            if spent[client] > privacy.epsilon:
                raise Mistake(
                    f"client {client} has worked in a round before that is run again, and would spend "
                    f"{spent[client]:.3g} where the run's epsilon is {privacy.epsilon:g}: leave the client out, or "
                    "start another run"
                )

    def _spent(self, privacy: Privacy, rounds: dict[str, list[int]]) -> dict[str, float]:
        held = dict(zip(self.plan.ids, sizes(self.plan.clients, self.plan.ids), strict=True))
        cohorts = [(number, [client]) for client, own in rounds.items() if client in held for number in own]
        return spent_by_clients(self.plan.algorithm, privacy, held, cohorts)
