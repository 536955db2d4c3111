"""docs/probes.md: its example is valid, and it explains every probe and measure."""

import re
import tomllib
from pathlib import Path

from coterie.probes import PROBES, Probe
from coterie.report.probe_charts import PROBE_CHARTS

PAGE = (Path(__file__).parents[2] / "docs" / "probes.md").read_text("utf-8")


def test_the_example_names_every_probe() -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert list(Probe(**tomllib.loads(block)["probe"]).names) == list(PROBES)


def test_every_measure_is_explained() -> None:
    drawn = [measure for chart in PROBE_CHARTS for measure in chart.lines]
    assert [measure for measure in [*drawn, "local_accuracy", "best_weights"] if f"`{measure}`" not in PAGE] == []
