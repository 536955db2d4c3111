"""Read from the code what coterie may say when it refuses, ends or warns, for the page of troubleshooting.

A message is a sentence of the code, in which "…" stands for what differs from case to case. Nothing is imported.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

GAP = "…"
SPEAKERS = {"Mistake", "_print_end", "warn", "warning"}
"""Functions whose first argument is a sentence for the user; so is that of every exception of the package."""

REASONS = {"loop/refusals.py", "loop/check_update.py", "experiment/pretraining_run.py"}
"""Files whose functions return sentences that records, reports and the terminal show."""

MOST_VARIANTS = 8
"""Of one call: a sentence that is put together of many choices is listed with its first ones."""

_WORD = re.compile(r"[a-z]{2,}|\d+")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Message:
    """What the code says at one place.

    Attributes:
        place: the file below the package, as "data/deal.py".
        line: in that file.
        text: the sentence; empty where the code passes on the sentence of another place.
    """

    place: str
    line: int
    text: str


def read_messages(package: Path) -> list[Message]:
    """Return what the files of a package say, in the order of files and lines."""
    modules = [_Module(path, path.relative_to(package)) for path in sorted(package.rglob("*.py"))]
    defined = Counter(name for module in modules for name in module.functions)
    alone = {name: f for module in modules for name, f in module.functions.items() if defined[name] == 1}
    speakers = set(SPEAKERS)
    while more := {name for module in modules for name in module.exceptions(speakers)} - speakers:
        speakers |= more
    for module in modules:
        module.others, module.speakers = alone, speakers
    found = [message for module in modules for message in (*module.messages(), *module.reasons())]
    return sorted(found, key=lambda message: (message.place, message.line))


@dataclass
class _Module:
    """One file, and what its names stand for."""

    path: Path
    place: Path
    others: dict[str, Function] = field(default_factory=dict)
    speakers: set[str] = field(default_factory=set)
    calls: dict[str, list[tuple[ast.Call, Function | None]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tree = ast.parse(self.path.read_text("utf-8"))
        self.functions = {node.name: node for node in ast.walk(self.tree) if isinstance(node, Function)}
        self._note_calls(self.tree, None)

    def _note_calls(self, block: ast.AST, function: Function | None) -> None:
        """Note every call below a block, by the called name, with the function that it stands in."""
        for node in ast.iter_child_nodes(block):
            if isinstance(node, ast.Call):
                self.calls.setdefault(_last_name(node.func), []).append((node, function))
            self._note_calls(node, node if isinstance(node, Function) else function)

    def exceptions(self, known: set[str]) -> Iterator[str]:
        """Return the names of the exceptions that the file derives from Python's and from known ones."""
        for node in ast.walk(self.tree):
            bases = [_last_name(base) for base in node.bases] if isinstance(node, ast.ClassDef) else []
            if isinstance(node, ast.ClassDef) and any(b in known or b.endswith(("Error", "Exception")) for b in bases):
                yield node.name

    def messages(self) -> Iterator[Message]:
        """Return what the file says."""
        for name in sorted(self.speakers | {"require"}):
            for call, function in self.calls.get(name, []):
                for text in self._sentences(name, call, function):
                    yield Message(self.place.as_posix(), call.lineno, text)
        for node in ast.walk(self.tree):  # an exception that says its sentence itself
            if isinstance(node, ast.Return) and node.value is not None and self.functions.get("__str__"):
                inside = any(node is each for each in ast.walk(self.functions["__str__"]))
                for text in self._texts(node.value, None, 0) if inside else []:
                    if len(_WORD.findall(text)) > 2:
                        yield Message(self.place.as_posix(), node.lineno, _plain(text))

    def reasons(self) -> Iterator[Message]:
        """Return the sentences of a file whose functions return reasons, which others print."""
        if self.place.as_posix() not in REASONS:
            return
        docs = {id(n.value) for n in ast.walk(self.tree) if isinstance(n, ast.Expr)}
        parts = {id(part) for n in ast.walk(self.tree) if isinstance(n, ast.JoinedStr) for part in n.values}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Constant | ast.JoinedStr) and id(node) not in docs | parts:
                for text in self._texts(node, None, 0) if not isinstance(getattr(node, "value", ""), int) else []:
                    if len(_WORD.findall(text)) > 2:
                        yield Message(self.place.as_posix(), node.lineno, _plain(text))

    def _sentences(self, name: str, call: ast.Call, function: Function | None) -> list[str]:
        """Return the variants of what a call says."""
        given = {keyword.arg: keyword.value for keyword in call.keywords}
        if name == "require":
            key: ast.expr | None = call.args[0]
            if len(call.args) < 4:
                return []  # not the `require` of errors.py
            said, before, valued = call.args[3], "it must be ", True
        else:
            key, valued = given.get("key"), "value" in given
            said, before = (call.args[0], "") if call.args else (given.get("allowed"), "it must be ")
        if said is None:
            return []
        texts = [" ".join(text.split()) for text in self._texts(said, function, 0)][:MOST_VARIANTS]
        start = ""
        if key is not None:
            start = (self._texts(key, function, 0) or [GAP])[0] + (f" = {GAP}" if valued else "") + ": "
        words = 1 if before else 2
        return [start + before + _plain(t) if len(_WORD.findall(t)) >= words else "" for t in dict.fromkeys(texts)]

    def _texts(self, node: ast.expr, function: Function | None, depth: int) -> list[str]:
        """Return what an expression may be as text, with a gap for what is not known."""
        if depth > 6:
            return [GAP]
        match node:
            case ast.Constant(str(text)):
                return [text]
            case ast.JoinedStr(parts):
                return self._joined(parts, function, depth)
            case ast.FormattedValue(value):
                short = self._texts(value, function, depth + 1) if isinstance(value, ast.IfExp | ast.Name) else [GAP]
                return short
            case ast.BinOp(left, ast.Add(), right):
                return self._joined([left, right], function, depth)
            case ast.BoolOp(ast.Or(), values):
                return [text for value in values for text in self._texts(value, function, depth + 1)]
            case ast.IfExp(_, yes, no):
                return [*self._texts(yes, function, depth + 1), *self._texts(no, function, depth + 1)]
            case ast.Name(name):
                return self._of_name(name, function, depth) or [GAP]
            case ast.Call(ast.Name("next"), [ast.Call() as first, *_]):
                return self._texts(first, function, depth + 1)
            case ast.Call(func) if _last_name(func) in self.functions | self.others:
                inner = (self.others | self.functions)[_last_name(func)]
                given = [n.value for n in ast.walk(inner) if isinstance(n, ast.Return | ast.Yield)]
                return [text for value in given if value for text in self._texts(value, inner, depth + 1)] or [GAP]
            case _:
                return [GAP]

    def _joined(self, parts: Sequence[ast.expr], function: Function | None, depth: int) -> list[str]:
        """Return the variants of parts that follow one another."""
        texts = [""]
        for part in parts:
            texts = [a + b for a in texts for b in self._texts(part, function, depth + 1)][:MOST_VARIANTS]
        return texts

    def _of_name(self, name: str, function: Function | None, depth: int) -> list[str]:
        """Return what a name stands for: what it was given in its function, by its callers, or in the module."""
        texts: list[str] = []
        for node in ast.walk(function) if function else []:
            if isinstance(node, ast.AugAssign) and _last_name(node.target) == name:
                more = self._texts(node.value, function, depth + 1)
                texts = [*texts, *(a + b for a in texts for b in more)]
            elif value := _given_to(node, name):
                texts += self._texts(value, function, depth + 1)
        if texts or function is None:
            return texts or self._of_module(name, depth)
        places = [argument.arg for argument in function.args.args]
        if name not in [*places, *(argument.arg for argument in function.args.kwonlyargs)]:
            return self._of_module(name, depth)
        offset = 1 if places[:1] in (["self"], ["cls"]) else 0
        for call, caller in self.calls.get(function.name, []):
            named = [keyword.value for keyword in call.keywords if keyword.arg == name]
            at = places.index(name) - offset if name in places else len(call.args)
            for value in named or call.args[at : at + 1]:
                texts += self._texts(value, caller, depth + 1)
        return texts

    def _of_module(self, name: str, depth: int) -> list[str]:
        values = [value for node in self.tree.body if (value := _given_to(node, name))]
        return [text for value in values for text in self._texts(value, None, depth + 1)]


def _last_name(node: ast.AST) -> str:
    """Return the name that an expression ends with, such as "warning" of `log.warning`; "" without one."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _given_to(node: ast.AST, name: str) -> ast.expr | None:
    """Return what a statement or a walrus gives to a name, if it does; also as one of several names."""
    match node:
        case ast.Assign([ast.Tuple(names)], ast.Tuple(values)) if len(names) == len(values):
            return next((v for n, v in zip(names, values, strict=True) if _last_name(n) == name), None)
        case ast.Assign(targets, value) if any(isinstance(t, ast.Name) and t.id == name for t in targets):
            return value
        case ast.AnnAssign(ast.Name(target), _, value) | ast.NamedExpr(ast.Name(target), value) if target == name:
            return value
    return None


def _plain(text: str) -> str:
    """Return a sentence as a user reads it: without the marks around arguments, and with one gap for several."""
    text = re.sub(r"`([a-z_]+)`", r"\1", re.sub(r"%[sd]", GAP, text))
    return re.sub(rf"{GAP}( ?{GAP})+", GAP, text)
