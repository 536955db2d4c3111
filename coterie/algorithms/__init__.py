"""Federated algorithms, one file each, as functions that return a `coterie.core.algorithm.Recipe`.

`ALGORITHMS` can be read without PyTorch; an algorithm is imported when it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coterie.core.lazy import export_lazily
from coterie.core.registry import Registry

if TYPE_CHECKING:
    from coterie.algorithms.baselines import centralized, independent
    from coterie.algorithms.batchnorm.fbn import fbn
    from coterie.algorithms.batchnorm.fedbn import fedbn
    from coterie.algorithms.batchnorm.fixbn import fixbn
    from coterie.algorithms.batchnorm.hbn import hbn
    from coterie.algorithms.fedavg import fedavg, fedsgd
    from coterie.algorithms.feddf import feddf
    from coterie.algorithms.feddyn import feddyn
    from coterie.algorithms.fedh2l import fedh2l
    from coterie.algorithms.fedmd import fedmd
    from coterie.algorithms.fedopt import fedadagrad, fedadam, fedavgm, fedmuon, fedyogi
    from coterie.algorithms.fedprox import fedprox
    from coterie.algorithms.fedssl import fedssl
    from coterie.algorithms.scaffold import scaffold

__all__ = [
    "ALGORITHMS",
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
    "fedmuon",
    "fedprox",
    "fedsgd",
    "fedssl",
    "fedyogi",
    "fixbn",
    "hbn",
    "independent",
    "scaffold",
]

ALGORITHMS = Registry(
    "name",
    {
        "centralized": "coterie.algorithms.baselines:centralized",
        "fbn": "coterie.algorithms.batchnorm.fbn:fbn",
        "fedadagrad": "coterie.algorithms.fedopt:fedadagrad",
        "fedadam": "coterie.algorithms.fedopt:fedadam",
        "fedavg": "coterie.algorithms.fedavg:fedavg",
        "fedavgm": "coterie.algorithms.fedopt:fedavgm",
        "fedbn": "coterie.algorithms.batchnorm.fedbn:fedbn",
        "feddf": "coterie.algorithms.feddf:feddf",
        "feddyn": "coterie.algorithms.feddyn:feddyn",
        "fedh2l": "coterie.algorithms.fedh2l:fedh2l",
        "fedmd": "coterie.algorithms.fedmd:fedmd",
        "fedmuon": "coterie.algorithms.fedopt:fedmuon",
        "fedprox": "coterie.algorithms.fedprox:fedprox",
        "fedsgd": "coterie.algorithms.fedavg:fedsgd",
        "fedssl": "coterie.algorithms.fedssl:fedssl",
        "fedyogi": "coterie.algorithms.fedopt:fedyogi",
        "fixbn": "coterie.algorithms.batchnorm.fixbn:fixbn",
        "hbn": "coterie.algorithms.batchnorm.hbn:hbn",
        "independent": "coterie.algorithms.baselines:independent",
        "scaffold": "coterie.algorithms.scaffold:scaffold",
    },
    takes_own=True,
)
"""Every algorithm by name."""

export_lazily(__name__, ALGORITHMS.places)
