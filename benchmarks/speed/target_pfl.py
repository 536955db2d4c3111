"""pfl-research, one process with one thread a core, until the test accuracy is 97 %; see `to_target.py`."""

import os

import numpy as np
import target_work as work
import torch
import torch_models
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
from torch.nn import functional as F

torch.manual_seed(work.SEED)
np.random.seed(work.SEED)
torch.set_num_threads(os.cpu_count() or 1)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = torch_models.make("2nn")

    def forward(self, x):
        return self.net(x)

    def loss(self, x, y, eval=False):
        self.train(not eval)
        return F.cross_entropy(self(x), y)

    def metrics(self, x, y, eval=False):
        return {"loss": Weighted(0.0, 1)}


class Test(TrainingProcessCallback):
    def after_central_iteration(self, aggregated, model, *, central_iteration):
        reached = work.accuracy(module)
        ends = reached >= work.TARGET or central_iteration + 1 == work.ROUNDS
        if ends:
            work.end(module, central_iteration + 1, reached)
        return ends, Metrics()


def user(number):
    rows = torch.randperm(work.DATA["x"].shape[1])  # pfl itself takes a user's examples in their order
    own = int(number)
    return Dataset(raw_data=[work.DATA["x"][own][rows], work.DATA["y"][own][rows]], user_id=str(number))


module = Model()
central = torch.optim.SGD(module.parameters(), lr=1.0)
model = PyTorchModel(module, local_optimizer_create=torch.optim.SGD, central_optimizer=central)
users = FederatedDataset(user, get_user_sampler("random", list(range(work.CLIENTS))))
FederatedAveraging().run(
    algorithm_params=NNAlgorithmParams(
        central_num_iterations=work.ROUNDS,
        evaluation_frequency=1_000_000,
        train_cohort_size=work.COHORT,
        val_cohort_size=0,
    ),
    backend=SimulatedBackend(training_data=users, val_data=None, postprocessors=[]),
    model=model,
    model_train_params=NNTrainHyperParams(local_num_epochs=1, local_learning_rate=work.LR, local_batch_size=work.BATCH),
    callbacks=[Test()],
)
