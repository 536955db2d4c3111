"""`coterie data`: list the data sets, fetch their files, and show the clients' data of an experiment."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coterie.cli.text_table import print_table
from coterie.core.errors import Mistake, mistakes_in
from coterie.core.printable import printable

if TYPE_CHECKING:
    from coterie.core.examples import Clients
    from coterie.data import Source

app = typer.Typer(
    help="List data sets, fetch their files, or show what they hold.", no_args_is_help=True, rich_markup_mode=None
)
Names = Annotated[list[str], typer.Argument(metavar="NAME", help="Data sets, such as mnist.")]
Shown = Annotated[str, typer.Argument(metavar="NAME", help="A data set, or the TOML file of an experiment.")]
Changes = Annotated[list[str] | None, typer.Argument(metavar="TABLE.KEY=VALUE", help="Keys to change.")]
MAX_ROWS = 100


@app.command(name="list")
def list_sources() -> None:
    """List the data sets by the names that data.source takes."""
    from coterie.data import SOURCES
    from coterie.data.official_files import data_home
    from coterie.data.sources import MADE_OF
    from coterie.experiment.read_keys import read_description, read_keys

    home = data_home()
    rows = []
    for name, place in SOURCES.places.items():
        keys = read_keys(place)
        here = all((home / folder).is_dir() for folder in MADE_OF.get(name, (name,)))
        files = "yours" if "path" in keys else "folder" if here else "-"
        own = ", ".join(key for key in keys if key not in ("rng_seed", "examples_per_client", "num_clients"))
        rows.append((name, files, own or "-", read_description(place)))
    print_table(("source", "files", "keys of its own", "description"), rows)
    print(
        f'files: "yours" are given by path; "folder" is one in {home}; "-": no files are needed, or they are not '
        "fetched yet"
    )


@app.command()
def fetch(names: Names) -> None:
    """Download and check the official files of data sets.

    Files that are there already are not downloaded again.
    """
    from coterie.data import load
    from coterie.data.sources import MADE_OF, find

    wanted = list(dict.fromkeys(own for name in names for own in MADE_OF.get(name, (name,))))
    for name in wanted:
        with mistakes_in("data"):
            parameters = inspect.signature(find(name)).parameters
        needed = [k for k, p in parameters.items() if p.default is p.empty]
        if needed:
            raise Mistake(f"{name}: needs data.{needed[0]}, so it has no files of its own to fetch")
    for name in wanted:
        with mistakes_in("data"):
            source = load(name)
        tested = 0 if source.test is None else len(source.test)
        print(f"{name}: ready, {len(source.train):,} training and {tested:,} test examples")


@app.command()
def show(
    name: Shown,
    overrides: Changes = None,
    out: Annotated[Path, typer.Option(help="The page to write, if there are clients.")] = Path("clients.html"),
) -> None:
    """Show a data set, or the clients' data of an experiment.

    It prints a table and writes a page; nothing is trained.
    """
    if name.endswith(".toml"):
        _show_experiment(Path(name), overrides or [], out)
    else:
        _show_source(name, overrides or [], out)


def _show_source(name: str, overrides: Sequence[str], out: Path) -> None:
    """Print what a data set holds; if it has clients of its own, print them too and write their page to `out`."""
    from coterie.data import deal, load
    from coterie.experiment.toml_file import apply_overrides

    options, _ = apply_overrides({}, [o.removeprefix("data.") for o in overrides])
    with mistakes_in("data"):
        source = load(name, folders=[Path.cwd()], **options)
    _print_source(source)
    if source.groups is not None:
        _show_clients(source, deal(source), "natural", out)


def _show_experiment(file: Path, overrides: Sequence[str], out: Path) -> None:
    """Load and deal an experiment's data, print the data set and the clients, and write their page to `out`."""
    from coterie.experiment.settings import load_settings

    settings = load_settings(file, overrides)
    from coterie.experiment.load_data import load_and_deal  # which imports PyTorch

    settings, ready = load_and_deal(settings)
    _print_source(ready.source)
    _show_clients(ready.source, ready.clients, settings.data["partition"], out)


def _print_source(source: Source) -> None:
    first = "train" if source.clients is None else "train (the first client, others are made on demand)"
    for part, examples in ((first, source.train), ("test", source.test)):
        if examples is not None:
            kind = str(examples.x.dtype).removeprefix("torch.")
            print(f"{part}: {len(examples):,} examples of shape {list(examples.x.shape[1:])}, {kind}")
    labels = f": {', '.join(source.label_names)}" if source.label_names else ""
    print(f"classes: {source.num_classes or 'none'}{labels}")
    own = len(set(source.groups)) if source.groups else len(source.clients or ())
    print(f"clients of its own: {f'{own:,}' if own else 'none'}")


def _show_clients(source: Source, clients: Clients, partition: str, out: Path) -> None:
    """Print a table of the clients and notes on their data, write the clients' page to `out`, and print its path."""
    from coterie.data.unusual_data import remarks_on_data
    from coterie.report.clients_page import format_counts, write_clients_page
    from coterie.track.clients_json import describe_clients

    descriptions, names = describe_clients(clients), source.label_names
    rows = [(c["id"], str(c["examples"]), format_counts(c["label_counts"], names)) for c in descriptions[:MAX_ROWS]]
    print_table(("client", "examples", "of each label"), rows)
    if len(descriptions) > MAX_ROWS:
        print(f"and {len(descriptions) - MAX_ROWS:,} more")
    tested = 0 if source.test is None else len(source.test)
    print(f"{len(descriptions):,} clients ({partition}), {tested:,} test examples")
    for sentence in remarks_on_data(source, clients):
        print(f"note: {printable(sentence)}", file=sys.stderr)
    print(write_clients_page(descriptions, f"{source.name} ({partition})", out, names))
