"""``report.html`` of an artifact: what it says, and that it holds nothing but itself."""

from __future__ import annotations

import copy
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from program_tools import program_of
from torch import nn

from strop.bench.measures.reproducible import paths_inside
from strop.bench.models.zoo import ZOO
from strop.compiler import Model, build
from strop.compiler.artifact.report import units
from strop.compiler.artifact.report.graph import Line, Module, Repeat, Row, graph_view, module_tree
from strop.compiler.artifact.report.page import render
from strop.compiler.artifact.report.tables import ErrorScale, near_misses, pass_errors, timeline
from strop.compiler.cli import main as cli
from strop.compiler.driver import describe
from strop.compiler.ir.program import Program
from strop.compiler.recipes.recipe import Recipe
from strop.passes.cleanup.noops import Noops

VOID = {"meta", "input", "rect"}
HOSTILE = "</script></style><img src=x onerror='document.title=1'>\"' {{ 7*7 }} \ud800\u202e"


@dataclass
class Parts:
    """What a page was rendered from."""

    manifest: dict[str, Any]
    build: dict[str, Any]
    before: list[Line]
    after: list[Line]

    def page(self) -> str:
        return render(self.manifest, self.build, {"model": (self.before, self.after)})


@dataclass
class Page(HTMLParser):
    """A page taken apart; it complains of tags that do not match."""

    text: str
    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def shown(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    """Those of a real build; a test that changes them copies them first."""
    seen: list[Any] = []

    def spy(*given: Any) -> str:
        seen.extend(copy.deepcopy(given))
        return render(*given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(describe, "render", spy)
        out = tmp_path_factory.mktemp("report") / "out"
        artifact = build(ZOO["bert"].make(), out, "cpu-int8")
    manifest, record, graphs = seen
    made = Parts(manifest, record, *graphs["model"])
    assert (artifact.path / "report.html").read_text() == made.page()
    return made


@pytest.fixture(scope="module")
def page(parts: Parts) -> Page:
    return Page(parts.page())


# The graph --------------------------------------------------------------------------------------


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.linear(x)) + x


class Stack(nn.Module):
    def __init__(self, depth: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(depth))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return torch.dropout(x, 0.1, False)


def stack(depth: int) -> Program:
    return program_of(Stack(depth).eval(), torch.ones(2, 4), dims={0: {0: ("batch", 2, 8)}})


def modules(items: list[Any]) -> Iterator[Module]:
    for item in items:
        if isinstance(item, Module):
            yield item
            yield from modules(item.items)
        elif isinstance(item, Repeat):
            yield from modules(list(item.modules))


def test_the_lines_are_those_of_the_programs_text() -> None:
    program = stack(2)
    lines = [
        f"  %{v.name} : {v.type} = {v.operator}{v.arguments}" + (f"  # {v.source}" * bool(v.source))
        for v in graph_view(program)
    ]
    assert lines == str(program).splitlines()[1:-1]


def test_values_that_came_went_changed_or_stayed_are_marked() -> None:
    program = stack(1)
    after = Noops().run(program).program
    tree = module_tree(graph_view(program), graph_view(after))
    marks = {row.line.operator: row.mark for row in tree.rows()}
    assert marks == {
        "aten.linear": "kept",
        "aten.relu": "kept",
        "aten.add.Tensor": "kept",
        "aten.dropout": "removed",
    }
    first, *_ = graph_view(program)
    other = Line(**{**vars(first), "arguments": "(%other)"})
    assert Row(first, other).mark == "changed"
    assert Row(None, other).mark == "added"


def test_both_graphs_are_merged_in_their_order_and_lose_no_line() -> None:
    def line(name: str) -> Line:
        return Line(name, "f32[]", "op", "()", "()", None, (), None, False)

    before = [line(n) for n in ("a", "r1", "b", "r2", "c")]
    after = [line(n) for n in ("a", "n1", "b", "c", "n2")]
    rows = list(module_tree(before, after).rows())
    assert [row.line.name for row in rows] == ["a", "r1", "n1", "b", "r2", "c", "n2"]
    # A value that a pass moved appears once, where it is now.
    moved = [row.line.name for row in module_tree(before, list(reversed(before))).rows()]
    assert sorted(moved) == sorted(v.name for v in before)


def test_layers_that_repeat_are_folded_behind_the_first() -> None:
    lines = graph_view(stack(5))
    tree = module_tree(lines, lines)
    (repeat,) = [i for m in [tree, *modules(tree.items)] for i in m.items if isinstance(i, Repeat)]
    assert repeat.like.path.endswith("blocks.0")
    assert [m.path.rpartition(".")[2] for m in repeat.modules] == ["1", "2", "3", "4"]
    assert tree.before == tree.after == len(lines)


def test_a_layer_that_differs_is_not_folded() -> None:
    lines = graph_view(stack(5))
    odd = [v for v in lines if not (v.operator == "aten.relu" and "blocks.2" in str(v.modules))]
    tree = module_tree(lines, odd)
    assert not [i for m in [tree, *modules(tree.items)] for i in m.items if isinstance(i, Repeat)]


def test_a_module_counts_its_lines_before_and_after(parts: Parts) -> None:
    tree = module_tree(parts.before, parts.after)
    assert (tree.before, tree.after) == (len(parts.before), len(parts.after))
    found = {m.path: m for m in modules(tree.items)}
    layer = found["encoder.layer.0"]
    assert layer.class_name == "BertLayer"
    assert layer.before > layer.after > 0
    assert layer.changed
    assert tree.class_name == "BertModel"


def test_lines_say_which_rule_made_them_and_what_is_computed_beforehand(parts: Parts) -> None:
    scales = [line for line in parts.after if line.operator == "strop.int8_scale"]
    assert scales
    assert all(line.constant and line.made_by for line in scales)
    assert not any(line.made_by for line in parts.before)


# The tables -------------------------------------------------------------------------------------


def test_a_timeline_ends_at_a_hundred_percent() -> None:
    spans = timeline({"a": 1.0, "b": 0.0, "c": 3.0})
    assert [(s.start, s.width) for s in spans.values()] == [(0, 25), (25, 0), (25, 75)]
    assert timeline({"a": 0.0})["a"].width == 0


def test_the_scale_of_errors_holds_all_of_them() -> None:
    scale = ErrorScale.of([3e-7, None, 0.0, 2e-2])
    assert (scale.low, scale.high) == (-8, -1)
    assert scale.percent(0.0) == 0
    assert scale.percent(None) == 100
    assert 0 < scale.percent(3e-7) < scale.percent(2e-2) < 100
    assert ErrorScale.of([0.0, None]).percent(0.0) == 0


def drift(max_abs: float | None) -> dict[str, Any]:
    return {"max_abs": max_abs, "finite": max_abs is not None}


def step(name: str, previous: float | None) -> dict[str, Any]:
    return {"name": name, "previous": drift(previous), "original": drift(previous)}


def test_the_pass_that_adds_most_of_the_error_stands_out() -> None:
    idle = {"name": "idle", "previous": None, "original": None}
    errors = pass_errors([step("a", 1e-7), idle, step("quantize", 3e-3), step("b", 1e-3)])
    assert errors.worst == "quantize"
    assert errors.share == pytest.approx(0.75, abs=0.01)
    assert [s["name"] for s in errors.steps] == ["a", "quantize", "b"]
    assert pass_errors([step("a", 0.0), idle]).worst is None
    assert pass_errors([]).worst is None


def test_a_pass_that_makes_nan_is_the_worst() -> None:
    errors = pass_errors([step("a", 5.0), step("bad", None)])
    assert (errors.worst, errors.share) == ("bad", 1.0)


def test_near_misses_that_differ_in_node_names_alone_are_one_row() -> None:
    def miss(rule: str, number: int, reason: str) -> dict[str, Any]:
        return {
            "rule": rule,
            "root": f"%add_{number} = aten.add.Tensor (m.py:4)",
            "reason": f"{reason} at %mul_{number}",
            "lines": ["m.py:4"],
            "root_name": f"add_{number}",
            "kind": f"{reason} at aten.mul.Tensor",
        }

    misses = [miss("one", i, "shapes differ") for i in range(12)]
    misses += [miss("one", 99, "used twice"), miss("two", 7, "shapes differ")]
    groups = near_misses([{"name": "p", "misses": misses}, {"name": "q", "misses": []}])
    assert [(g.step, g.rule, g.count, len(g.rows)) for g in groups] == [
        ("p", "one", 13, 2),
        ("p", "two", 1, 1),
    ]
    assert groups[0].rows[0].roots == [f"add_{i}" for i in range(12)]


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (units.size(801_658), "801.7 kB"),
        (units.size(2.8e6), "2.8 MB"),
        (units.size(12), "12 B"),
        (units.size(None), "–"),
        (units.duration(3.392), "3.39 s"),
        (units.duration(0.0175), "17.5 ms"),
        (units.change(315, 272), "−43"),
        (units.change(158, 1254), "+1,096"),
        (units.size_change(10, 10), "0"),
        (units.size_change(4000, 1000), "−3.0 kB"),
        (units.error(None), "not finite"),
        (units.error(0.00123), "1.2e-03"),
        (units.times(7, 2, "smaller", "larger"), "3.5 times smaller"),
        (units.times(2, 7, "smaller", "larger"), "3.5 times larger"),
        (units.times(2, 2, "smaller", "larger"), "the same"),
        (units.times(None, 2, "smaller", "larger"), ""),
    ],
)
def test_numbers_read_well(shown: str, text: str) -> None:
    assert shown == text


