"""Measure how the package is built: names, files, and what runs in one round.

    python benchmarks/structure/measure.py [FOLDER]         FOLDER holds another checkout of coterie

The results are in docs/decisions/0011-the-redrawn-house.md.
"""

from __future__ import annotations

import ast
import collections
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parents[2]
ROUND = """
import sys, pathlib
import torch
import coterie
from coterie.{examples} import Examples
root = str(pathlib.Path(coterie.__file__).parent)
x = torch.randn(20, 4)
clients = {{str(k): Examples(x, (x[:, 0] > 0).long()) for k in range(3)}}
rounds = coterie.federate(coterie.fedavg(lr=0.1, batch_size=5), torch.nn.Linear(4, 2), clients, rounds=2)
next(rounds)  # what is made once is made in the first round
seen = set()
def profile(frame, event, argument):
    code = frame.f_code
    if event == "call" and code.co_filename.startswith(root) and not code.co_name.startswith("<"):
        seen.add((code.co_filename, code.co_qualname))
sys.setprofile(profile)
next(rounds)
sys.setprofile(None)
print(len(seen), len({{file for file, _ in seen}}))
"""


def trees(package: Path) -> Iterator[tuple[Path, ast.Module]]:
    """Yield each module of a package, parsed."""
    for path in sorted(package.rglob("*.py")):
        yield path, ast.parse(path.read_text())


def top_level_names(tree: ast.Module) -> Iterator[str]:
    """Yield the functions, classes and constants that a module defines."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))


def count_round(root: Path) -> str:
    """Return how many functions, in how many files, run in one FedAvg round after the first."""
    module = "core.examples" if (root / "coterie/core/examples.py").is_file() else "core.data"
    code = ROUND.format(examples=module)
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        env={"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    functions, files = found.stdout.split()
    return f"{functions} functions in {files} files"


def main(root: Path) -> None:
    """Print the measures of a checkout."""
    sys.path.insert(0, str(HERE))
    from tests.test_glossary import is_participle

    package = root / "coterie"
    files = {path: path.read_text().count("\n") for path in package.rglob("*.py")}
    functions = [
        (node.end_lineno - node.lineno + 1, node.name)  # type: ignore[operator]
        for _, tree in trees(package)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    homes: dict[str, set[Path]] = collections.defaultdict(set)
    for path, tree in trees(package):
        for name in top_level_names(tree):
            homes[name].add(path)
    several = {name: paths for name, paths in homes.items() if len(paths) > 1}
    full = {
        path.name
        for path, tree in trees(package)
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare)
        and any(isinstance(c, ast.Constant) and c.value == "full" for c in [node.left, *node.comparators])
    }
    kinds = [
        path.name
        for path, tree in trees(package)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == "isinstance"
        and {"Sum", "Coordinatewise", "Geometric", "Mixed", "Composite"} & set(ast.unparse(node.args[1]).split(" | "))
    ]
    lengths = [n for n, _ in functions]
    repeated = collections.Counter(path.name for path in files if path.name != "__init__.py")
    print(
        f"files                                    {len(files)}, median {statistics.median(files.values()):.0f} lines"
    )
    print(f"functions                                {len(functions)}, median {statistics.median(lengths):.0f} lines")
    print(f"functions of three lines or fewer        {sum(n <= 3 for n in lengths) / len(lengths):.0%}")
    print(f"functions named by a participle          {sum(is_participle(name) for _, name in functions)}")
    print(f"top-level names in several files         {len(several)}")
    print(f"  of them public                         {sum(not name.startswith('_') for name in several)}")
    print(f"file names that occur more than once     {sum(n > 1 for n in repeated.values())}")
    print(f'files that compare with "full"           {len(full)}')
    print(f"isinstance tests of aggregator kinds     {len(kinds)} in {len(set(kinds))} files")
    print(f"one FedAvg round runs                    {count_round(root)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else HERE)
