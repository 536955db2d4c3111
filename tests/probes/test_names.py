"""The probes' names, which can be read without PyTorch."""

import subprocess
import sys
from pathlib import Path

from coterie.probes import PROBES
from coterie.probes.probe import NEEDS

READ = """
import sys, types
package = types.ModuleType("coterie")
package.__path__ = [sys.argv[1]]
sys.modules |= {"coterie": package, "torch": None}  # importing torch fails
from coterie.probes import PROBES, Probe
print(*PROBES)
try:
    Probe(["drfit"])
except ValueError as mistake:
    print(mistake)
"""


def test_names_are_checked_without_pytorch() -> None:
    package = Path(__file__).parents[2] / "coterie"
    done = subprocess.run([sys.executable, "-c", READ, str(package)], capture_output=True, text=True, check=False)
    names, mistake = done.stdout.splitlines()
    assert names.split() == list(PROBES)
    assert mistake.startswith('names = "drfit": did you mean "drift"?')


def test_every_probe_is_a_function_and_says_what_it_needs() -> None:
    assert list(PROBES) == list(NEEDS)
    assert all(callable(PROBES[name]) for name in PROBES)
