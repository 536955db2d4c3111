"""What the programs of `to_target.py` train on: MNIST as coterie dealt it. Needs only torch.

The command line of each: the file with the data, the file for the weights, a seed, and the most rounds.
"""

import sys

import torch

DATA, OUT, SEED, ROUNDS = torch.load(sys.argv[1], mmap=True, weights_only=True), *sys.argv[2:3], *map(int, sys.argv[3:])
CLIENTS, COHORT, BATCH, LR, TARGET = len(DATA["x"]), len(DATA["x"]) // 10, 10, 0.1, 0.97


@torch.no_grad()
def accuracy(model):
    """The share of the test images that a model tells."""
    return float((model(DATA["test_x"]).argmax(1) == DATA["test_y"]).float().mean())


def end(model, rounds, reached):
    """Write the weights, and say on one line how it went."""
    torch.save(model.state_dict(), OUT)
    print(f"@ {rounds} {reached:.4f}", flush=True)
