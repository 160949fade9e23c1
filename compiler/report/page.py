"""Render the page: one file, with its style and script inside, that asks nothing of any network."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from strop.compiler.report import units
from strop.compiler.report.graph import Line, module_tree
from strop.compiler.report.tables import Values, near_misses, pass_errors, timeline

REPORT = "report.html"
FILES = resources.files("strop.compiler") / "report"


def render(manifest: Values, build: Values, before: Sequence[Line], after: Sequence[Line]) -> str:
    """The page of one artifact; equal but for times and memory when the builds are equal.

    Args:
        manifest: as it is written to ``manifest.json``.
        build: as it is written to ``build.json``.
        before: the graph as captured.
        after: the graph that was lowered.
    """
    root = module_tree(before, after)
    cosines = [c["cosine"] for c in manifest["checks"] if c["cosine"] is not None]
    style, script = Markup(_read("report.css")), Markup(_read("report.js"))
    page = (
        _environment()
        .get_template("report.html.j2")
        .render(
            manifest=manifest,
            build=build,
            root=root,
            running={"before": _running(before), "after": _running(after)},
            names={row.line.name for row in root.rows()},
            size_before=_original_size(manifest),
            size_after=sum(f["bytes"] for f in manifest["files"].values()),
            spans=timeline(
                {s["name"]: build["pass_seconds"][s["name"]] for s in manifest["passes"]}
            ),
            stages=timeline(build["seconds"]),
            errors=pass_errors(manifest["passes"]),
            misses=near_misses(manifest["passes"]),
            worst=max(manifest["checks"], key=lambda c: c["max_error"]),
            cosine=min(cosines, default=None),
            style=style,
            script=script,
            policy=_policy(style, script),
        )
    )
    # A name may hold half of a surrogate pair, which no file can.
    return page.encode("utf-8", "backslashreplace").decode()


def _original_size(manifest: Values) -> int | None:
    """Bytes of the weights as captured; None where no pass ran."""
    steps = manifest["passes"]
    return int(steps[0]["bytes_before"]) if steps else None


def _running(lines: Sequence[Line]) -> int:
    return sum(1 for line in lines if not line.constant)


def _policy(style: str, script: str) -> str:
    """A content security policy: this style and this script, and nothing else from anywhere."""
    return (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _read(name: str) -> str:
    return (FILES / name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FunctionLoader(_read),
        # Names come from strangers' models.
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    functions: dict[str, Any] = {name: getattr(units, name) for name in _FORMATS}
    made.filters.update(functions)
    made.globals.update(functions)
    return made


_FORMATS = ("size", "duration", "milliseconds", "change", "size_change", "error", "times")
