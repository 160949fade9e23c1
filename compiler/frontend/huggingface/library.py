"""Access to transformers: imported late and offline; every failure becomes a clear message."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from strop.compiler.util.errors import UsageError


def library() -> Any:
    """The module ``transformers``, quiet and offline.

    Raises:
        UsageError: it is not installed.
    """
    # Both must be set before the import; nothing is looked up beyond the folder, and the command
    # line has a progress display of its own.
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    try:
        import transformers
    except ImportError as error:
        raise UsageError("hf: sources need transformers: pip install 'strop[hf]'") from error
    transformers.utils.logging.disable_progress_bar()
    # Weights that are missing are an error here, not a report.
    transformers.utils.logging.set_verbosity_error()
    return transformers


def loaded(what: str, path: Path, load: Callable[..., Any], **options: Any) -> Any:
    """Call one of transformers' loaders on the folder, and on nothing else.

    Args:
        what: is loaded, for messages: "the tokenizer".
        path: the folder.
        load: a ``from_pretrained``.
        options: passed on.

    Raises:
        UsageError: it refuses the folder.
    """
    options = {"local_files_only": True, "trust_remote_code": False} | options
    return asked(f"hf:{path}: transformers could not load {what}", load, path, **options)


def asked(problem: str, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Call library code on data from outside; what it raises becomes a clear message.

    Raises:
        UsageError: ``problem``, with the type and the first line of what was raised.
    """
    try:
        return function(*args, **options)
    # Any library code may be behind the call, with data that it was not written for.
    except Exception as error:
        raise UsageError(f"{problem}: {reason(error)}") from error


def reason(error: Exception) -> str:
    """The type and the first line of an exception."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
