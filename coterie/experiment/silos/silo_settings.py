"""The experiment's settings on their way from the coordinator to a silo, and what each end makes of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from coterie.core.errors import Mistake
from coterie.experiment.choose_seed_set import refuse_dealt_seed_set
from coterie.experiment.settings import Settings, model_names, parse_settings
from coterie.experiment.silos.merge_facts import Agreement, Merged
from coterie.experiment.silos.silo_file import SiloFile
from coterie.experiment.tables import PUBLISHED, Deploy, model_function_keys
from coterie.loop.faults import Faults
from coterie.models.libraries import library_prefix
from coterie.objectives.kinds import KINDS

_SERVERS = ("cohort", "aggregation", "attack", "probe", "faults", "deploy")
"""Tables that say what the server does, or what only a simulation has; a silo needs none of them."""
_ENGINES = ("name", "dtype", "compile", "chunk")
"""The keys of [engine] that all silos must have alike for the same weights; the others are each machine's own."""
SENT_WEIGHTS = "sent by the coordinator"
"""What stands for the file of weights to start from, in the settings that silos are told."""
_EVALUATE = ("every", "clients", "metrics")
"""The keys of [evaluate] that silos share; the others say when the coordinator stops."""
_DATA = ("standardize", "augment")
"""The keys of [data] that silos share; the others say where the rows of a simulation come from, and who gets them."""


def refuse_simulation(settings: Settings) -> None:
    """Refuse settings that mean nothing, or something else, between real silos.

    The keys of [data] that deal rows to clients, such as `partition`, have no effect there: each silo has rows of its
    own. A rehearsal applies them when it hands out the rows.

    Raises:
        Mistake: there is one; the sentence says what to do.
    """
    if settings.attack["name"] != "none":
        raise Mistake(
            "an attack is simulated, and no silo would carry it out; leave [attack] out between silos",
            key="name",
            value=settings.attack["name"],
            table="attack",
        )
    if settings.faults != Faults():
        raise Mistake("[faults]: faults are simulated, and silos have their own; leave the table out between silos")
    if settings.probe:
        raise Mistake("[probe]: a probe reads the updates of simulated clients; leave the table out between silos")
    if settings.engine.workers not in ("auto", 1):
        raise Mistake(
            "one process coordinates the silos; leave it out",
            key="workers",
            value=settings.engine.workers,
            table="engine",
        )
    refuse_dealt_seed_set(
        settings, "rows of each silo would go to all others; name a set that every silo holds, by seed_set.source"
    )
    named = len(settings.model.get("clients") or ())
    if settings.cohort.size is not None:
        require_possible(settings.deploy, settings.cohort.size)
    elif named:
        require_possible(settings.deploy, settings.cohort.count(named))


def require_possible(deploy: Deploy, size: int) -> None:
    """Refuse a [deploy] that no round of `size` clients can satisfy.

    Raises:
        Mistake: a round can never have as many replies as are wanted.
    """
    if deploy.min_clients is not None and deploy.min_clients > size:
        raise Mistake(
            f"a round asks {size} clients; give {size} or less",
            key="min_clients",
            value=deploy.min_clients,
            table="deploy",
        )


def complete_data(settings: Settings, agreement: Agreement) -> Settings:
    """Return the settings with the standardisation that the silos' data suggest, where the file names none."""
    measured = any(column.categories is None for column in agreement.columns)
    how = settings.data["standardize"] or ("federated" if measured else "none")
    return replace(settings, data=settings.data | {"standardize": how})


def name_models(settings: Settings, merged: Merged) -> Settings:
    """Return the settings with the models that silos have of their own, by client.

    Raises:
        Mistake: a silo's model is code, or a library's, and the experiment file does not name it.
    """
    known = model_names(settings)
    own = {c.client: c for c in merged.clients if c.model not in (None, *known[:1])}
    if not own:
        return settings
    for c in own.values():
        name = str(c.model)
        if name not in known and (":" in name or library_prefix(name) is not None):
            raise Mistake(
                f"silo {c.silo}: its own model is {name}, which is the name of code; no silo may choose what the "
                "coordinator imports, so name it in [model] clients too"
            )
    options = _options_given(settings)
    if options:
        key, value = next(iter(options.items()))
        silo = next(iter(own.values())).silo
        raise Mistake(
            f"silo {silo} has a model of its own, and a file with several models gives them no options; leave it out",
            key=key,
            value=value,
            table="model",
        )
    named = models_by_client(settings, [c.client for c in merged.clients])
    return replace(settings, model={"clients": {c.client: c.model or named[c.client] for c in merged.clients}})


def _options_given(settings: Settings) -> dict[str, Any]:
    """Return the options of the one model that differ from those that it has anyway."""
    if "name" not in settings.model:
        return {}
    defaults = {key: own.default for key, own in model_function_keys(settings.model["name"], settings.folders).items()}
    given = {key: value for key, value in settings.model.items() if value is not None and key != "name"}
    return {key: value for key, value in given.items() if key not in defaults or _plain(defaults[key]) != _plain(value)}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def models_by_client(settings: Settings, clients: list[str]) -> dict[str, str]:
    """Return client -> the name of its model, as the file deals them to these clients in their order.

    Raises:
        Mistake: the file names models by client, and leaves one out.
    """
    given = settings.model.get("clients", {})
    names = [settings.model["name"]] if "name" in settings.model else model_names(settings)
    missing = [client for client in clients if given and client not in given]
    if missing:
        raise Mistake("missing; name a model for each client of the silos", key=f"clients.{missing[0]}", table="model")
    if given:
        return {client: given[client] for client in clients}
    names = settings.model.get("names") or names
    return {client: names[k % len(names)] for k, client in enumerate(clients)}


