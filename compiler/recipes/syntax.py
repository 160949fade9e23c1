"""A pass as one writes it on the command line: ``name{option=value,...}``."""

from __future__ import annotations

import re
from typing import Any

from strop.compiler.recipes.entry import PassEntry
from strop.compiler.recipes.schema import checked
from strop.compiler.util.errors import UsageError
from strop.compiler.util.files.parsing import parse_toml

_SPEC = re.compile(r"(?P<name>[^{}]+)(?:\{(?P<options>.*)\})?", re.DOTALL)
# Commas inside brackets, braces or quotes do not part options.
_ITEM = r"""(?:\[[^\]]*\]|\{[^}]*\}|"(?:\\.|[^"\\])*"|'[^']*'|[^,\[\]{}"'])+"""


def parse_pass(text: str) -> PassEntry:
    """Read ``name{option=value,...}``; a value is TOML, or a bare word.

    The entry's ``id`` and ``why`` may stand among the options.

    Raises:
        UsageError: not of that form.
    """
    found = _SPEC.fullmatch(text.strip())
    options = (found["options"] or "").strip() if found else ""
    if not found or not re.fullmatch(rf"(?:{_ITEM}(?:,{_ITEM})*)?", options):
        raise UsageError(f"'{text}' is not of the form name{{option=value,...}}")
    values: dict[str, Any] = {}
    for item in re.findall(_ITEM, options):
        key, equals, value = item.partition("=")
        if not equals:
            raise UsageError(f"'{item}' in '{text}' is not of the form option=value")
        values[key.strip()] = parse_value(value)
    name = found["name"].strip()
    if "name" in values:
        raise UsageError(f"pass '{name}' has no option 'name'")
    return checked(PassEntry, {"name": name, **values}, f"'{text}'")


def parse_value(text: str) -> Any:
    """A TOML value, or the text itself where it is none."""
    try:
        values = parse_toml(f"v = {text}", "the value")
    except UsageError:
        return text.strip()
    return values["v"] if set(values) == {"v"} else text.strip()
