"""Which layers a pass quantizes, by the names of their weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from strop.compiler.ir.program import Program
from strop.compiler.util.errors import UsageError, nearest


@dataclass(frozen=True)
class Selection:
    """Which layers to quantize.

    Attributes:
        only: names or shell patterns of weights; others stay as they are. Empty selects all.
        keep: names or shell patterns of weights that stay as they are, also where ``only`` matches.
    """

    only: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()

    def why_not(self, names: Iterable[str]) -> str | None:
        """Why a layer with weights of these names stays in float, or None where it does not."""
        known = list(names)
        for pattern in self.keep:
            for name in known:
                if matches(name, pattern):
                    return f"kept in float: '{name}' matches '{pattern}'"
        if self.only and not any(matches(n, pattern) for pattern in self.only for n in known):
            return f"kept in float: '{known[0]}' matches none of {', '.join(self.only)}"
        return None

    def require_matches(self, program: Program) -> None:
        """Check that every pattern names a weight.

        Raises:
            UsageError: one matches nothing.
        """
        names = [source for o in program.origins.values() for source in o.sources]
        names += program.weights
        for option in ("only", "keep"):
            for pattern in getattr(self, option):
                if not any(matches(name, pattern) for name in names):
                    raise UsageError(
                        f"{option}: no weight is '{pattern}'{nearest(pattern, sorted(set(names)))}"
                    )


@dataclass(frozen=True)
class Selecting:
    """What passes share whose options say which layers they change.

    Attributes:
        only: weights of layers to change, by name or shell pattern ("lm_head", "*.layer.0.*"); by
            default all.
        keep: weights of layers to leave as they are, by name or shell pattern.
    """

    only: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()

    @property
    def selection(self) -> Selection:
        """Which layers are changed."""
        return Selection(self.only, self.keep)


def matches(name: str, pattern: str) -> bool:
    """Whether a pattern names a weight, or a module around it."""
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")
