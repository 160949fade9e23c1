"""Every way a build can end badly: one exception class per exit code."""

from __future__ import annotations


class StropError(Exception):
    """A problem told to the user as a sentence: what, where in their source, what to do.

    Attributes:
        exit_code: what the command line exits with. 1 means a bug in strop.
    """

    exit_code = 1


class UsageError(StropError):
    """The command, the recipe or the factory is wrong (exit 2)."""

    exit_code = 2


class BudgetError(StropError):
    """The artifact was built, compared with the original, and is too far from it (exit 3)."""

    exit_code = 3


class UnsupportedError(StropError):
    """The model holds something that cannot be captured or lowered (exit 4)."""

    exit_code = 4


class RuntimeRefusedError(StropError):
    """The runtime did not load or run the lowered model (exit 5)."""

    exit_code = 5


class RuntimeEndedError(RuntimeRefusedError):
    """The runtime crashed, hung, or took more memory than there is (exit 5)."""


class VerifyError(StropError):
    """A program broke a rule of the IR: a bug in the pass that made it (exit 1)."""


def did_you_mean(word: str, known: list[str]) -> str:
    """Return ``; did you mean 'x'?`` for the nearest known word, else the list of known words."""
    import difflib

    near = difflib.get_close_matches(word, known, n=1)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; known: {', '.join(sorted(known))}"


def nearest(word: str, known: list[str]) -> str:
    """Return ``; nearest: x, y, z`` for up to three names, of however many there are."""
    import difflib

    near = difflib.get_close_matches(word, known, n=3, cutoff=0.3) or sorted(known)[:3]
    return f"; nearest: {', '.join(near)}" if near else "; there are none"