# The page ---------------------------------------------------------------------------------------


def test_the_page_has_every_section_and_what_stands_in_it(page: Page, parts: Parts) -> None:
    ids = {a["id"] for a in page.of("section")}
    assert ids == {"summary", "time", "passes", "error", "graph", "misses", "checks", "next"}
    said = page.shown()
    manifest = parts.manifest
    names = [p["name"] for p in manifest["passes"]]
    names += [r for p in manifest["passes"] for r in p["rewrites"]]
    names += [c["output"] for c in manifest["checks"]] + [c["case"] for c in manifest["checks"]]
    names += [*manifest["versions"].values(), *parts.build["seconds"]]
    names += ["input_ids", "i64[batch, seq]", "1 to 3", "cpu-int8", "encoder.layer.0"]
    names += ["largest step", "netron model.onnx", "strop debug bisect", "strop bench"]
    for name in names:
        assert name in said, name


def test_the_reasons_of_the_recipe_stand_beside_its_passes(page: Page, parts: Parts) -> None:
    entries = parts.manifest["recipe"]["passes"]
    reasons = [entry["why"] for entry in entries if "why" in entry]
    assert reasons
    assert all(reason in page.shown() for reason in reasons)


def test_every_value_of_both_graphs_is_on_the_page(page: Page, parts: Parts) -> None:
    names = {f"v-{line.name}" for line in (*parts.before, *parts.after)}
    found = [a["id"] for a in page.of("li") if a.get("id")]
    assert set(found) == names
    assert len(found) == len(names)


