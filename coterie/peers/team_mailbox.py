"""A mailbox for participants that one launcher started together: all messages of a round travel in one exchange.

    torchrun --nproc-per-node 4 your_participant.py     with join_team() as team: participate(plan, TeamMailbox(team))

It is faster than a folder or a store, since nobody polls and nothing is kept. But no participant can be missing: if one
process ends, `torch.distributed` ends all of them (`Lost`), and they continue together from what each has saved.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from coterie.core.tree import Tree
from coterie.peers.mailbox import ANY_FORM
from coterie.peers.message import Form, Message
from coterie.processes.team import Team, all_to_all


@dataclass
class TeamMailbox:
    """A mailbox of a team's processes, one participant each; see `coterie.peers.mailbox.Mailbox`.

    Args:
        team: from `coterie.processes.process_group.join_team`.
        done: the last round that this participant has saved.
    """

    team: Team
    done: int = 0
    _own: Tree = field(default_factory=dict, init=False)

    def put(self, round: int, participant: str, message: Tree) -> None:
        """Keep the own message for the exchange in `get_all`; see `Mailbox.put`."""
        self._own = {participant: message}

    def get_all(self, round: int, deadline: float, form: Form = ANY_FORM) -> dict[str, Message]:
        """Exchange all messages and return them; see `Mailbox.get_all`. Collective: every process calls it."""
        messages = all_to_all(self.team, [self._own] * self.team.size)
        return {sender: form.judge(message) for sender, message in messages.items()}

    def newest(self, form: Form = ANY_FORM) -> int:
        """Return the round in which all start: the one after the last that any of them has saved.

        Collective: every process calls it.
        """
        return max(self.team.gather(self.done)) + 1

    def senders(self, round: int) -> set[str]:
        """Return no participants, since no message is kept; see `Mailbox.senders`."""
        return set()
