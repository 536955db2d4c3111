"""Flower's simulation engine until the test accuracy is 97 %; see `to_target.py`."""

import os

import target_work as work
import torch
import torch_models
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from torch.nn import functional as F

client, server = ClientApp(), ServerApp()


@client.train()
def train(message: Message, context: Context) -> Message:
    torch.set_num_threads(1)
    model = torch_models.make("2nn")
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    own = int(context.node_config["partition-id"])
    x, y = work.DATA["x"][own], work.DATA["y"][own]
    optimizer = torch.optim.SGD(model.parameters(), lr=work.LR)
    for rows in torch.randperm(len(x)).split(work.BATCH):
        optimizer.zero_grad()
        F.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()
    content = {"arrays": ArrayRecord(model.state_dict()), "metrics": MetricRecord({"num-examples": len(x)})}
    return Message(content=RecordDict(content), reply_to=message)


@server.main()
def main(grid: Grid, context: Context) -> None:
    torch.manual_seed(work.SEED)
    tested = torch_models.make("2nn")
    weights = ArrayRecord(tested.state_dict())

    def test(number: int, arrays: ArrayRecord) -> MetricRecord:
        """Flower calls this after each round, and has no way to stop early but to end."""
        tested.load_state_dict(arrays.to_torch_state_dict())
        reached = work.accuracy(tested)
        if reached >= work.TARGET or number == work.ROUNDS:
            work.end(tested, number, reached)
            os._exit(0)
        return MetricRecord({"accuracy": reached})

    strategy = FedAvg(fraction_train=work.COHORT / work.CLIENTS, fraction_evaluate=0.0)
    strategy.start(grid=grid, initial_arrays=weights, num_rounds=work.ROUNDS, evaluate_fn=test)


resources = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}}
run_simulation(server, client, num_supernodes=work.CLIENTS, backend_config=resources)
