"""A mailbox for participants that one launcher started together: what they say in a round travels in one exchange.

    torchrun --nproc-per-node 4 your_participant.py         with joined() as team: participate(plan, Launched(team))

It is faster than a folder or a store, since nobody polls and nothing is kept. In exchange no participant can be missed:
where one process ends, `torch.distributed` ends all of them (`Lost`), and they continue together from what each has
saved.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from coterie.core.tree import Tree
from coterie.processes.team import Team, all_to_all


@dataclass
class Launched:
    """A mailbox of a team's members, one participant each; see `coterie.peers.mailbox.Mailbox`.

    Args:
        team: from `coterie.processes.torchrun.joined`. All members must make the same calls, in the same order.
        done: the last round that this participant has saved.
    """

    team: Team
    done: int = 0
    _mine: Tree = field(default_factory=dict, init=False)

    def put(self, round: int, participant: str, message: Tree) -> None:
        """See `Mailbox`."""
        self._mine = {participant: message}

    def get_all(self, round: int, deadline: float) -> dict[str, Tree]:
        """See `Mailbox`; everyone's message, however long it takes. Collective."""
        return all_to_all(self.team, [self._mine] * self.team.size)

    def newest(self) -> int:
        """The round in which all begin: the one after the last that anyone has saved. Collective."""
        return max(self.team.gather(self.done)) + 1

    def spoke(self, round: int) -> set[str]:
        """See `Mailbox`; nobody, since nothing is kept."""
        return set()
