"""A new algorithm in one file: signSGD with majority vote, which the library does not have.

    client  v_i = sign(grad l(w; b)), of one batch b         -1, 0 or 1 per number: one byte, where FedAvg sends four
    server  w <- w - lr sign(sum_i v_i)                      every client has one vote

Bernstein, Wang, Azizzadenesheli, Anandkumar: signSGD: Compressed Optimisation for Non-Convex Problems, ICML 2018,
Algorithm 3. Run it with `python examples/your_algorithm.py`.
"""

import torch

import coterie
from coterie import Algorithm, ClientHalf, Context, Recipe, RoundInfo, ServerHalf, Stream, Task
from coterie.core import tree
from coterie.core.algorithm import Batches, Logs
from coterie.core.tree import Tree
from coterie.data import deal, load
from coterie.models import build


def signsgd(*, lr: float, batch_size: int = 32, lr_decay: float = 1.0) -> Recipe:
    """Return signSGD with majority vote. It never knows how many clients run at once, or where."""

    def bind(task: Task) -> Algorithm:
        def start(broadcast: Tree, state: Tree, ctx: Context) -> Tree:
            return {**broadcast, "vote": tree.zeros_like(broadcast["params"])}

        def step(carry: Tree, batches: Batches, ctx: Context) -> tuple[Tree, Logs]:
            grads, buffers, logs = task.gradient(carry["params"], carry["buffers"], batches["private"])
            return {**carry, "buffers": buffers, "vote": tree.map(torch.sign, grads)}, logs

        def finish(broadcast: Tree, carry: Tree, ctx: Context) -> tuple[Tree, Tree]:
            return {"vote": tree.map(lambda v: v.to(torch.int8), carry["vote"])}, {}  # (the update, the client state)

        def update(state: Tree, aggregate: Tree, info: RoundInfo) -> Tree:
            majority = tree.map(torch.sign, aggregate["vote"])  # the mean vote has the sign of the sum
            return {**state, "params": tree.add(state["params"], majority, -lr * lr_decay ** (info.round - 1))}

        one_batch = {"private": Stream(batch_size, steps=1)}
        client = ClientHalf(start, step, finish, one_batch, lr=lambda round: lr)
        return Algorithm(client, ServerHalf(update, weighting={"vote": "one"}))

    return bind


def main(rounds: int = 150) -> float:
    """Train on scikit-learn's digits, dealt to 20 clients with two shards each, and return the last test accuracy."""
    digits = load("digits")
    clients = deal(digits, partition="shards", num_clients=20, rng_seed=0)
    model = build("mlp", (1, 8, 8), 10, rng_seed=0)
    recipe = signsgd(lr=0.01, lr_decay=0.99)
    for round in coterie.federate(recipe, model, clients, rounds=rounds, test=digits.test, evaluate_every=10):
        if round.test_accuracy is not None:
            print(f"round {round.round:3}: test accuracy {round.test_accuracy:.3f}, {round.bytes_up} bytes up")
    return round.test_accuracy or 0.0


if __name__ == "__main__":
    main()
