"""Tables of the outcomes of torch's operator samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from strop.bench.pages.tables import TableRow, TextTable

if TYPE_CHECKING:  # the page of results is written without torch
    from strop.bench.sweeps.operators.outcomes import SampleOutcome

KINDS = ("ok", "refused", "not comparable", "wrong", "traceback")


def outcomes(measured: Mapping[str, Any]) -> TextTable:
    """How many samples of each dtype ended in which way."""
    rows = [
        TableRow([dtype, str(part["samples"]), *(str(part["outcomes"].get(k, 0)) for k in KINDS)])
        for dtype, part in measured.items()
    ]
    return TextTable("outcomes", ("dtype", "samples", *KINDS), rows)


def by_reason(found: Mapping[str, SampleOutcome]) -> list[tuple[str, str, list[str]]]:
    """Kind, reason and labels of what is not plainly ok, the most frequent first."""
    groups: dict[tuple[str, str], list[str]] = {}
    for label, result in found.items():
        if result.reason:
            groups.setdefault((result.kind, result.reason), []).append(label)
    ordered = sorted(groups.items(), key=lambda g: -len(g[1]))
    return [(kind, reason, labels) for (kind, reason), labels in ordered]


def reasons(measured: Mapping[str, Any], most: int | None = None) -> TextTable:
    """The samples that are not plainly ok, by dtype and reason, and ``most`` of their operators."""
    rows = []
    for dtype, part in measured.items():
        for group in part["reasons"]:
            count, names = str(len(group["samples"])), _names(group, most)
            rows.append(TableRow([dtype, group["kind"], group["reason"], count, names]))
    return TextTable(
        "not plainly ok", ("dtype", "outcome", "reason", "samples", "among them"), rows, 3
    )


def _names(group: Mapping[str, Any], most: int | None) -> str:
    names = list(dict.fromkeys(label.split("[")[0] for label in group["samples"]))
    shown = names[:most]
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return ", ".join(shown) + more
