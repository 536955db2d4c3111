"""What a publication of a run has to cite: the BibTeX entries of the methods, the data and the tools that it used."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from coterie.report.asset_files import read_asset

_MCMAHAN = "mcmahan2017communication"
_FEDOPT = ("reddi2021adaptive", _MCMAHAN)

CITED: dict[str, dict[str, tuple[str, ...]]] = {
    "algorithm.name": {
        "fedavg": (_MCMAHAN,),
        "fedsgd": (_MCMAHAN,),
        "fedprox": ("li2020federated",),
        "scaffold": ("karimireddy2020scaffold",),
        "feddyn": ("acar2021federated",),
        "fedavgm": ("hsu2019measuring",),
        "fedadagrad": _FEDOPT,
        "fedadam": _FEDOPT,
        "fedyogi": _FEDOPT,
        "fedmuon": ("jordan2024muon", *_FEDOPT),
        "feddf": ("lin2020ensemble",),
        "fedmd": ("li2019fedmd",),
        "fedh2l": ("li2021fedh2l",),
        "fbn": ("guerraoui2024overcoming",),
        "fedbn": ("li2021fedbn",),
        "fixbn": ("zhong2023making",),
        "hbn": ("chen2025hybrid",),
        "fedssl": ("chen2023importance",),
        "centralized": (),
        "independent": (),
    },
    "data.source": {
        "digits": ("alpaydin1998optical",),
        "mnist": ("lecun1998gradient",),
        "fashion_mnist": ("xiao2017fashion",),
        "rotated_mnist": ("ghifary2015domain", "lecun1998gradient"),
        "rotated": (),
        "mnist_m": ("ganin2015unsupervised", "lecun1998gradient"),
        "digits_mix": ("ganin2015unsupervised", "lecun1998gradient"),
        "cifar10": ("krizhevsky2009learning",),
        "cifar100": ("krizhevsky2009learning",),
        "pacs": ("li2017deeper",),
        "shakespeare": (_MCMAHAN,),
        "heart_disease": ("janosi1988heart",),
        "diabetes": ("efron2004least",),
        "adult": ("becker1996adult",),
        "synthetic": ("li2020federated",),
        **dict.fromkeys(("npz", "csv", "parquet", "images", "huggingface"), ()),
    },
    "data.partition": {
        "shards": (_MCMAHAN,),
        "dirichlet": ("hsu2019measuring", "yurochkin2019bayesian"),
        "label": ("li2022federated",),
        "quantity": ("li2022federated",),
        "iid": (),
        "natural": (),
    },
    "aggregation.name": {
        "krum": ("blanchard2017machine", "allouah2023fixing"),
        "multi_krum": ("blanchard2017machine", "allouah2023fixing"),
        "median": ("yin2018byzantine",),
        "trimmed_mean": ("yin2018byzantine",),
        "geometric_median": ("pillutla2022robust",),
        "meamed": ("xie2018generalized",),
        "mda": ("elmhamdi2020genuinely",),
        "centred_clipping": ("karimireddy2021learning",),
        "mean": (),
    },
    "aggregation.pre": {
        "nnm": ("allouah2023fixing",),
        "bucketing": ("karimireddy2022bucketing",),
        "arc": ("allouah2024boosting",),
        "clip": (),
    },
    "attack.name": {
        "alie": ("baruch2019little",),
        "ipm": ("xie2019fall",),
        "mimic": ("karimireddy2022bucketing",),
    },
    "privacy.unit": {
        "client": ("mcmahan2018learning", "koskela2020computing"),
        "example": ("abadi2016deep", "koskela2020computing"),
        "none": (),
    },
    "privacy.clip": {"adaptive": ("andrew2021differentially",)},
    "privacy.secure_sum": {"true": ("bonawitz2017practical", "bell2020secure")},
    "model.name": {
        "resnet18": ("he2016deep",),
        "resnet20": ("he2016deep",),
        "vit": ("dosovitskiy2021image",),
        "transformer": ("radford2019language",),
    },
    "pretrain.method": {"fps": ("chen2023importance", "anderson2022improving")},
    "pretrain.loss": {"simsiam": ("chen2021exploring",), "moco": ("he2020momentum",)},
}
"""Key -> value -> the entries of `assets/references.bib`; none where there is nothing to cite."""


def citations(config: Mapping[str, Any]) -> str:
    """Return the BibTeX entries of what a run used, the algorithm's first; empty where nothing is known to cite.

    Args:
        config: key -> value, with the table's name before the key.

    >>> print(citations({"algorithm.name": "independent", "data.source": "adult"}))
    @misc{becker1996adult,
      title = {Adult},
      author = {Becker, Barry and Kohavi, Ronny},
      howpublished = {UCI Machine Learning Repository},
      year = {1996}
    }
    """
    names = [name for key in CITED for value in _values(config, key) for name in CITED[key].get(value, ())]
    entries = read_references()
    return "\n\n".join(entries[name] for name in dict.fromkeys(names))


def _values(config: Mapping[str, Any], key: str) -> Iterator[str]:
    """Yield the values of a key as text; those of `model.names` and `model.clients` belong to `model.name`."""
    found = config.get(key)
    yield from map(_text, found if isinstance(found, list) else [found])
    if key == "model.name":
        clients = config.get("model.clients") or {}
        yield from map(str, [*(config.get("model.names") or []), *clients.values()])


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def read_references() -> dict[str, str]:
    """Return the entries of `assets/references.bib` by their names."""
    entries = read_asset("references.bib").split("\n\n")
    return {_name(entry): entry for entry in entries}


def _name(entry: str) -> str:
    found = re.match(r"@\w+\{([a-z0-9]+),\n", entry)
    assert found is not None, f"not a BibTeX entry: {entry[:40]}"
    return found[1]
