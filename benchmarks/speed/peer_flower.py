"""Flower's simulation engine, Ray with one actor a core. `python peer_flower.py WORK [DEVICE]`; see `turns.py`.

On a GPU, eight actors share it.
"""

import sys

import torch
import torch_models as work
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from turns import asked, say

NAME, DEVICE = sys.argv[1], (*sys.argv[2:], "cpu")[0]
WORK = work.WORKS[NAME]
client, server = ClientApp(), ServerApp()


@client.train()
def train(message: Message, context: Context) -> Message:
    torch.set_num_threads(1)
    model = work.make(WORK.model).to(DEVICE)
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    x, y = (each.to(DEVICE) for each in work.examples(NAME, int(context.node_config["partition-id"])))
    optimizer = torch.optim.SGD(model.parameters(), lr=work.LR)
    for rows in torch.randperm(len(x)).split(work.BATCH):
        optimizer.zero_grad()
        work.loss(model(x[rows]), y[rows]).backward()
        optimizer.step()
    content = {"arrays": ArrayRecord(model.state_dict()), "metrics": MetricRecord({"num-examples": len(x)})}
    return Message(content=RecordDict(content), reply_to=message)


@server.main()
def main(grid: Grid, context: Context) -> None:
    import time

    began = time.perf_counter()

    def between(number: int, arrays: ArrayRecord) -> MetricRecord:
        """Flower calls this before the first round and after each: here a round waits until it is asked for."""
        nonlocal began
        say(ready=True) if number == 0 else say(seconds=time.perf_counter() - began)
        if not asked():
            import os

            os._exit(0)
        began = time.perf_counter()
        return MetricRecord({"none": 0.0})

    strategy = FedAvg(fraction_train=WORK.cohort / WORK.clients, fraction_evaluate=0.0)
    weights = ArrayRecord(work.make(WORK.model).state_dict())
    strategy.start(grid=grid, initial_arrays=weights, num_rounds=10_000, evaluate_fn=between)


resources = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0 if DEVICE == "cpu" else 0.125}}
run_simulation(server, client, num_supernodes=WORK.clients, backend_config=resources)