def test_the_page_can_be_read_without_eyes(page: Page) -> None:
    assert page.of("html") == [{"lang": "en"}]
    assert len(page.of("h1")) == 1
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
    assert all(after - before <= 1 for before, after in zip(levels, levels[1:]))
    assert all(a.get("scope") for a in page.of("th"))
    for box in (a for a in page.of("div") if "scroll" in (a.get("class") or "")):
        assert box["tabindex"] == "0"
        assert box["aria-label"]
    assert all(a.get("aria-hidden") == "true" for a in page.of("svg"))
    labelled = {a["for"] for a in page.of("label") if "for" in a}
    loose = {a["id"] for a in page.of("input") if a.get("type") != "radio"}
    assert loose <= labelled


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it, of ``#rgb`` or ``#rrggbb``."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_stands_out_from_what_it_stands_on(page: Page, scheme: int) -> None:
    palette = re.findall(r":root \{(.*?)\}", page.text, re.DOTALL)[scheme]
    colours = dict(re.findall(r"--(\w+): (#\w+);", palette))
    for text in ("ink", "quiet", "accent", "hot", "bad"):
        for ground in ("ground", "surface", "added", "removed", "changed", "tint"):
            dark, light = sorted((luminance(colours[text]), luminance(colours[ground])))
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, ground)


