"""What the programs of `to_target.py` train on: MNIST as coterie dealt it. Needs only torch.

The variables TARGET_DATA and TARGET_OUT name the files with the data and for the weights; TARGET_SEED and TARGET_ROUNDS
are a seed and the most rounds. Variables reach the processes that a peer starts; arguments would not.
"""

import os

import torch

DATA, OUT = torch.load(os.environ["TARGET_DATA"], mmap=True, weights_only=True), os.environ["TARGET_OUT"]
SEED, ROUNDS = int(os.environ["TARGET_SEED"]), int(os.environ["TARGET_ROUNDS"])
CLIENTS, COHORT, BATCH, LR, TARGET = len(DATA["x"]), len(DATA["x"]) // 10, 10, 0.1, 0.97


@torch.no_grad()
def accuracy(model):
    """The share of the test images that a model tells."""
    return float((model(DATA["test_x"]).argmax(1) == DATA["test_y"]).float().mean())


def end(model, rounds, reached):
    """Write the weights, and say on one line how it went."""
    torch.save(model.state_dict(), OUT)
    print(f"@ {rounds} {reached:.4f}", flush=True)
