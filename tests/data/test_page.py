"""docs/data.md: every table shown is valid, and every source and partition has its row."""

from __future__ import annotations

import inspect
import re
import tomllib
from pathlib import Path

import pytest

from coterie.data import PARTITIONS, SOURCES, partitions
from coterie.experiment.settings import parse_settings

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text("utf-8")
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ")]
REST = {"rounds": 1, "model": {"name": "logistic"}, "algorithm": {"name": "fedavg", "lr": 0.1}}


@pytest.mark.parametrize("block", re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL))
def test_every_table_shown_is_valid(block, tmp_path):
    shown = tomllib.loads(block)
    if partitions.is_flower_name(shown["data"].get("partition")):
        pytest.importorskip("flwr_datasets")
    settings = parse_settings(shown | REST, [tmp_path])
    assert settings.data["source"] == shown["data"]["source"]


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_has_a_row(name):
    assert any(f"`{name}`" in row.split("|")[1] for row in ROWS)


@pytest.mark.parametrize("name", PARTITIONS)
def test_every_partition_has_a_row_with_its_keys_and_their_defaults(name):
    (row,) = [row for row in ROWS if row.split("|")[1].strip() == f"`{name}`"]
    parameters = inspect.signature(PARTITIONS[name]).parameters.values()
    keys = [f"`{p.name}`" + ("" if p.default is p.empty else f" [{p.default}]") for p in parameters]
    assert row.split("|")[3].strip() == (", ".join(keys) or "–")


def test_the_two_ways_to_name_a_partition_deal_the_same():
    (block,) = [b for b in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "dirichlet" in b]
    first, _, second = block.rpartition("clients = ")
    names = {}
    exec(first, names)
    by_name = names["clients"]
    exec(f"clients = {second}", names)
    assert {c: e.rows.tolist() for c, e in names["clients"].items()} == {c: e.rows.tolist() for c, e in by_name.items()}
