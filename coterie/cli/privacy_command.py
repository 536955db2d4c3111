"""`coterie probe privacy`: attack a finished run as others could."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from coterie.cli.option_names import Trust, mistakes_in_options
from coterie.core.errors import Mistake


def privacy(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A run folder.")],
    attack: Annotated[
        str, typer.Option(help="inversion of a client's update, membership from the model, or both.")
    ] = "both",
    compare: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="Attack this run's model too, such as one with [privacy]; repeatable."),
    ] = None,
    at: Annotated[str, typer.Option(help="Attack the model at the run's start or end.")] = "start",
    work: Annotated[str, typer.Option(help="The client takes one local step, or a whole round.")] = "step",
    client: Annotated[str | None, typer.Option(help="Whose update is attacked.")] = None,
    batches: Annotated[str, typer.Option(help="How many examples it holds, such as 1,4.")] = "1,4",
    clip: Annotated[float | None, typer.Option(help="The clipping norm.  [default: the median update's]")] = None,
    noise: Annotated[str, typer.Option(help="Noise multipliers, such as 0.01,0.1.")] = "0.01,0.1",
    top_k: Annotated[float, typer.Option(help="The share of entries that top-k sends.")] = 0.01,
    clients: Annotated[int, typer.Option(help="How many clients' updates are summed, at most.")] = 5,
    match: Annotated[str, typer.Option(help="The search: cosine (Geiping et al.) or squared (Zhu et al.).")] = "cosine",
    iterations: Annotated[int, typer.Option(help="Of the search.")] = 120,
    restarts: Annotated[int, typer.Option(help="Of the search.")] = 1,
    examples: Annotated[int, typer.Option(help="How many training and test examples are told apart.")] = 1000,
    shadows: Annotated[int, typer.Option(help="Shadow models, each trained like the run; an even number.")] = 0,
    pictures: Annotated[bool, typer.Option(help="Keep true and reconstructed examples.")] = True,
    trust: Trust = False,
) -> None:
    """Attack a run as others could, without and with protections.

    It reconstructs a client's examples from its update, and tells training examples from others by the model. It prints
    what was found, writes privacy.json into the folder, and shows both in report.html.
    """
    from coterie.cli.probe_commands import show_progress
    from coterie.experiment.infer_members import MembershipOptions
    from coterie.experiment.invert_updates import InversionOptions
    from coterie.experiment.privacy_probe import PrivacyProbe, probe_privacy
    from coterie.probes.inversion import Inversion
    from coterie.report.privacy_sentences import privacy_sentences

    with mistakes_in_options():
        probe = PrivacyProbe(
            attack,  # type: ignore[arg-type]
            InversionOptions(
                at=at,  # type: ignore[arg-type]
                work=work,  # type: ignore[arg-type]
                client=client,
                batches=_numbers("batches", batches, int),
                clip=clip,
                noise=_numbers("noise", noise, float),
                top_k=top_k,
                clients=clients,
                how=Inversion(match, iterations, restarts=restarts),  # type: ignore[arg-type]
                pictures=pictures,
            ),
            MembershipOptions(examples, shadows),
        )
        found = probe_privacy(folder, compare or [], probe, show_progress, trust)
    for sentence in privacy_sentences(found):
        print(sentence)
    print(folder / "report.html")


def _numbers(key: str, text: str, kind: Callable[[str], Any]) -> list[Any]:
    """Return the numbers in an option's text, which commas separate."""
    try:
        return [kind(word) for word in text.split(",")]
    except ValueError as error:
        whole = "whole numbers" if kind is int else "numbers"
        raise Mistake(key=key, value=text, allowed=f"{whole} with commas between them") from error
