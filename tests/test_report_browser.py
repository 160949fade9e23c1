"""The report in a real headless Chromium, without a network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from strop.bench.processes.browser import browser, chromium
from strop.compiler import Model, build

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.skipif(chromium() is None, reason="there is no Chromium on this machine")
PHONE = {"width": 360, "height": 740}


class Layer(nn.Module):
    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8, bias=bias)
        self.norm = nn.LayerNorm(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x + self.linear(torch.tanh(x)))


class Stack(nn.Module):
    """Two rules find less here than they look for."""

    def __init__(self) -> None:
        super().__init__()
        self.row = nn.Parameter(torch.ones(8))
        self.first = nn.LayerNorm(8)
        self.layers = nn.Sequential(Layer(True), Layer(False), Layer(False), Layer(False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(self.first(x + self.row))


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    out = tmp_path_factory.mktemp("report") / "out"
    return build(Model(Stack().eval(), {"x": torch.randn(2, 3, 8)}), out).path / "report.html"


@pytest.fixture(scope="module")
def opener() -> Iterator[Browser]:
    with browser() as started:
        yield started


@pytest.fixture
def open_page(opener: Browser, report: Path) -> Iterator[Any]:
    """``open_page(...)`` opens the report; in the end it must have been quiet and asked nobody."""
    contexts, said, asked = [], [], []

    def opened(**options: Any) -> Page:
        context = opener.new_context(offline=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(report.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert said == []
    assert {url.partition("#")[0] for url in asked} == {report.as_uri()}


def too_wide(page: Page) -> int:
    """Pixels by which the page is wider than its window."""
    width: int = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    return width


def test_a_module_opens_at_a_click_and_shows_its_lines(open_page: Any) -> None:
    page = open_page()
    line = page.locator("#graph-tree details details li p", has_text="aten.").first
    assert not line.is_visible()
    page.get_by_role("button", name="Open all").click()
    assert line.is_visible()
    page.get_by_role("button", name="Close all").click()
    assert not line.is_visible()
    page.locator("#graph-tree summary").first.click()
    page.locator("#graph-tree details details > summary").first.click()
    assert page.locator("#graph-tree details details[open]").count() == 1


def test_the_graph_can_be_seen_before_and_after(open_page: Any) -> None:
    page = open_page()
    page.get_by_role("button", name="Open all").click()
    gone = page.locator("li.removed p:visible")
    made = page.locator("li.added p:visible")
    assert gone.count() > 0 < made.count()
    page.get_by_label("before", exact=True).check()
    assert gone.count() > 0 == made.count()
    page.get_by_label("after", exact=True).check()
    assert gone.count() == 0 < made.count()


def test_near_misses_are_narrowed_by_what_is_typed(open_page: Any) -> None:
    page = open_page()
    rows = page.locator(".misses tbody tr:visible")
    every, total = rows.count(), page.locator("#shown").inner_text()
    assert every > 1
    reason = rows.first.locator("td").first.inner_text()
    page.get_by_label("Filter").fill(reason.upper())
    assert 0 < rows.count() < every
    assert all(reason in text for text in rows.all_inner_texts())
    rule = page.locator("details.misses summary code").last.inner_text()
    page.get_by_label("Filter").fill(rule)
    assert rows.count() > 0
    page.get_by_label("Filter").fill("no such reason")
    assert rows.count() == 0
    assert page.locator("#shown").inner_text() == "0 shown"
    page.get_by_label("Filter").fill("")
    assert (rows.count(), page.locator("#shown").inner_text()) == (every, total)


def test_a_near_miss_leads_to_its_line_in_the_graph(open_page: Any) -> None:
    page = open_page()
    page.get_by_role("button", name="Close all").click()
    link = page.locator(".roots a").first
    target = page.locator(link.get_attribute("href"))
    assert not target.is_visible()
    link.click()
    target.locator("p").first.wait_for(state="visible")


def test_a_table_is_sorted_by_its_heading_with_the_keyboard_too(open_page: Any) -> None:
    page = open_page()
    heading = page.locator("#passes th", has_text="time")

    def times() -> list[float]:
        cells = page.locator("#passes tbody tr td:nth-of-type(1)")
        return [float(cell.get_attribute("data-key")) for cell in cells.all()]

    as_run = times()
    heading.get_by_role("button").click()
    assert times() == sorted(as_run)
    assert heading.get_attribute("aria-sort") == "ascending"
    page.keyboard.press("Enter")
    assert times() == sorted(as_run, reverse=True)
    page.locator("#passes th", has_text="pass").first.get_by_role("button").click()
    assert times() == as_run


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_without_scrolling_sideways(open_page: Any, scheme: str) -> None:
    page = open_page(viewport=PHONE, color_scheme=scheme)
    assert too_wide(page) <= 0
    page.get_by_role("button", name="Open all").click()
    assert too_wide(page) <= 0
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    channels = [int(c) for c in ground.removeprefix("rgb(").removesuffix(")").split(",")]
    assert (max(channels) < 64) == (scheme == "dark")


def test_it_prints_on_white_with_the_near_misses_and_without_the_controls(
    open_page: Any, tmp_path: Path
) -> None:
    page = open_page(color_scheme="dark")
    page.locator("details.misses").evaluate_all("all => all.forEach(one => one.open = false)")
    row = page.locator(".misses tbody tr").first
    assert not row.is_visible()
    page.emulate_media(media="print")
    assert row.evaluate("row => row.checkVisibility({contentVisibilityAuto: true})")
    assert row.bounding_box()["height"] > 0
    assert not page.locator("nav").is_visible()
    assert not page.get_by_label("Filter").is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.pdf(path=tmp_path / "report.pdf", format="A4")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF-")


def test_its_policy_stops_scripts_and_requests_that_someone_slipped_in(
    opener: Browser, report: Path, tmp_path: Path
) -> None:
    """Were a name ever not escaped, it still could do nothing."""
    slipped = "<script>document.title = 'taken'</script><img src='http://127.0.0.1:9/x.png'>"
    (tmp_path / "bad.html").write_text(report.read_text().replace("<main>", f"<main>{slipped}"))
    said: list[str] = []
    page = opener.new_page()
    page.on("console", lambda message: said.append(message.text))
    page.goto((tmp_path / "bad.html").as_uri())
    assert page.title() != "taken"
    assert len([text for text in said if "Content Security Policy" in text]) == 2
    page.close()
