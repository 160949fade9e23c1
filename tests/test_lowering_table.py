"""Every function of the rules and of the formulas is entered in its table, as torch calls it."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any


def test_rules_and_formulas_are_entered_as_torch_calls_them() -> None:
    # Imported here: the tester of mutants takes a line that runs on import for this test's.
    import strop.compiler.ir.dialect  # noqa: F401
    from strop.compiler.lower.onnx import formulas, rules
    from strop.compiler.lower.onnx.table import TABLE

    rows = {emit for variants in TABLE.values() for emit in variants.values()}
    assert [f.__qualname__ for f in public(rules) if f not in rows] == []
    entered = set(formulas.FORMULAS.values())
    left_out = {f.__name__ for f in public(formulas) if f not in entered}
    assert left_out - used(Path(formulas.__file__).parent) == set()
    assert list(other_defaults(formulas.FORMULAS)) == []


def public(package: ModuleType) -> Iterator[Any]:
    """The functions of a package's modules, each where it is defined."""
    for module in pkgutil.iter_modules(package.__path__):
        found = importlib.import_module(f"{package.__name__}.{module.name}")
        for name, function in inspect.getmembers(found, inspect.isfunction):
            if function.__module__ == found.__name__ and not name.startswith("_"):
                yield function


def used(folder: Path) -> set[str]:
    """Names that the modules of a folder read, but for functions that call themselves."""
    parts = [part for path in folder.glob("*.py") for part in ast.parse(path.read_text()).body]
    return {
        node.id
        for part in parts
        for node in ast.walk(part)
        if isinstance(node, ast.Name) and node.id != getattr(part, "name", "")
    }


def other_defaults(formulas: dict[Any, Any]) -> Iterator[str]:
    """Parameters whose default is another than the operator's."""
    for target, function in formulas.items():
        parameters = inspect.signature(function).parameters.values()
        for parameter, argument in zip(parameters, target._schema.arguments, strict=True):
            wanted = argument.default_value if argument.has_default_value() else parameter.default
            if plain(parameter.default) != plain(wanted):
                yield f"{target}: {parameter}"


def plain(default: Any) -> Any:
    """A default so that True is not 1, and a number for every axis is one for all."""
    if isinstance(default, (list, tuple)):
        return set(default)
    return type(default), default
