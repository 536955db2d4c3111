"""One participant of mutual learning without a server. Start one such process at each place, with that place's data.

    python examples/peer.py --id north --data north.npz --seed-set seed.npz --model cnn --mailbox /shared/box --of 4

`--mailbox` is a folder that all participants share, or HOST:PORT, where `python -m coterie.peers.network_mailbox PORT`
runs. Each npz holds x [n, ...] and y [n]. The seed set is the same file everywhere, and has every class in it. A
participant that is killed and started again continues from its last round. See
docs/how-to/learning_without_a_server.md.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from safetensors.torch import save_file

import coterie
from coterie import Examples
from coterie.core.errors import few
from coterie.core.printable import printable
from coterie.data import load
from coterie.data.numpy_arrays import inputs_from_array, labels_from_array
from coterie.loop.checkpoint import Checkpoints
from coterie.models import build
from coterie.peers.mailbox import Folder, Mailbox
from coterie.peers.network_mailbox import Network
from coterie.peers.participate import participate


def mailbox_at(where: str, participants: int) -> Mailbox:
    """Return the mailbox at HOST:PORT, or the one in a folder."""
    host, _, port = where.rpartition(":")
    return Network(host, int(port), participants) if host and port.isdigit() else Folder(Path(where), participants)


def main(arguments: list[str] | None = None) -> None:
    """Take part in mutual learning until the last round."""
    parser = argparse.ArgumentParser()
    for name in ("--id", "--data", "--seed-set", "--model", "--mailbox"):
        parser.add_argument(name, required=True)
    parser.add_argument("--of", type=int, required=True, help="how many participants there are")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--local-steps", type=int, default=40)
    parser.add_argument("--deadline", type=float, default=60.0, help="seconds to wait for the others in a round")
    parser.add_argument("--out", type=Path, help="the folder for its state and its model; ./ID by default")
    given = parser.parse_args(arguments)
    mine, arrays = load("npz", path=given.data), np.load(given.seed_set)
    labels, count = labels_from_array("the seed set's y", arrays["y"])
    seed = Examples(inputs_from_array("the seed set's x", arrays["x"]), labels)
    plan = coterie.plan(
        coterie.fedh2l(lr=0.05, local_steps=given.local_steps),
        build(given.model, list(seed.x.shape[1:]), count, rng_seed=0),
        {given.id: mine.train},
        rounds=given.rounds,
        seed_set=seed,
        test=seed,  # the only test data that all participants hold; each also tests on its own
        own_test={given.id: mine.test},
        num_classes=count,
    )
    out = given.out or Path(given.id)
    checkpoints = Checkpoints(out / "checkpoint")
    for last in participate(plan, mailbox_at(given.mailbox, given.of), given.deadline, checkpoints.load()):
        checkpoints.save(last)
        own, on_seed = last.measures["own_test_accuracy"], last.test_accuracy
        left_out = {entry["client"]: entry["why"] for entry in last.dropped}
        heard = [printable(sender) for sender in last.cohort if sender not in left_out]
        print(f"round {last.round}: heard {few(heard, 20)}; own {own:.2%}, seed set {on_seed:.2%}", flush=True)
        if left_out:
            reasons = [f"{printable(sender)} ({why})" for sender, why in left_out.items()]
            print(f"round {last.round}: left out {few(reasons)}", flush=True)
        save_file(last.weights(), out / "model.safetensors", {"model": given.model})


if __name__ == "__main__":
    try:
        main()
    except coterie.Mistake as mistake:
        print(mistake, file=sys.stderr)
        sys.exit(2)
