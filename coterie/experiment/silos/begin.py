"""What a coordinator and a silo say before the first round, and how each end judges it.

    coordinator asks                                              a silo answers
    facts     the settings, for the silo's policy                 its facts
    sums      the agreement of all silos                          each client's sums, for the federated exchange
    begin     the agreement, the settings, the names of the       that it can begin
              models, the scale, and the weights to start from

The messages are those of `coterie.silos.message`. A silo that cannot do what it is asked answers "failed".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coterie.core.digests import digest
from coterie.core.errors import Mistake
from coterie.core.packing import pack
from coterie.core.tree import Tree
from coterie.data.standardize import Scale
from coterie.experiment.silos.merge_facts import Agreement, read_agreement
from coterie.silos.message import MAX_REASON_LENGTH, Message, Unusable, read_message, write_message


class Waits(Mistake):
    """A run waits at a silo for a person who approves it; asking again later may bring another answer."""


KINDS = ("facts", "sums", "begin")
"""What is asked before the first round."""


@dataclass(frozen=True)
class Begin:
    """Everything that a silo must know to begin.

    Attributes:
        tables: the settings, as `settings_to_send` gives them.
        agreement: of all silos.
        scale: of the federated exchange, or None.
        models: client -> the name of its model, for this silo's clients; None where there is one model.
        starts: model -> the weights that it starts from, as a weights file's bytes; nothing for initial weights.
        digest: of the silo's rows, as its facts gave it.
    """

    tables: Mapping[str, Any]
    agreement: Agreement
    scale: Scale | None
    models: Mapping[str, str] | None
    starts: Mapping[str, bytes]
    digest: str

    def text(self) -> str:
        """Return what both ends must have alike, as text; see `coterie.silos.coordinate.coordinate`."""
        scale = None if self.scale is None else [self.scale.mean.tolist(), self.scale.deviation.tolist()]
        starts = {name: digest(data) for name, data in self.starts.items()}
        return json.dumps([self.tables, self.agreement.to_record(), scale, starts], sort_keys=True)

    def to_message(self, run: str) -> bytes:
        """Return the request."""
        scale: Tree = {} if self.scale is None else {"mean": self.scale.mean, "deviation": self.scale.deviation}
        fields = {
            "tables": dict(self.tables),
            "agreement": self.agreement.to_record(),
            "models": None if self.models is None else dict(self.models),
            "starts": list(self.starts),
            "digest": self.digest,
        }
        return write_message({**request_fields(run, "begin"), **fields}, [pack(scale), *self.starts.values()])


def request_fields(run: str, kind: str) -> dict[str, Any]:
    """Return the first fields of a request."""
    return {"kind": kind, "run": run, "round": 0}


def answer_fields(run: str, kind: str, request: bytes) -> dict[str, Any]:
    """Return the first fields of the answer to a request."""
    return {"kind": kind, "run": run, "request": digest(request)}


def refuse(request: bytes, why: str, waits: bool = False) -> bytes:
    """Return the answer to any request, also of a round, that a silo does not do, with the reason.

    Args:
        request: a coordinator's; a stranger's may be something else.
        why: in a sentence.
        waits: whether it may do it later, once a person has approved the run.
    """
    try:
        fields = read_message(request, len(request)).fields
    except Unusable:
        fields = {}
    echoed = {name: fields[name] for name in ("run", "experiment") if isinstance(fields.get(name), str)}
    answer = {"kind": "failed", "run": "", **echoed, "request": digest(request), "why": why[:MAX_REASON_LENGTH]}
    return write_message({**answer, "waits": True} if waits else answer)


def read_begin(message: Message) -> Begin:
    """Return what a coordinator has sent for a silo to begin.

    Raises:
        Unusable, Mistake: its form is wrong.
    """
    tables, names = message.fields.get("tables"), message.fields.get("starts")
    if not isinstance(tables, dict) or not all(_is_entry(value) for value in tables.values()):
        raise Unusable("holds no settings")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise Unusable("does not name the models of its weights")
    if len(message.parts) != 1 + len(names):
        raise Unusable(f"holds {len(message.parts)} parts, and {1 + len(names)} are needed")
    models = message.fields.get("models")
    if models is not None and not (isinstance(models, dict) and all(isinstance(m, str) for m in models.values())):
        raise Unusable("does not name its clients' models")
    starts = dict(zip(names, message.parts[1:], strict=True))
    agreement = read_agreement(message.fields.get("agreement"))
    return Begin(tables, agreement, _read_scale(message.tree(0)), models, starts, message.text("digest"))


def _is_entry(value: Any) -> bool:
    """Return whether a value may stand at the top of a file: a table, or a whole number."""
    return isinstance(value, dict) or type(value) is int


def _read_scale(given: Tree) -> Scale | None:
    """Return a scale that can be divided by.

    Raises:
        Unusable: it is not one.
    """
    if not given:
        return None
    if given.keys() != {"mean", "deviation"}:
        raise Unusable("holds no mean and deviation")
    mean, deviation = given["mean"], given["deviation"]
    sound = mean.shape == deviation.shape and mean.dim() == 1 and mean.isfinite().all() and deviation.isfinite().all()
    if not sound or not bool((deviation > 0).all()):
        raise Unusable("holds a mean or a deviation that nothing can be scaled by")
    return Scale(mean.double(), deviation.double())
