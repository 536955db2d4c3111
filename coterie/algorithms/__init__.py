"""Federated algorithms, one file each, as functions that return a `coterie.core.algorithm.Recipe`."""

from coterie.algorithms.baselines import centralized, independent
from coterie.algorithms.fbn import fbn
from coterie.algorithms.fedavg import fedavg, fedsgd
from coterie.algorithms.fedbn import fedbn
from coterie.algorithms.feddf import feddf
from coterie.algorithms.feddyn import feddyn
from coterie.algorithms.fedh2l import fedh2l
from coterie.algorithms.fedmd import fedmd
from coterie.algorithms.fedopt import fedadagrad, fedadam, fedavgm, fedyogi
from coterie.algorithms.fedprox import fedprox
from coterie.algorithms.fedssl import fedssl
from coterie.algorithms.fixbn import fixbn
from coterie.algorithms.hbn import hbn
from coterie.algorithms.scaffold import scaffold

__all__ = [
    "centralized",
    "fbn",
    "fedadagrad",
    "fedadam",
    "fedavg",
    "fedavgm",
    "fedbn",
    "feddf",
    "feddyn",
    "fedh2l",
    "fedmd",
    "fedprox",
    "fedsgd",
    "fedssl",
    "fedyogi",
    "fixbn",
    "hbn",
    "independent",
    "scaffold",
]
