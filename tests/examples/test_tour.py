"""examples/tour.ipynb runs from top to bottom, in a kernel of its own; its cells are also tried without one."""

from __future__ import annotations

import ast
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

import coterie

FILE = Path(__file__).resolve().parents[2] / "examples" / "tour.ipynb"
NOTEBOOK = json.loads(FILE.read_text("utf-8"))
CODE = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def test_it_is_kept_without_outputs() -> None:
    cells = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)


def test_every_name_of_coterie_that_it_uses_is_public() -> None:
    tree = ast.parse("\n".join(line for code in CODE for line in code.splitlines() if not line.startswith("!")))
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "coterie"
    }
    assert {"plan", "federate", "read"} <= used <= set(coterie.__all__)


def test_its_one_federation_shows_itself() -> None:
    first = [code.replace("rounds=10", "rounds=2") for code in CODE if "curves" not in code][:4]
    names: dict[str, Any] = {}
    for code in first:
        lines = code.splitlines()
        exec("\n".join(line for line in lines if not line.startswith("plt.")), names)
    assert "of 2" in names["round"]._repr_html_()


@pytest.mark.long
def test_it_runs_from_top_to_bottom_with_its_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    specs = pytest.importorskip("jupyter_client.kernelspec")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(FILE, as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}})
    manager = client.create_kernel_manager()
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    manager._kernel_spec = specs.KernelSpec(argv=command, display_name="tests", language="python")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")  # for `!coterie`
    client.execute()
    shown = [set(output.get("data", {})) for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in kinds for kinds in shown) == 3
    assert sum("text/html" in kinds for kinds in shown) == 4  # the plan, a round, the run, and its frame
    assert not any(output.output_type == "error" for cell in notebook.cells for output in cell.get("outputs", []))
