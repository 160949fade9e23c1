"""Which source this machine built an artifact from: for `strop bench`, kept outside the artifact.

An artifact holds no path of the machine that built it, and nothing that comes with an artifact
may name code to run. So the sources of what was built here are kept with the user's own state.
"""

from __future__ import annotations

import json
from pathlib import Path

import platformdirs

from strop.compiler.artifact.folder import MANIFEST
from strop.compiler.util.errors import UsageError
from strop.compiler.util.files.parsing import Strict, validated
from strop.compiler.util.files.reading import file_hash, read_json
from strop.compiler.util.files.writing import write_whole
from strop.compiler.util.sources import in_folder

_MOST_BYTES = 1 << 16


class _Remembered(Strict):
    source: str


def remember_source(out: Path, source: str) -> None:
    """Keep the source of an artifact: ``FILE.py:make`` or ``hf:PATH``, paths made absolute.

    Raises:
        OSError: the state folder cannot be made.
        RuntimeError: there is no home to keep it in.
        UsageError: the file cannot be written.
    """
    entry = _entry(out)
    entry.parent.mkdir(parents=True, exist_ok=True)
    write_whole(entry, json.dumps({"source": in_folder(source, Path.cwd())}) + "\n")


def recall_source(out: Path) -> str | None:
    """The source an artifact was built from on this machine, if it was."""
    try:
        values = read_json(_entry(out), "the history", most_bytes=_MOST_BYTES)
        return validated(_Remembered, values, "the history").source
    except (RuntimeError, UsageError):
        return None  # nothing is remembered, or it is damaged, or there is no home to keep it in


def _entry(out: Path) -> Path:
    name = f"{file_hash(out / MANIFEST)}.json"
    return platformdirs.user_state_path("strop") / "sources" / name
