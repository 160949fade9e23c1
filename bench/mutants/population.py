"""Which mutants there are, and which of them a seed draws."""

from __future__ import annotations

import ast
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code

from strop.bench.mutants.equivalent import Equivalent
from strop.bench.mutants.operators import Span, operators
from strop.bench.mutants.targets import ROOT


@dataclass(frozen=True)
class Place:
    """A place that one kind of operator can change.

    Attributes:
        variants: what could be done there: the operator's name and its occurrence in the file.
        identity: the same as long as the line's text is; a change elsewhere leaves it.
    """

    file: str
    line: int
    variants: tuple[tuple[str, int], ...]
    identity: str


@dataclass(frozen=True)
class Mutant:
    """One file with one small error.

    Attributes:
        line: where the error is, from 1.
        before, after: the lines that differ, without indentation, joined by a space.
        source: the whole file with the error.
    """

    file: str
    line: int
    operator: str
    before: str
    after: str
    source: str


def places(file: str, root: Path = ROOT) -> list[Place]:
    """Every place of a file, in no particular order."""
    source = (root / file).read_text()
    lines = source.splitlines()
    found: dict[tuple[str, Span], list[tuple[str, int]]] = {}
    nodes = list(ast_nodes(get_ast(source)))
    for name, operator in operators().items():
        spans = (span for node in nodes for span in operator.mutation_positions(node))
        for occurrence, span in enumerate(spans):
            kind = name.split("_")[0]
            found.setdefault((kind, span), []).append((name, occurrence))
    seen: Counter[str] = Counter()
    made = []
    for (kind, span), variants in found.items():
        line, column = span[0]
        text = lines[line - 1].strip()
        key = f"{file}|{text}|{column - len(lines[line - 1]) + len(text)}|{kind}"
        seen[key] += 1
        made.append(Place(file, line, tuple(variants), f"{key}|{seen[key]}"))
    return made


def draw(
    files: Iterable[str], seed: int, equivalent: Iterable[Equivalent] = (), root: Path = ROOT
) -> Iterator[Mutant]:
    """Mutants of these files in the order that a seed gives, each place once.

    The order depends on a hash of the seed and the line, so that it stays nearly the same while
    other lines change. Mutants that are known to be equivalent are left out.
    """
    known = {(e.file, e.before, e.after) for e in equivalent}
    every = [place for file in files for place in places(file, root)]
    for place in sorted(every, key=lambda p: _rank(seed, p.identity)):
        name, occurrence = min(place.variants, key=lambda v: _rank(seed, f"{place.identity}{v}"))
        mutant = _mutate(place, name, occurrence, root)
        if mutant and (mutant.file, mutant.before, mutant.after) not in known:
            yield mutant


def _rank(seed: int, text: str) -> bytes:
    return hashlib.sha256(f"{seed}|{text}".encode()).digest()


def _mutate(place: Place, name: str, occurrence: int, root: Path) -> Mutant | None:
    """The mutant, or None where nothing that runs is changed."""
    source = (root / place.file).read_text()
    mutated = mutate_code(source, operators()[name], occurrence)
    if mutated is None or not _differ(source, mutated):
        return None
    before, after = _changed(source, mutated)
    return Mutant(place.file, place.line, name, before, after, mutated)


def _differ(source: str, mutated: str) -> bool:
    """Whether the mutant parses, and differs in more than what is there for programmers only."""
    try:
        return _executed(mutated) != _executed(source)
    except SyntaxError:
        return False


def _executed(source: str) -> str:
    return ast.dump(_WithoutGuards().visit(ast.parse(source)))


class _WithoutGuards(ast.NodeTransformer):
    """Drops annotations, which nothing evaluates, and ``frozen`` of a dataclass."""

    def visit_keyword(self, node: ast.keyword) -> ast.AST | None:
        return None if node.arg == "frozen" else self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)


def _changed(source: str, mutated: str) -> tuple[str, str]:
    """The differing lines of both, joined."""
    old, new = source.splitlines(), mutated.splitlines()
    start = next(i for i, (a, b) in enumerate(zip(old, new)) if a != b)
    tail = 0
    while old[-1 - tail] == new[-1 - tail] and tail < min(len(old), len(new)) - start - 1:
        tail += 1
    sides = (lines[start : len(lines) - tail] for lines in (old, new))
    before, after = (" ".join(line.strip() for line in side).strip() for side in sides)
    return before, after
