"""Every algorithm without a server: what all compute is what one process computes, bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.common.recipes import RECIPES
from tests.peers.test_agreed_rounds import NAMES, require_the_simulation

REST = sorted(set(RECIPES) - set(NAMES) - {"centralized"})


@pytest.mark.parametrize("name", REST)
def test_all_compute_what_one_process_computes_bit_for_bit(name: str, tmp_path: Path) -> None:
    require_the_simulation(name, tmp_path)
