"""The prompt of a command: text, a file, or token ids."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from strop.compiler.util.errors import UsageError

PromptText = Annotated[
    str | None, typer.Option("--prompt", help="Text, or the name of a file that holds it.")
]
PromptIds = Annotated[
    str | None, typer.Option("--ids", help="Token ids, 1,2,3, in place of text; ids are printed.")
]


def given_prompt(prompt: str | None, ids: str | None) -> str | list[int]:
    """The prompt that the options give.

    Raises:
        UsageError: they give none, or two; or it cannot be read.
    """
    if (prompt is None) == (ids is None):
        raise UsageError("say what to go on with: either --prompt TEXT|FILE or --ids 1,2,3")
    return _text(prompt) if prompt is not None else _ids(ids or "")


def _text(prompt: str) -> str:
    """The prompt itself, or what the file of that name holds."""
    from strop.compiler.util.files.reading import read_text

    return read_text(Path(prompt), "the prompt") if _is_file(prompt) else prompt


def _is_file(prompt: str) -> bool:
    try:
        return Path(prompt).is_file()
    except (OSError, ValueError):  # a text may be too long for a name, or hold a zero byte
        return False


def _ids(given: str) -> list[int]:
    try:
        return [int(part) for part in given.split(",")] if given.strip() else []
    except ValueError as error:
        raise UsageError(f"--ids {given}: write token ids as 1,2,3") from error
