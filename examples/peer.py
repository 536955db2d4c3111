"""One participant of mutual learning without a server, from Python. Start one such process at each place.

    python examples/peer.py --id north --data north.npz --seed-set seed.npz --model cnn --mailbox /shared/box

It does what `coterie peer` does for an experiment's file, with objects of your own. `roster.toml` has a line for each
participant, as `coterie peer-key --id north` prints it. Each npz holds x [n, ...] and y [n]. The seed set is the same
file everywhere, and has every class in it. A participant that is killed and started again goes on from its last round.
See docs/how-to/learning_without_a_server.md.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors.torch import save_file

import coterie
from coterie import Examples
from coterie.core.digests import digest
from coterie.data import load
from coterie.data.numpy_arrays import inputs_from_array, labels_from_array
from coterie.loop.checkpoint import Checkpoints
from coterie.models import build
from coterie.peers.agreed_rounds import take_part
from coterie.peers.keys import load_key
from coterie.peers.objects import open_objects
from coterie.peers.pace import Pace
from coterie.peers.roster import read_roster
from coterie.peers.signed_mailbox import SignedMailbox


def main(arguments: list[str] | None = None) -> None:
    """Take part in mutual learning until the last round."""
    parser = argparse.ArgumentParser()
    for name in ("--id", "--data", "--seed-set", "--model", "--mailbox"):
        parser.add_argument(name, required=True)
    parser.add_argument("--roster", type=Path, default=Path("roster.toml"))
    parser.add_argument("--key", type=Path, help="by default where `coterie peer-key` puts it")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--deadline", type=float, default=60.0, help="seconds to wait for the others in a round")
    parser.add_argument("--out", type=Path, help="the folder for its state and its model; ./ID by default")
    given = parser.parse_args(arguments)

    mine, arrays = load("npz", path=given.data), np.load(given.seed_set)
    labels, count = labels_from_array("the seed set's y", arrays["y"])
    seed = Examples(inputs_from_array("the seed set's x", arrays["x"]), labels)
    roster = read_roster(given.roster)
    plan = coterie.plan(
        coterie.fedh2l(lr=0.05, local_steps=40),
        build(given.model, list(seed.x.shape[1:]), count, rng_seed=0),
        {given.id: mine.train},
        rounds=given.rounds,
        seed_set=seed,
        test=mine.test,
        num_classes=count,
    )
    plan = replace(plan, ids=tuple(sorted(roster.keys)))  # all take part, and this process has the data of one

    key = load_key(given.key or Path.home() / ".coterie" / "keys" / f"{given.id}.key")
    parts = {"example": "fedh2l", "seed set": digest(Path(given.seed_set).read_bytes())}  # what all must have alike
    mailbox = SignedMailbox(open_objects(given.mailbox), roster, given.id, key, parts, say=print)
    out = given.out or Path(given.id)
    checkpoints = Checkpoints(out / "checkpoint")
    for last in take_part(plan, mailbox, Pace(deadline=given.deadline), checkpoints.load(), print):
        checkpoints.save(last)
        measured = "" if last.test_accuracy is None else f"; accuracy {last.test_accuracy:.2%}"
        print(f"round {last.round}: {last.reached} of {len(last.cohort)} count{measured}", flush=True)
        for entry in last.dropped:
            print(f"round {last.round}: {entry['client']} does not count: {entry['why']}", flush=True)
        save_file(last.weights(given.id), out / "model.safetensors", {"model": given.model})


if __name__ == "__main__":
    try:
        main()
    except coterie.Mistake as mistake:
        print(mistake, file=sys.stderr)
        sys.exit(2)
