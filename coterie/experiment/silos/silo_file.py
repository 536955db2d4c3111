"""A silo's own configuration, silo.toml: its data, test rows, own model and device. It never leaves the silo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import MinLen

from coterie.core.errors import Mistake
from coterie.core.kinds import Count
from coterie.data import SOURCES
from coterie.experiment.check_values import check_table, check_value, missing_key
from coterie.experiment.keys import REQUIRED, Key, Keys
from coterie.experiment.read_keys import registry_keys
from coterie.experiment.settings import check_top_level, find_checkpoints, make_paths_absolute, search_folders
from coterie.experiment.tables import model_function_keys
from coterie.experiment.toml_file import Raw, read_toml

SILO_FILE = "silo.toml"
DEALT = "dealt"
"""The source of a rehearsal: the rows that the simulation deals to a client, in a file that `deal_to_silos` writes."""
_TABLES = ("data", "seed_set", "model", "engine")
TABLE_SOURCES = ("csv", "parquet")
SPLIT_SOURCES = (*TABLE_SOURCES, "npz")
"""Sources whose test rows a silo chooses by a column, or by a digest of each row."""

_TOP = Keys(name=Key(str, REQUIRED), client=Key(str | None, None))
_MODEL = Keys(name=Key(str | None, None), weights=Key(str | Path | None, None))
_ENGINE = Keys(device=Key(str, "auto"), threads=Key(Count | Literal["auto"], "auto"))
_SEED_SET = Keys(path=Key(str | Path | None, None))
_OURS = ("source", "clients", "coded_columns")
_GIVEN = ("rng_seed", "task")
"""Arguments of sources that the experiment gives, and no silo."""


@dataclass(frozen=True)
class SiloFile:
    """What a silo.toml says.

    Attributes:
        path: of the file.
        name: the silo's.
        client: the id of its one client, by default its name. Rows with client ids of their own need none.
        source: where its rows come from.
        data: the keys of [data] that are the source's own.
        clients: which of the source's clients the silo hosts; None for all.
        coded_columns: columns of a table that are coded, also where this silo's cells are numbers.
        seed_set_path: its copy of the seed set's file.
        model, weights: the name of its own model, and the file of the weights that it starts from.
        device, threads: of its engine.
    """

    path: Path
    name: str
    client: str | None
    source: str
    data: Mapping[str, Any]
    clients: Sequence[str] | None = None
    coded_columns: Sequence[str] = ()
    seed_set_path: str | None = None
    model: str | None = None
    weights: str | None = None
    device: str = "auto"
    threads: int | Literal["auto"] = "auto"
    folders: Sequence[Path] = field(default_factory=tuple)


def load_silo_file(path: Path) -> SiloFile:
    """Return what a silo.toml says.

    Relative paths and code are looked for in the folders of its [origin], beside it, then in the working directory.

    Raises:
        Mistake: the file cannot be read, or a key or value cannot be used.
    """
    raw = read_toml(path)
    check_top_level(raw, _TABLES, _TOP)
    folders = tuple(search_folders(path, raw))
    top = check_table("", {k: v for k, v in raw.items() if k not in (*_TABLES, "origin")}, _TOP)
    for key in ("name", "client"):
        if top[key] is not None and not top[key].strip():
            raise Mistake(key=key, value=top[key], allowed="text that is not empty")
    data = _read_data(raw.get("data", {}), folders)
    model = check_table("model", raw.get("model", {}), _MODEL)
    if model["name"] is not None:
        model_function_keys(model["name"], folders)
    elif model["weights"] is not None:
        raise Mistake("it is the start of the silo's own model; give `name` too", key="weights", table="model")
    seed_set = make_paths_absolute(check_table("seed_set", raw.get("seed_set", {}), _SEED_SET), _SEED_SET, folders)
    model = make_paths_absolute(model, _MODEL, folders)
    engine = check_table("engine", raw.get("engine", {}), _ENGINE)
    return SiloFile(
        path=path,
        name=top["name"],
        client=top["client"],
        source=data["source"],
        data={key: value for key, value in data.items() if value is not None and key not in _OURS},
        clients=data["clients"],
        coded_columns=tuple(data.get("coded_columns") or ()),
        seed_set_path=seed_set["path"],
        model=find_checkpoints(model["name"], folders),
        weights=model["weights"],
        device=engine["device"],
        threads=engine["threads"],
        folders=folders,
    )


def _read_data(raw: Raw, folders: Sequence[Path]) -> dict[str, Any]:
    """Return the values of [data], with paths found."""
    if "source" not in raw:
        raise missing_key("data", "source", SOURCES.offer())
    source = check_value("data", "source", raw["source"], str)
    own = Keys(path=Key(str | Path, REQUIRED)) if source == DEALT else registry_keys(SOURCES, source, folders, "source")
    keys = Keys(source=Key(str, REQUIRED), clients=Key(Annotated[list[str], MinLen(1)] | None, None))
    if source in TABLE_SOURCES:
        keys["coded_columns"] = Key(list[str] | None, None)
    keys = keys.join(own.without([*_GIVEN, *keys]))
    return make_paths_absolute(check_table("data", raw, keys), keys, folders)
