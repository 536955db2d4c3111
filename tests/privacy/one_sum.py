"""A whole secure sum in one process, for tests: everyone's part, and clients that drop out at a step."""

from collections.abc import Collection, Mapping

from coterie.privacy.fixed_point import Residues
from coterie.privacy.masking_client import MaskingClient
from coterie.privacy.masking_server import MaskingServer, find_quorum

STEPS = ("keys", "shares", "numbers", "opening")


def run_sum(
    numbers: Mapping[str, Residues],
    drops: Mapping[str, Collection[str]] | None = None,
    needed: int | None = None,
    seen: dict[str, Residues] | None = None,
) -> tuple[Residues, list[str]]:
    """Return the opened sum [d], and the clients that are in it.

    Args:
        numbers: client -> its residues [d].
        drops: step -> the clients that do not do it, nor any later one.
        needed: how many clients must stay.
        seen: gets the masked numbers that the server sees.
    """
    gone: set[str] = set()
    needed = find_quorum(len(numbers)) if needed is None else needed
    server = MaskingServer("a test", needed)
    clients = {name: MaskingClient(name, "a test") for name in numbers}

    def present(step: str, names: Collection[str]) -> list[str]:
        gone.update((drops or {}).get(step, ()))
        return [name for name in names if name not in gone]

    told = server.neighbours({name: clients[name].advertise() for name in present("keys", clients)})
    sealed = server.deliver({name: clients[name].share_keys(told[name]) for name in present("shares", told)})
    for name in present("numbers", sealed):
        masked = clients[name].mask(numbers[name], sealed[name])
        if seen is not None:
            seen[name] = masked.copy()
        server.add(name, masked)
    asks = server.ask()
    opened = server.open({name: clients[name].unmask(asks[name]) for name in present("opening", asks)})
    return opened, server.clients
