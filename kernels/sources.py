"""Of which sources kernels are made: hashes, by which those of different sources are told apart."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable
from functools import cache
from importlib.resources import files

_PACKAGE = "strop.kernels"


@cache
def kernels_hash() -> str:
    """SHA-256 over all modules of ``strop.kernels``, by name."""
    names = (f.name for f in files(_PACKAGE).iterdir())
    return _hash(name.removesuffix(".py") for name in names if name.endswith(".py"))


@cache
def hash_with_imports(*modules: str) -> str:
    """SHA-256 over modules of ``strop.kernels`` and all that they import of it, by name.

    What a module imports is read in its source; what it loads by a name that is computed is not
    seen.
    """
    found: set[str] = set()
    pending = set(modules)
    while pending:
        found |= pending
        pending = {name for module in pending for name in _imported(module)} - found
    return _hash(found)


def _imported(module: str) -> Iterable[str]:
    """The modules of the package that one of them imports, ``from`` which or as which."""
    for node in ast.walk(ast.parse(_source(module))):
        if isinstance(node, ast.ImportFrom) and node.module == _PACKAGE:
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{_PACKAGE}."):
            yield str(node.module).removeprefix(f"{_PACKAGE}.")


def _hash(modules: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for module in sorted(modules):
        content = _source(module)
        digest.update(f"{module}.py {len(content)}\n".encode() + content)
    return digest.hexdigest()


def _source(module: str) -> bytes:
    return (files(_PACKAGE) / f"{module}.py").read_bytes()
