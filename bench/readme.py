"""``python -m strop.bench.readme``: write the recorded figures and latencies into the README."""

from __future__ import annotations

import json
from typing import Any

from strop.bench.figures import RESULTS, Figure
from strop.bench.zoo_table import ROOT, replace_between


def records() -> list[dict[str, Any]]:
    """Every benchmark on record, in the order of the file names."""
    found = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    return [r for r in found if isinstance(r, dict) and r.get("figures")]


def machine(environment: dict[str, Any]) -> str:
    """One line on where the figures were measured."""
    flags = ", ".join(environment["flags"])
    versions = environment["versions"]
    runtime = versions.get("onnxruntime-gpu") or versions.get("onnxruntime")
    return (
        f"{environment['cpu']}, {environment['threads']} threads ({flags}); "
        f"torch {versions['torch']}, onnxruntime {runtime}"
    )


def figures_table(found: list[dict[str, Any]]) -> str:
    """All figures as a Markdown table; a missed bound says so."""
    lines = ["| figure | measured | wanted | |", "| --- | --- | --- | --- |"]
    for record in found:
        for f in record["figures"]:
            figure = Figure(f["what"], f["value"], f["at_least"], f["at_most"])
            verdict = "" if figure.hit else "**missed**"
            lines.append(f"| {figure.what} | {figure.value:.4g} | {figure.wanted} | {verdict} |")
    return "\n".join(lines)


def main() -> None:
    """Replace the README's figures by those on record."""
    found = records()
    text = f"Measured on {machine(found[0]['environment'])}.\n\n{figures_table(found)}"
    readme = ROOT / "README.md"
    readme.write_text(replace_between(readme.read_text(), "figures", text))


if __name__ == "__main__":
    main()
