"""Which client gets which of the models that a file names."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from coterie.core.errors import Mistake, few
from coterie.core.examples import Clients
from coterie.experiment.settings import Settings
from coterie.loop.given_models import Models


def deal_models(settings: Settings, models: Mapping[str, nn.Module], clients: Clients) -> Models:
    """Return the one model of all clients; or several, dealt in turn, or by client.

    Raises:
        Mistake: a client has no model, or a model no client.
    """
    by_client: dict[str, str] = settings.model.get("clients", {})
    unknown = [client for client in by_client if client not in clients]
    missing = [client for client in clients if client not in by_client] if by_client else []
    if unknown:
        raise Mistake(
            f"there is no such client; there are {few(list(clients), 10)}",
            key=f"clients.{unknown[0]}",
            value=by_client[unknown[0]],
            table="model",
        )
    if missing:
        raise Mistake(
            f"missing; name a model for each of the {len(clients)} clients", key=f"clients.{missing[0]}", table="model"
        )
    if len(models) == 1:
        return next(iter(models.values()))
    if by_client:
        return {client: models[name] for client, name in by_client.items()}
    return [models[name] for name in settings.model["names"]]