def task_in(tables: Any) -> str | None:
    """Return the kind of task that the coordinator's settings name; None where they name none, or are something else.

    It says how a silo reads its labels, before anything else in the settings is used.
    """
    table = tables.get("task") if isinstance(tables, Mapping) else None
    kind = table.get("kind") if isinstance(table, Mapping) else None
    return kind if isinstance(kind, str) and kind in KINDS else None


def settings_to_send(settings: Settings) -> dict[str, Any]:
    """Return what silos are told of the settings, as plain values: everything but places and machines."""
    tables = {name: table for name, table in settings.tables().items() if name != "deploy"}
    tables["data"] = {key: value for key, value in tables["data"].items() if key in _DATA}
    if (
        settings.privacy.unit == "none" and not settings.privacy.secure_sum
    ):  # silos know an experiment by what they are sent
        del tables["privacy"]
    if "weights" in tables.get("pretrain", {}):
        tables["pretrain"]["weights"] = _without_places(tables["pretrain"]["weights"])
    tables["model"] = {key: value for key, value in tables["model"].items() if key != "adapter_weights"}  # sent too
    tables["engine"] = {key: value for key, value in tables["engine"].items() if key in _ENGINES}
    return tables


def leave_out_sent_weights(tables: Mapping[str, Any]) -> dict[str, Any]:
    """Return what silos are told of the settings, for a trial of the models before the coordinator has sent weights."""
    pretrain = tables.get("pretrain", {})
    weights = pretrain.get("weights")
    if isinstance(weights, Mapping):
        kept = {name: value for name, value in weights.items() if value != SENT_WEIGHTS}
        return {**tables, "pretrain": {**pretrain, "weights": kept} if kept else _alone(pretrain)}
    return {**tables, "pretrain": _alone(pretrain)} if weights == SENT_WEIGHTS else dict(tables)


def _alone(pretrain: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of [pretrain] that mean something without weights."""
    return {key: value for key, value in pretrain.items() if key in ("freeze", "lr_scale")}


def settings_at_silo(tables: Mapping[str, Any], file: SiloFile, models: Mapping[str, str] | None = None) -> Settings:
    """Return the settings of a silo's own plan.

    Args:
        tables: what the coordinator has sent; the silo's policy has allowed it.
        file: the silo's own configuration.
        models: client -> the name of its model, for the clients that the silo hosts, where there are several models.

    Raises:
        Mistake: a key or value cannot be used here, such as the name of code that is not installed.
    """
    raw = {name: table for name, table in tables.items() if name not in _SERVERS}
    shared = {key: value for key, value in raw.get("data", {}).items() if key in _DATA}
    raw["data"] = {"source": "digits", **shared}  # any source; the silo has loaded its own
    privacy = raw.get("privacy", {})
    if privacy.get("unit") == "client":
        if privacy.get("where") != "clients" and not privacy.get("secure_sum"):  # the coordinator bounds and adds noise
            del raw["privacy"]
        elif "noise_multiplier" in privacy:  # it was chosen for epsilon and for all clients, whom a silo does not know
            raw["privacy"] = {key: value for key, value in privacy.items() if key != "epsilon"}
    raw["evaluate"] = {key: value for key, value in raw.get("evaluate", {}).items() if key in _EVALUATE}
    engine = {key: value for key, value in raw.get("engine", {}).items() if key in _ENGINES}
    raw["engine"] = {**engine, "device": file.device, "threads": file.threads, "workers": 1}
    if file.seed_set_path is not None:
        raw["seed_set"] = {**raw.get("seed_set", {}), "path": file.seed_set_path}
    if models:
        raw["model"] = {"clients": dict(models)}
        raw["pretrain"] = _of_models(raw.get("pretrain", {}), set(models.values()))
    if file.model is not None:
        raw["pretrain"] = _alone(raw.get("pretrain", {})) | ({} if file.weights is None else {"weights": file.weights})
    settings = parse_settings(raw, file.folders)
    return replace(settings, data=settings.data | {"source": file.source})


def _of_models(pretrain: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    """Return a [pretrain] table with the weights of these models alone."""
    weights = pretrain.get("weights")
    if not isinstance(weights, Mapping):
        return dict(pretrain)
    kept = {name: value for name, value in weights.items() if name in names}
    others = {key: value for key, value in pretrain.items() if key != "weights"}
    return others | ({"weights": kept} if kept else {})


def _without_places(weights: Any) -> Any:
    """Return the value of `pretrain.weights` without the places of files, whose content is sent itself."""
    if isinstance(weights, Mapping):
        return {name: _without_places(value) for name, value in weights.items()}
    is_known = weights in (None, "none") or weights.partition(":")[0] == PUBLISHED
    return weights if is_known else SENT_WEIGHTS
