"""The earlier home of the optimisers, which now serve clients too: see `coterie.algorithms.optimizers`."""

from coterie.algorithms.optimizers import Optimizer, adagrad, adam, sgd, yogi

__all__ = ["Optimizer", "adagrad", "adam", "sgd", "yogi"]
