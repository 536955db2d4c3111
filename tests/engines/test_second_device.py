"""What is to run on a GPU runs there: see `on_second_device.py`, which a process of its own tests."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent


@pytest.mark.long
@pytest.mark.skipif(
    not hasattr(torch._C, "_acc") or torch.cuda.is_available(), reason="needs PyTorch's devices written in Python"
)
def test_federations_on_a_second_device() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-o", "addopts=", "-p", "no:cacheprovider", "--tb=short"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "COTERIE_SECOND_DEVICE": "1", "PYTHONPATH": str(HERE.parents[1])}
    done = subprocess.run(
        [*command, str(HERE / "on_second_device.py")],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env, cwd=HERE.parents[1], check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.fail(done.stdout[-20_000:], pytrace=False)
