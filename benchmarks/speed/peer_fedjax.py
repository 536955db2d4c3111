"""FedJAX on JAX's CPU back end. `python fedjax_jax.py MODEL`, 2nn or cnn; see `turns.py`.

FedJAX was written for a JAX that still had `jax.tree_map` and its like; they are put back first.
"""

import sys

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

for name in ("map", "leaves", "flatten", "unflatten", "structure"):
    setattr(jax, f"tree_{name}", getattr(jax.tree_util, f"tree_{name}"))

import fedjax  # noqa: E402
from fedjax.algorithms import fed_avg  # noqa: E402
from turns import take_turns  # noqa: E402

CLIENTS, EXAMPLES, BATCH, LR = 10, 600, 10, 0.05
NETWORKS = {
    "2nn": lambda: [hk.Flatten(), hk.Linear(200), jax.nn.relu, hk.Linear(200), jax.nn.relu, hk.Linear(10)],
    "cnn": lambda: [
        *(hk.Conv2D(32, 5), jax.nn.relu, hk.MaxPool(2, 2, "SAME")),
        *(hk.Conv2D(64, 5), jax.nn.relu, hk.MaxPool(2, 2, "SAME")),
        *(hk.Flatten(), hk.Linear(512), jax.nn.relu, hk.Linear(10)),
    ],
}
network = hk.transform(lambda batch: hk.Sequential(NETWORKS[sys.argv[1]]())(batch["x"]))
random = np.random.RandomState(0)
sample = {"x": np.zeros((1, 28, 28, 1), np.float32), "y": np.zeros(1, np.int32)}


def losses(batch, outputs):
    return -jnp.take_along_axis(jax.nn.log_softmax(outputs), batch["y"][:, None], 1)[:, 0]


model = fedjax.create_model_from_haiku(
    transformed_forward_pass=network,
    sample_batch=sample,
    train_loss=losses,
    eval_metrics={},
    train_kwargs={},
    eval_kwargs={},
)
data = [
    {
        "x": random.rand(EXAMPLES, 28, 28, 1).astype(np.float32),
        "y": random.randint(0, 10, EXAMPLES).astype(np.int32),
    }
    for _ in range(CLIENTS)
]
clients = [(b"%d" % k, fedjax.ClientDataset(own), jax.random.PRNGKey(k)) for k, own in enumerate(data)]
gradient = jax.grad(lambda w, batch, key: jnp.mean(losses(batch, model.apply_for_train(w, batch, key))))
algorithm = fed_avg.federated_averaging(
    gradient,
    fedjax.optimizers.sgd(LR),
    fedjax.optimizers.sgd(1.0),
    fedjax.ShuffleRepeatBatchHParams(batch_size=BATCH, num_epochs=1, drop_remainder=False),
)
state = algorithm.init(model.init(jax.random.PRNGKey(0)))


def one_round():
    global state
    state, _ = algorithm.apply(state, clients)
    jax.block_until_ready(state.params)


take_turns(one_round)
