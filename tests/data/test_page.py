"""docs/data.md: every table shown is valid, and names every source and partition."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from coterie.data import PARTITIONS, SOURCES, partitions
from coterie.experiment.settings import parse

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text("utf-8")
REST = {"rounds": 1, "model": {"name": "logistic"}, "algorithm": {"name": "fedavg", "lr": 0.1}}


@pytest.mark.parametrize("block", re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL))
def test_every_table_shown_is_valid(block, tmp_path):
    shown = tomllib.loads(block)
    if partitions.is_flower_name(shown["data"].get("partition")):
        pytest.importorskip("flwr_datasets")
    settings = parse(shown | REST, [tmp_path])
    assert settings.data["source"] == shown["data"]["source"]


def test_every_source_and_partition_is_named():
    assert [name for name in (*SOURCES, *PARTITIONS) if f"`{name}`" not in PAGE] == []