def test_links_lead_to_places_on_the_page_and_ids_are_unique(page: Page) -> None:
    ids = Counter(a["id"] for _, a in page.tags if a.get("id"))
    assert max(ids.values()) == 1
    targets = {a["href"] for a in page.of("a")}
    assert all(target and target[0] == "#" and target[1:] in ids for target in targets)


def test_the_page_asks_for_nothing_outside_and_may_not(page: Page) -> None:
    assert not [a for _, a in page.tags if "src" in a or "style" in a]
    assert not [k for _, a in page.tags for k in a if k.startswith("on")]
    assert "url(" not in page.text
    assert "@import" not in page.text
    (policy,) = [a["content"] for a in page.of("meta") if "http-equiv" in a]
    assert policy
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy


def test_the_commands_on_the_page_exist(parts: Parts) -> None:
    shown = re.findall(r"<code>(strop [^<]+)</code>", parts.page())
    assert len(shown) >= 4
    for words in map(str.split, shown):
        command: Any = typer.main.get_command(cli.app)
        for word in words[1:3] if words[1] == "debug" else words[1:2]:
            assert word in command.commands, words
            command = command.commands[word]
        if words[1] == "debug":
            known = {option for parameter in command.params for option in parameter.opts}
            assert {word for word in words if word.startswith("--")} <= known


