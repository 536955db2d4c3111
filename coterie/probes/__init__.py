"""Why a federation goes as it does: measures of single rounds, and of the models that runs begin and end with.

>>> from coterie.probes import Probe
>>> now_and_then = Probe(["drift", "diversity", "gain"], every=5)
"""

from coterie.probes.curvature import Eigenvalue, curvature, top_eigenvalue
from coterie.probes.landscape import Line, Plane, line, plane
from coterie.probes.probe import KINDS, Probe
from coterie.probes.remembering import remembering
from coterie.probes.simplex import least
from coterie.probes.surface import Surface, subset
from coterie.probes.updates import cosine, diversity, drift

__all__ = [
    "KINDS",
    "Eigenvalue",
    "Line",
    "Plane",
    "Probe",
    "Surface",
    "cosine",
    "curvature",
    "diversity",
    "drift",
    "least",
    "line",
    "plane",
    "remembering",
    "subset",
    "top_eigenvalue",
]
