"""How a command ends: errors and signals become sentences and exit codes."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from strop.compiler.cli.consoles import say_problem
from strop.compiler.util import interrupts
from strop.compiler.util.errors import StropError
from strop.compiler.util.interrupts import Interrupted


def exit_code_of(app: Callable[[], None]) -> Any:
    """Run a command line; returns its exit code."""
    try:
        app()
    except SystemExit as end:  # typer's own: the user's code cannot raise it here
        return end.code
    except Interrupted as error:
        say_problem(_with_notes(_interruption(), error))
    except StropError as error:
        say_problem(_with_notes(str(error), error))
        return error.exit_code
    except Exception as error:
        if os.environ.get("STROP_TRACEBACK"):
            raise
        say_problem(_bug(error))
    return 1


def _with_notes(sentence: str, error: BaseException) -> str:
    return "\n".join([sentence, *getattr(error, "__notes__", ())])


def _interruption() -> str:
    number = interrupts.received()
    assert number is not None
    when = "" if interrupts.exit_code() else "; it came after the artifact was written"
    return f"ended by {number.name}{when}"


def _bug(error: Exception) -> str:
    place = traceback.extract_tb(error.__traceback__)[-1]
    notes = getattr(error, "__notes__", [])
    during = "".join(f", {note}" for note in notes[:1])
    sentence = (
        f"this is a bug in strop{during}: {type(error).__name__}: {error} "
        f"({Path(place.filename).name}:{place.lineno}). Please report it; with STROP_TRACEBACK=1 "
        "in the environment the whole trace is shown."
    )
    return "\n".join([sentence, *notes[1:]])