def test_the_page_holds_no_path_of_the_machine(parts: Parts, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(parts.page())
    assert paths_inside(tmp_path, [Path.home(), tmp_path, Path(__file__).parents[1]]) == []


def test_equal_parts_give_equal_pages(parts: Parts) -> None:
    assert parts.page() == copy.deepcopy(parts).page()


def hostile(value: Any) -> Any:
    """The value with every text in it made dangerous."""
    if isinstance(value, str):
        return HOSTILE + value
    if isinstance(value, list):
        return [hostile(v) for v in value]
    return {k: hostile(v) for k, v in value.items()} if isinstance(value, dict) else value


def test_sizes_that_were_run_and_those_left_out_are_shown(parts: Parts) -> None:
    seen = copy.deepcopy(parts)
    seen.manifest["sizes"] = {
        "check": "bounded",
        "run": [{"batch": 1, "seq": 33}, {}],
        "left_out": [{"sizes": {"batch": 64}, "multiply_adds": 12_345_678, "bytes": 4_500_000_000}],
        "calibration": {"given": 9, "run": 2},
    }
    said = Page(seen.page()).shown()
    assert "2 of 9 calibration inputs were run; the others would have taken too long." in said
    assert "batch=1 seq=33 yes – –" in said
    assert "batch=64 no 12,345,678 4.5 GB" in said
    assert "--check full runs them all" in said
    assert said.count(" yes – –") == 1
    del seen.manifest["sizes"]["left_out"][:]
    seen.manifest["sizes"]["calibration"]["run"] = 9
    said = Page(seen.page()).shown()
    assert "9 of 9 calibration inputs were run." in said
    assert "--check full" not in said


def trained(history: list[Any], **more: Any) -> dict[str, Any]:
    """The part of the manifest of a pass that learned."""
    source = {"program": "", "teacher": None, "data": {}, "seed": 0}
    return {"from": source, "facts": {"history": history, **more}}


HISTORY = [
    {"update": 0, "lr": 0.0, "loss": None, "validation": 100.0},
    {"update": 10, "lr": 0.1, "loss": 10.0, "validation": 1.0},
    {"update": 20, "lr": 0.0, "loss": 0.1, "validation": 1.0},
]


def test_a_pass_that_trained_shows_its_losses_and_metrics(parts: Parts) -> None:
    assert "Training" not in Page(parts.page()).shown()
    changed = copy.deepcopy(parts)
    step = changed.manifest["passes"][0]
    metrics = {"before": {"recall": 0.25}, "after": {"recall": 0.75}}
    step["learned"] = trained(HISTORY, metrics=metrics)
    page = Page(changed.page())
    curves = [p["points"] for p in page.of("polyline")]
    assert curves == ["300.0,53.3 600.0,160.0", "0.0,0.0 300.0,106.7 600.0,106.7"]
    assert "Loss over 20 updates, from 0.1 to 100 on a log scale" in page.shown()
    assert "held out 100 → 1." in page.shown() and "recall 0.25 0.75" in page.shown()
    label = next(s["aria-label"] for s in page.of("svg") if s.get("role") == "img")
    assert label == f"Losses of {step['name']}: training from 10 to 0.1, held out from 100 to 1"


@pytest.mark.parametrize(
    "history",
    [[], [{"update": 0, "loss": None, "validation": None}], "mine", [{"epoch": 1}], None],
)
def test_facts_of_another_form_are_not_drawn(history: Any, parts: Parts) -> None:
    changed = copy.deepcopy(parts)
    changed.manifest["passes"][0]["learned"] = trained(history)
    assert not Page(changed.page()).of("polyline")


def test_losses_that_reach_zero_are_drawn_on_a_plain_scale(parts: Parts) -> None:
    changed = copy.deepcopy(parts)
    lines = [{"update": 0, "validation": 4.0}, {"update": 8, "validation": 0.0}]
    changed.manifest["passes"][0]["learned"] = trained(lines)
    page = Page(changed.page())
    assert [p["points"] for p in page.of("polyline")] == ["0.0,0.0 600.0,160.0"]
    assert "log scale:" not in page.shown() and "from 0 to 4:" in page.shown()
    changed.manifest["passes"][0]["learned"] = trained([{"update": 0, "validation": 2.0}])
    assert [p["points"] for p in Page(changed.page()).of("polyline")] == ["0.0,160.0"]


def test_hostile_names_are_text(parts: Parts, page: Page) -> None:
    manifest, record = hostile(copy.deepcopy(parts).manifest), copy.deepcopy(parts).build
    manifest["contract"]["dims"][0]["name"] = HOSTILE
    manifest["metrics"] = {"original": {HOSTILE: 1.0}, "artifact": {HOSTILE: 2.0}}
    manifest["notes"] = [HOSTILE]
    for name in ("pass_seconds", "pass_peak_bytes"):
        record[name] = {HOSTILE + k: v for k, v in record[name].items()}
    line = Line(*[HOSTILE] * 6, ((HOSTILE, HOSTILE),), HOSTILE, False)
    attacked = Page(render(manifest, record, {"model": ([line], [line, *parts.after])}))
    assert {tag for tag, _ in attacked.tags} <= {tag for tag, _ in page.tags}
    assert len(attacked.of("script")) == len(attacked.of("style")) == 1
    assert "onerror='document.title=1'" in attacked.shown()
    assert "{{ 7*7 }}" in attacked.shown()
    assert not [k for _, a in attacked.tags for k in a if k.startswith("on") or k == "src"]


def test_a_model_with_hostile_names_builds_and_its_report_shows_them(tmp_path: Path) -> None:
    evil = type("<b>Evil", (nn.Module,), {"forward": lambda self, x: self.inner(x).relu() + x})
    module = evil()
    module.add_module("inner", nn.Sequential())
    module.inner.add_module("<img src=x onerror=alert(1)>", nn.Linear(4, 4))
    artifact = build(Model(module.eval(), {"x": torch.ones(2, 4)}), tmp_path / "out")
    page = Page((artifact.path / "report.html").read_text())
    assert page.of("img") == []
    assert "<img src=x onerror=alert(1)>" in page.shown()
    assert "<b>Evil" in page.shown()


def test_a_build_without_passes_or_measurements_has_its_report(tmp_path: Path) -> None:
    model = Model(nn.Linear(4, 4).eval(), {"input": torch.ones(2, 4)})
    out = build(model, tmp_path / "out", Recipe(name="bare"), instruments="off").path
    said = Page((out / "report.html").read_text()).shown()
    for words in ("The recipe has no passes", "Not measured", "sets no budget", "None: no pattern"):
        assert words in said
    assert json.loads((out / "build.json").read_text())["seconds"]["report"] > 0


def test_what_is_not_finite_or_not_float_is_shown_as_that(parts: Parts) -> None:
    changed = copy.deepcopy(parts)
    for check in changed.manifest["checks"]:
        check["cosine"] = None
    modified = next(p for p in changed.manifest["passes"] if p["previous"])
    modified["previous"] |= {"max_abs": None, "sqnr_db": None, "cosine": None, "finite": False}
    said = Page(changed.page()).shown()
    assert "NaN or Inf" in said
    assert "not finite" in said
    assert f"Most of the error comes from {modified['name']}" in said
