"""The graph before and after the passes, as one tree of modules with marked lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal, TypeAlias

from torch.fx.node import Node

from strop.compiler.ir.constants import constant_nodes
from strop.compiler.ir.printer import arguments_text, is_size, op_name, source_line, type_text
from strop.compiler.ir.program import Program
from strop.compiler.util.visible import visible

Mark = Literal["kept", "changed", "removed", "added"]
# More lines than these between the modules of a module are folded away.
_MANY = 6


@dataclass(frozen=True)
class Line:
    """One value of a program, in plain data that outlives the program.

    Attributes:
        type: dtype and sizes, as the IR text prints them.
        operator: the operator's name.
        arguments: what the operator takes, in parentheses.
        form: the arguments without the names of values and weights.
        source: ``file.py:31``, if it is known.
        modules: path and class of every module around it, outermost first.
        made_by: the rule that made it, if it was not captured.
        constant: whether it is computed when the file is written, from weights alone.
    """

    name: str
    type: str
    operator: str
    arguments: str
    form: str
    source: str | None
    modules: tuple[tuple[str, str], ...]
    made_by: str | None
    constant: bool

    def pattern(self) -> tuple[str, str, str]:
        """What is equal in layers that repeat."""
        return self.type, self.operator, self.form


@dataclass(frozen=True)
class Row:
    """One value before, after, or both."""

    was: Line | None
    now: Line | None

    @property
    def line(self) -> Line:
        """The value as it is now, or as it was."""
        line = self.now or self.was
        assert line is not None
        return line

    @property
    def mark(self) -> Mark:
        """Whether the value was added, removed, changed or kept."""
        if self.was is None:
            return "added"
        if self.now is None:
            return "removed"
        same = (self.was.type, self.was.operator, self.was.arguments) == (
            self.now.type, self.now.operator, self.now.arguments,
        )  # fmt: skip
        return "kept" if same else "changed"


@dataclass
class Module:
    """One module of the model: its lines and the modules inside it, in program order.

    Attributes:
        path: its name in the model; empty for the model itself.
        kind: its class, with the module of Python that holds it.
    """

    path: str
    kind: str
    items: list[Item] = field(default_factory=list)

    @property
    def class_name(self) -> str:
        """The class without the module of Python that holds it."""
        return self.kind.rpartition(".")[2]

    @property
    def before(self) -> int:
        """Lines before the passes, here and in the modules inside."""
        return sum(1 for row in self.rows() if row.was)

    @property
    def after(self) -> int:
        """Lines after the passes, here and in the modules inside."""
        return sum(1 for row in self.rows() if row.now)

    @property
    def changed(self) -> bool:
        """Whether any line differs."""
        return any(row.mark != "kept" for row in self.rows())

    def rows(self) -> Iterator[Row]:
        """Every line, here and in the modules inside."""
        for item in self.items:
            if isinstance(item, Row):
                yield item
            else:
                yield from item.rows()

    def pattern(self) -> Any:
        """Equal for modules that differ in names alone."""
        return (self.kind, tuple(_pattern(item) for item in self.items))


@dataclass
class Repeat:
    """Modules in a row that are like the one before them."""

    like: Module
    modules: list[Module]

    def rows(self) -> Iterator[Row]:
        """Every line of every module."""
        for module in self.modules:
            yield from module.rows()


Item: TypeAlias = Row | Module | Repeat


def graph_view(program: Program) -> list[Line]:
    """The lines of a program, in order; sizes that are computed are left out, as in its text."""
    fixed = constant_nodes(program)
    return [_line(n, program, n in fixed) for n in program.calls() if not is_size(n)]


def _line(node: Node, program: Program, constant: bool) -> Line:
    source, symbols = source_line(node), program.symbols
    stack = node.meta.get("nn_module_stack") or {}
    return Line(
        name=node.name,
        type=visible(type_text(node.meta.get("val"), symbols)),
        operator=visible(op_name(node.target)),
        arguments=visible(arguments_text(node, symbols)),
        form=visible(arguments_text(node, symbols, names=False)),
        source=visible(source) if source else None,
        modules=tuple((str(path), str(kind)) for path, kind in stack.values()),
        made_by=node.meta.get("made_by"),
        constant=constant,
    )


def module_tree(before: Sequence[Line], after: Sequence[Line]) -> Module:
    """Both graphs as one tree of modules; those that repeat are folded away."""
    rows = list(_in_groups(_merged(before, after)))
    known = (line for row in rows for line in row.line.modules if not line[0])
    root = Module(*next(known, ("", "Model")))
    modules = {"": root}
    for row in rows:
        place = root
        for path, kind in row.line.modules:
            if path not in modules:
                modules[path] = Module(path, kind)
                place.items.append(modules[path])
            place = modules[path]
        place.items.append(row)
    _fold(root)
    return root


def _merged(before: Sequence[Line], after: Sequence[Line]) -> Iterator[Row]:
    """Pair the lines by name, in the order of both; linear, unlike a general diff."""
    places = {line.name: i for i, line in enumerate(before)}
    shared = places.keys() & {line.name for line in after}
    cursor = 0

    def removed_up_to(end: int) -> Iterator[Row]:
        nonlocal cursor
        for line in before[cursor:end]:
            if line.name not in shared:
                yield Row(line, None)
        cursor = max(cursor, end)

    for line in after:
        if line.name in shared:
            yield from removed_up_to(places[line.name])
            yield Row(before[places[line.name]], line)
        else:
            yield Row(None, line)
    yield from removed_up_to(len(before))


def _in_groups(rows: Iterator[Row]) -> Iterator[Row]:
    """What was removed before what was put in its place."""
    for _, group in groupby(rows, key=lambda row: row.mark in ("added", "removed")):
        yield from sorted(group, key=lambda row: row.mark == "added")


def _fold(module: Module) -> None:
    """Leave out modules that add no information, and fold repeats, from the inside out."""
    items: list[Item] = []
    for item in module.items:
        if not isinstance(item, Module):
            items.append(item)
            continue
        _fold(item)
        if _says_nothing(item):
            items += item.items
        else:
            items.append(item)
    if any(isinstance(item, Module) for item in items):
        items = list(_with_own_lines_folded(module, items))
    module.items = _with_repeats(items)


def _with_own_lines_folded(module: Module, items: Sequence[Item]) -> Iterator[Item]:
    for is_row, group in groupby(items, key=lambda item: isinstance(item, Row)):
        part = list(group)
        if is_row and len(part) > _MANY:
            yield Module(module.path, "lines of its own", part)
        else:
            yield from part


def _says_nothing(module: Module) -> bool:
    """Whether a module only wraps another, or is one of torch's own, or has one line only."""
    if any(not isinstance(item, Row) for item in module.items):
        return len(module.items) == 1
    return module.kind.startswith("torch.nn.") or len(module.items) == 1


def _with_repeats(items: list[Item]) -> list[Item]:
    folded: list[Item] = []
    for _, group in groupby(items, key=_pattern):
        first, *others = group
        folded.append(first)
        alike = [m for m in others if isinstance(m, Module)]
        if isinstance(first, Module) and len(alike) > 1:
            folded.append(Repeat(first, alike))
        else:
            folded += others
    return folded


def _pattern(item: Item) -> Any:
    if isinstance(item, Row):
        return (item.was and item.was.pattern(), item.now and item.now.pattern())
    if isinstance(item, Module):
        return item.pattern()
    return (item.like.pattern(), len(item.modules))
