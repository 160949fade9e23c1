"""Documented functions of Python's standard library: text and code that is on every machine."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from strop.bench.models.text import STDLIB, Part, first_sentence, part_of, trees


@dataclass(frozen=True)
class Function:
    """One function of the standard library.

    Attributes:
        name: of the function.
        parameters: of its positional arguments: the name, and the default as source, "" for none.
        docstring: its first paragraph, in one line.
        summary: the first sentence of the docstring, "" where it does not begin with one.
        body: the source without the docstring and without comments.
    """

    name: str
    parameters: tuple[tuple[str, str], ...]
    docstring: str
    summary: str
    body: str


@cache
def functions(part: Part) -> tuple[Function, ...]:
    """Every function that has a docstring, in the order of the files; each source once.

    All functions of a module are in the same part. What is tested on is code of files that nothing
    was trained on, and copies of functions that train are left out of it.
    """
    found = {
        one.body: one
        for path, tree in trees(STDLIB)
        if part_of(path.relative_to(STDLIB).as_posix()) == part
        for one in _of(tree)
    }
    if part != "train":
        known = {one.body for one in functions("train")}
        found = {body: one for body, one in found.items() if body not in known}
    return tuple(found.values())


def _of(tree: ast.Module) -> Iterator[Function]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            paragraph = " ".join((ast.get_docstring(node) or "").partition("\n\n")[0].split())
            if paragraph:
                summary = first_sentence(paragraph)
                yield Function(node.name, _parameters(node.args), paragraph, summary, _body(node))


def _parameters(arguments: ast.arguments) -> tuple[tuple[str, str], ...]:
    names = [one.arg for one in (*arguments.posonlyargs, *arguments.args)]
    defaults = [ast.unparse(one) for one in arguments.defaults]
    return tuple(zip(names, [""] * (len(names) - len(defaults)) + defaults))


def _body(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """The source from the first line on; the docstring, which stands first, is left out."""
    rest = node.body[1:] or [ast.Pass()]
    bare = type(node)(**{**dict(ast.iter_fields(node)), "body": rest, "decorator_list": []})
    return ast.unparse(ast.fix_missing_locations(bare))
