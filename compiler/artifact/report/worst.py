"""The worst of all checks of a manifest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from strop.compiler.artifact.report.tables import Values


@dataclass(frozen=True)
class Worst:
    """The worst of all comparisons of the file with the original.

    Attributes:
        floats: the check of the largest error among float outputs; None if there are none.
        cosine: the lowest among float outputs.
        others: the check with most elements that differ, among outputs that are not float.
    """

    floats: Values | None
    cosine: float | None
    others: Values | None


def worst_of(checks: Sequence[Values]) -> Worst:
    """The worst of the checks that a manifest lists."""

    # Manifests of older versions have the share of elements that differ as "max_error" alone.
    def error(check: Values) -> float:
        return float(check["max_error"])

    floats = [check for check in checks if check["cosine"] is not None]
    others = [check for check in checks if check["cosine"] is None]
    return Worst(
        max(floats, key=error, default=None),
        min((check["cosine"] for check in floats), default=None),
        max(others, key=error, default=None),
    )
