"""What a secure sum costs beside a plain one: seconds of processor time and bytes, for clients and numbers.

    python benchmarks/privacy/secure_sum_cost.py 10:100000 100:100000

Each argument is clients:numbers. One client in ten drops out after it has shared its keys. The first column of times is
the clients' work, divided by their number.
"""

from __future__ import annotations

import sys
import time

import numpy as np

from coterie.loop.secure_work import count_bytes
from coterie.privacy.fixed_point import FixedPoint
from coterie.privacy.masking_client import MaskingClient
from coterie.privacy.masking_server import MaskingServer, find_quorum


def measure(clients: int, numbers: int, bits: int = 40) -> dict[str, float]:
    """Return seconds and bytes of one sum."""
    form, draw = FixedPoint(clients, bits), np.random.default_rng(0)
    real = {f"c{k}": draw.normal(size=numbers) for k in range(clients)}
    machines, server = {name: MaskingClient(name, "cost") for name in real}, MaskingServer("cost", find_quorum(clients))
    at_clients = at_server = 0.0
    keys_bytes = 0

    def timed(f, *arguments):
        start = time.process_time()
        return f(*arguments), time.process_time() - start

    def mask(name):
        return form.pack(machines[name].mask(form.encode(real[name]), delivered[name]))

    def add(name, masked):
        server.add(name, form.unpack(masked))

    keys = {name: machine.advertise() for name, machine in machines.items()}
    neighbours, seconds = timed(server.neighbours, keys)
    at_server += seconds
    sealed = {}
    for name, machine in machines.items():
        sealed[name], seconds = timed(machine.share_keys, neighbours[name])
        at_clients += seconds
    delivered, seconds = timed(server.deliver, sealed)
    at_server += seconds
    staying = list(real)[: clients - clients // 10]
    packed_bytes = 0
    for name in staying:
        masked, seconds = timed(
            lambda name=name: form.pack(machines[name].mask(form.encode(real[name]), delivered[name]))
        )
        at_clients += seconds
        packed_bytes += masked.nbytes
        _, seconds = timed(add, name, masked)
        at_server += seconds
    asks = server.ask()
    shares = {}
    for name in asks:
        shares[name], seconds = timed(machines[name].unmask, asks[name])
        at_clients += seconds
    opened, seconds = timed(server.open, shares)
    at_server += seconds
    keys_bytes = count_bytes(keys.values()) + count_bytes(sealed.values()) + count_bytes(shares.values())
    plain, at_plain = timed(lambda: np.sum([real[name].astype(np.float32) for name in staying], axis=0))
    error = float(np.abs(form.decode(opened) - np.sum([real[name] for name in staying], axis=0)).max())
    return {
        "client": at_clients / clients,
        "server": at_server,
        "plain": at_plain,
        "up": (packed_bytes + keys_bytes) / len(staying),
        "plain_up": numbers * 4,
        "error": error,
        "step": form.step,
        "plain_size": plain.size,
    }


if __name__ == "__main__":
    print("| clients | numbers | s a client | s server | s plain sum | bytes up a client | plain | largest error |")
    print("|---|---|---|---|---|---|---|---|")
    for argument in sys.argv[1:]:
        n, d = map(int, argument.split(":"))
        m = measure(n, d)
        print(
            f"| {n} | {d:,} | {m['client']:.3f} | {m['server']:.3f} | {m['plain']:.4f} | {m['up']:,.0f} "
            f"| {m['plain_up']:,} | {m['error']:.1e} |",
            flush=True,
        )
