"""Measure why a federation goes as it does: from single rounds, and from the models that runs begin and end with.

`Probe` and `PROBES` can be used without PyTorch; everything else is imported when it is asked for.

>>> from coterie.probes import Probe
>>> now_and_then = Probe(["drift", "diversity", "gain"], every=5)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from coterie.probes.probe import PROBES, Probe

if TYPE_CHECKING:
    from coterie.probes.hessian import Eigenvalue, curvature, top_eigenvalue
    from coterie.probes.loss_landscape import Line, Plane, line, plane
    from coterie.probes.loss_surface import Surface, subset
    from coterie.probes.simplex import minimise
    from coterie.probes.update_geometry import cosine, diversity, drift

__all__ = [
    "PROBES",
    "Eigenvalue",
    "Line",
    "Plane",
    "Probe",
    "Surface",
    "cosine",
    "curvature",
    "diversity",
    "drift",
    "line",
    "minimise",
    "plane",
    "subset",
    "top_eigenvalue",
]

_MODULES = {
    "hessian": ("Eigenvalue", "curvature", "top_eigenvalue"),
    "loss_landscape": ("Line", "Plane", "line", "plane"),
    "loss_surface": ("Surface", "subset"),
    "simplex": ("minimise",),
    "update_geometry": ("cosine", "diversity", "drift"),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
