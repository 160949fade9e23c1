"""The report of a 12-layer BERT: how large the page is, and how soon a reader can use it.

``python -m strop.bench.measures.report`` needs Chromium, and `playwright`, which
``strop[dev]`` installs.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from strop.bench.processes.browser import browser
from strop.bench.records.figures import RESULTS, Figure, ResultsFolder, console, show_and_save
from strop.bench.records.machine import environment

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from strop.compiler import Model

LAYERS = 12
RECIPES = ("cpu-fp32", "cpu-int8")
# Times that a page is opened; the slowest counts.
OPENED = 5

# What a reader does first, by the browser's own clock, which starts with the navigation: opens a
# module, and narrows the near misses to none. Two frames later all of it is painted.
USE = """
addEventListener("DOMContentLoaded", () => {
  document.querySelector("#graph-tree details details > summary").click();
  const filter = document.getElementById("filter");
  filter.value = "no such reason";
  filter.dispatchEvent(new Event("input"));
  requestAnimationFrame(() => requestAnimationFrame(() => { window.used = performance.now(); }));
});
"""


def make() -> Model:
    """A BERT of 12 narrow layers with random weights: the page shows names, not weights."""
    import torch
    import transformers

    from strop.bench.models.inputs import randomize
    from strop.compiler import Model

    config = transformers.BertConfig(
        num_hidden_layers=LAYERS, hidden_size=64, num_attention_heads=4, intermediate_size=256,
        vocab_size=1000,
    )  # fmt: skip
    ids = torch.arange(32).reshape(2, 16)
    axes: dict[int, Any] = {0: ("batch", 1, 4), 1: ("seq", 2, 64)}
    return Model(
        randomize(transformers.BertModel(config)),
        {"input_ids": ids, "attention_mask": torch.ones_like(ids)},
        dynamic={"input_ids": axes, "attention_mask": axes},
    )


def seconds_to_use(page: Path, opener: Browser) -> float:
    """Seconds from the start of the navigation until ``USE`` has been done and painted."""
    context = opener.new_context(offline=True)
    tab = context.new_page()
    tab.add_init_script(USE)
    tab.goto(page.as_uri())
    milliseconds = tab.wait_for_function("window.used").json_value()
    opened = tab.locator("#graph-tree details details[open]").count()
    shown = tab.locator("details.misses:visible").count()
    context.close()
    if (opened, shown) != (1, 0):
        raise RuntimeError(f"{opened} modules opened and {shown} near misses left: expected 1, 0")
    return float(milliseconds) / 1000


def measure(recipe: str, opener: Browser) -> dict[str, Any]:
    """Size in bytes, and the seconds of every opening."""
    from strop.compiler import build

    with tempfile.TemporaryDirectory() as folder:
        page = build(make(), Path(folder) / "artifact", recipe).path / "report.html"
        # The first opening does not count: Chromium loads its own parts then.
        seconds_to_use(page, opener)
        seconds = [round(seconds_to_use(page, opener), 4) for _ in range(OPENED)]
        return {"bytes": page.stat().st_size, "seconds": seconds}


def main(results: ResultsFolder = RESULTS) -> None:
    """Build a 12-layer BERT with each recipe, and open its report in headless Chromium."""
    with browser() as opener, console.status("building and opening"):
        found = {recipe: measure(recipe, opener) for recipe in RECIPES}
        version = opener.version
    size = max(f["bytes"] for f in found.values()) / 1e6
    seconds = max(s for f in found.values() for s in f["seconds"])
    figures = [
        Figure(f"report of a {LAYERS}-layer BERT, MB", size, at_most=3.0),
        Figure("report interactive in headless Chromium, seconds", seconds, at_most=1.0),
    ]
    measured = {"chromium": version, "recipes": found}
    title = f"report.html in Chromium {version}"
    show_and_save("report", title, environment(), figures, measured, results)


if __name__ == "__main__":
    typer.run(main)
