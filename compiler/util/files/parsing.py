"""JSON and TOML from outside as plain values: of bounded depth, without doubled keys or NaN.

Python's own parsers recurse as deep as a text nests, take the last of two equal keys, and read
``NaN``, ``Infinity`` and ``1e999``, which JSON has not.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from typing import Any, NoReturn, TypeVar

import pydantic

from strop.compiler.util.errors import UsageError

MOST_DEPTH = 64
Validated = TypeVar("Validated", bound=pydantic.BaseModel)
# tomllib takes time that grows with the square of a dotted key's length.
_STRING = re.compile(r'"(?:\\.|[^"\\\n])*+"|\'[^\'\n]*+\'')
_LONG_KEY = re.compile(rf"(?<![\w-])(?:[\w-]++[ \t]*+\.[ \t]*+){{{MOST_DEPTH}}}")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_LARGEST = 2**64


class Strict(pydantic.BaseModel):
    """A part of a file from outside: ``"12"`` is no number there, and no number is infinite."""

    model_config = pydantic.ConfigDict(strict=True, allow_inf_nan=False)


def parse_json(text: str, where: str) -> Any:
    """Read JSON.

    Args:
        text: of any size; whoever read it has bounded it.
        where: what the text is, for messages: "the manifest out/manifest.json".

    Raises:
        UsageError: it is not JSON, nests too deep, gives a key twice, or holds a number that is
            not finite, an integer beyond 64 bits, or half of a surrogate pair.
    """
    try:
        values = json.loads(
            text,
            object_pairs_hook=_without_doubles,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_integer,
        )
        if _SURROGATE.search(text):
            json.dumps(values, ensure_ascii=False).encode()
    except RecursionError as error:
        raise UsageError(f"{where} nests deeper than {MOST_DEPTH} levels") from error
    except ValueError as error:
        raise UsageError(f"{where} is not JSON, or damaged: {error}") from error
    return _require_shallow(values, where)


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """Read TOML.

    Args:
        text: of any size; whoever read it has bounded it.
        where: what the text is, for messages.

    Raises:
        UsageError: it is not TOML, or nests too deep.
    """
    if _LONG_KEY.search(_STRING.sub("_", text)):
        raise UsageError(f"{where} nests deeper than {MOST_DEPTH} levels")
    try:
        values = tomllib.loads(text)
    except RecursionError as error:
        raise UsageError(f"{where} nests deeper than {MOST_DEPTH} levels") from error
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from error
    _require_shallow(values, where)
    return values


def validated_json(kind: type[Validated], text: str, where: str) -> Validated:
    """Read JSON as a pydantic model; tuples are read from lists, and dataclasses from objects.

    Raises:
        UsageError: as ``validated``.
    """
    try:
        return kind.model_validate_json(text)
    except pydantic.ValidationError as error:
        raise _damage(error, where) from error


def validated(kind: type[Validated], values: Any, where: str) -> Validated:
    """Check values against a pydantic model; use what this returns, not the values.

    Raises:
        UsageError: with the place of the first value that is missing or of another type.
    """
    try:
        return kind.model_validate(values)
    except pydantic.ValidationError as error:
        raise _damage(error, where) from error


def _damage(error: pydantic.ValidationError, where: str) -> UsageError:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    at = f" at '{place}'" if place else ""
    return UsageError(f"{where} is damaged{at}: {first['msg']}")


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} is there twice")
    return made


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is larger than any number here")
    return value


def _integer(text: str) -> int:
    value = int(text) if len(text) < 32 else _LARGEST
    if not -_LARGEST < value < _LARGEST:
        raise ValueError(f"the integer {text[:40]} has more than 64 bits")
    return value


def _require_shallow(values: Any, where: str) -> Any:
    level, depth = [values], 0
    while level:
        depth += 1
        if depth > MOST_DEPTH:
            raise UsageError(f"{where} nests deeper than {MOST_DEPTH} levels")
        level = [inner for value in level for inner in _inside(value)]
    return values


def _inside(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [v for v in value.values() if isinstance(v, (dict, list))]
    return [v for v in value if isinstance(v, (dict, list))] if isinstance(value, list) else []
