"""Which statement and which function a line of a source file belongs to."""

from __future__ import annotations

import ast
from collections.abc import Iterator

Span = tuple[int, int]


def statement_span(tree: ast.Module, line: int) -> Span:
    """First and last line of the innermost statement around a line.

    Of a statement with a body (``if``, ``def``) only the header counts, decorators included.
    """
    around = [(line, line)]
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt):
            first, last = _header(node)
            if first <= line <= last:
                around.append((first, last))
    return around[-1]


def _header(node: ast.stmt) -> Span:
    decorators = getattr(node, "decorator_list", [])
    first = min([node.lineno, *(d.lineno for d in decorators)])
    body = getattr(node, "body", None)
    last = max(node.lineno, body[0].lineno - 1) if body else node.end_lineno or node.lineno
    return first, last


def functions(tree: ast.Module) -> dict[str, Span]:
    """First and last line of every function and class by its dotted name."""
    return dict(_functions(tree, ""))


def _functions(node: ast.AST, outer: str) -> Iterator[tuple[str, Span]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            name = f"{outer}{child.name}"
            yield name, (_header(child)[0], child.end_lineno or child.lineno)
            yield from _functions(child, f"{name}.")
        else:
            yield from _functions(child, outer)


def function_at(tree: ast.Module, line: int) -> str | None:
    """The dotted name of the innermost function or class around a line."""
    around = [name for name, (first, last) in functions(tree).items() if first <= line <= last]
    return around[-1] if around else None
