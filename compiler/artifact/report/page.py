"""Render the page: one file, with style and script inside, that loads nothing from a network."""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from strop.compiler.artifact.report import units
from strop.compiler.artifact.report.graph import Line, module_tree
from strop.compiler.artifact.report.tables import Values, near_misses, pass_errors, timeline
from strop.compiler.artifact.report.training import trainings
from strop.compiler.artifact.report.worst import worst_of
from strop.compiler.frontend.programs import is_several
from strop.compiler.targets.target import onnx_file

FILES = resources.files("strop.compiler.artifact.report")


Graphs = Mapping[str, tuple[Sequence[Line], Sequence[Line]]]
"""By program, its graph as captured, and the one that was lowered."""


def render(manifest: Values, build: Values, graphs: Graphs) -> str:
    """The page of one artifact; equal but for times and memory when the builds are equal.

    Args:
        manifest: as it is written to ``manifest.json``.
        build: as it is written to ``build.json``.
        graphs: of every program.
    """
    several, first = is_several(graphs), next(iter(graphs))
    views = [_view(name, manifest, build, graphs[name], several) for name in graphs]
    page = (
        _environment()
        .get_template("report.html.j2")
        .render(
            manifest=manifest,
            build=build,
            several=several,
            programs=views,
            title=", ".join(graphs) if several else views[0]["root"].class_name,
            size_together=_size(manifest),
            chosen=f" --program {first}" if several else "",
            model_file=onnx_file(first),
            **shell(),
            stages=timeline(build["seconds"]),
        )
    )
    # A name may hold half of a surrogate pair, which no file can.
    return page.encode("utf-8", "backslashreplace").decode()


def _view(
    name: str,
    manifest: Values,
    build: Values,
    graphs: tuple[Sequence[Line], Sequence[Line]],
    several: bool,
) -> dict[str, Any]:
    """What the sections of one program show; ``at`` tells their ids from those of others."""
    if several:
        manifest = {**manifest, **manifest["programs"][name]}
        build = {**build, **build["programs"][name]}
    before, after = graphs
    root, steps = module_tree(before, after), manifest["passes"]
    stored = steps[-1]["bytes_after"] if several and steps else _size(manifest)
    return {
        "name": name,
        "at": f"-{name}" if several else "",
        "manifest": manifest,
        "build": build,
        "root": root,
        "names": {row.line.name for row in root.rows()},
        "running": {"before": _running(before), "after": _running(after)},
        **_of_passes(steps, build["pass_seconds"]),
        "reasons": _reasons(manifest),
        "worst": worst_of(manifest["checks"]),
        "size_after": stored,
    }


def _size(manifest: Values) -> int:
    """Bytes of all files of the target."""
    return sum(file["bytes"] for file in manifest["files"].values())


def _running(lines: Sequence[Line]) -> int:
    return sum(1 for line in lines if not line.constant)


def _of_passes(steps: Sequence[Values], seconds: Mapping[str, float]) -> dict[str, Any]:
    return {
        # Without passes, the size was not measured.
        "size_before": steps[0]["bytes_before"] if steps else None,
        "spans": timeline({step["name"]: seconds[step["name"]] for step in steps}),
        "errors": pass_errors(steps),
        "misses": near_misses(steps),
        "trainings": trainings(steps),
    }


def _reasons(manifest: Values) -> dict[str, str]:
    """The reason for the position of each pass, where the recipe gives one."""
    pairs = zip(manifest["passes"], manifest["recipe"].get("passes", []))
    return {step["name"]: entry["why"] for step, entry in pairs if entry.get("why")}


def shell() -> dict[str, str]:
    """Style, script, and a content security policy: these two, and nothing else from anywhere."""
    style, script = _read("report.css"), _read("report.js")
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return {"style": Markup(style), "script": Markup(script), "policy": policy}


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _read(name: str) -> str:
    return (FILES / name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FunctionLoader(_read),
        # Names come from untrusted models.
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    formats = {name: getattr(units, name) for name in _FORMATS}
    made.globals.update(formats, quote=shlex.quote)
    return made


_FORMATS = ("size", "duration", "milliseconds", "change", "size_change", "error", "times", "dims")
