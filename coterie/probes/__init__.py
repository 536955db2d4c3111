"""Measure why a federation goes as it does: from single rounds, and from the models that runs begin and end with.

`Probe` and `PROBES` can be used without PyTorch; everything else is imported when it is asked for.

>>> from coterie.probes import Probe
>>> now_and_then = Probe(["drift", "diversity", "gain"], every=5)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coterie.core.lazy import export_lazily
from coterie.probes.probe import PROBES, Probe

if TYPE_CHECKING:
    from coterie.probes.hessian import Eigenvalue, curvature, top_eigenvalue
    from coterie.probes.loss_landscape import Line, Plane, line, plane
    from coterie.probes.loss_surface import Surface, draw_subset
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
    "draw_subset",
    "drift",
    "line",
    "minimise",
    "plane",
    "top_eigenvalue",
]

export_lazily(
    __name__,
    {
        "Eigenvalue": "coterie.probes.hessian:Eigenvalue",
        "Line": "coterie.probes.loss_landscape:Line",
        "Plane": "coterie.probes.loss_landscape:Plane",
        "Surface": "coterie.probes.loss_surface:Surface",
        "cosine": "coterie.probes.update_geometry:cosine",
        "curvature": "coterie.probes.hessian:curvature",
        "diversity": "coterie.probes.update_geometry:diversity",
        "drift": "coterie.probes.update_geometry:drift",
        "line": "coterie.probes.loss_landscape:line",
        "minimise": "coterie.probes.simplex:minimise",
        "plane": "coterie.probes.loss_landscape:plane",
        "draw_subset": "coterie.probes.loss_surface:draw_subset",
        "top_eigenvalue": "coterie.probes.hessian:top_eigenvalue",
    },
)
