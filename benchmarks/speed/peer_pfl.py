"""pfl-research, one process with one thread a core. `python peer_pfl.py WORK [DEVICE]`; see `turns.py`."""

import os
import sys
import time

import torch
import torch_models as work
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam import NNTrainHyperParams
from pfl.metrics import Metrics, Weighted
from pfl.model.pytorch import PyTorchModel
from torch import nn
from turns import asked, say

NAME, DEVICE = sys.argv[1], (*sys.argv[2:], "cpu")[0]
WORK = work.WORKS[NAME]
torch.set_num_threads(os.cpu_count() or 1)
DATA = [[x.to(DEVICE) for x in work.examples(NAME, client)] for client in range(WORK.clients)]


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = work.make(WORK.model)

    def forward(self, x):
        return self.net(x)

    def loss(self, x, y, eval=False):
        self.train(not eval)
        return work.loss(self(x), y)

    def metrics(self, x, y, eval=False):
        return {"loss": Weighted(0.0, 1)}


class Turns(TrainingProcessCallback):
    def on_train_begin(self, *, model):
        say(ready=True)
        self._wait()
        return Metrics()

    def after_central_iteration(self, *arguments, **named):
        if DEVICE != "cpu":
            torch.cuda.synchronize()
        say(seconds=time.perf_counter() - self.began)
        self._wait()
        return False, Metrics()

    def _wait(self):
        if not asked():
            os._exit(0)
        self.began = time.perf_counter()


module = Model()
central = torch.optim.SGD(module.parameters(), lr=1.0)
model = PyTorchModel(module, local_optimizer_create=torch.optim.SGD, central_optimizer=central)
users = FederatedDataset(
    lambda user: Dataset(raw_data=list(DATA[user]), user_id=str(user)),
    get_user_sampler("minimize_reuse", list(range(WORK.clients))),
)
FederatedAveraging().run(
    algorithm_params=NNAlgorithmParams(
        central_num_iterations=10_000,
        evaluation_frequency=1_000_000,
        train_cohort_size=WORK.cohort,
        val_cohort_size=0,
    ),
    backend=SimulatedBackend(training_data=users, val_data=None, postprocessors=[]),
    model=model,
    model_train_params=NNTrainHyperParams(local_num_epochs=1, local_learning_rate=work.LR, local_batch_size=work.BATCH),
    callbacks=[Turns()],
)
