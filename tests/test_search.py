"""``strop search``: the space, the study, and trials that succeed, fail and are interrupted."""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import Strop

from strop.compiler.recipes.loading import load_recipe
from strop.compiler.recipes.recipe import Recipe
from strop.compiler.search import search as searching
from strop.compiler.search.page import render
from strop.compiler.search.search import Search
from strop.compiler.search.space import Space, read_space, recipe_of
from strop.compiler.search.study import Study, Tried
from strop.compiler.util import interrupts
from strop.compiler.util.errors import BudgetError, UsageError
from strop.compiler.util.interrupts import Interrupted

SPACE = """
optional = ["packed"]

[options.quantize]
embeddings = {choices = [true, false]}
keep = {choices = [[], ["*.down"]]}
"""


@pytest.fixture
def recipe() -> Recipe:
    return load_recipe("cpu-fp32").insert("packed", "quantize", before="residuals")


def space_of(text: str, recipe: Recipe, tmp_path: Path) -> Space:
    path = tmp_path / "space.toml"
    path.write_text(text)
    return read_space(path, recipe)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"nothing to search: give \[options.ID\] or optional"),
        ("option = 1", "unknown key 'option'; did you mean 'options'"),
        ("[options.quantize]\nkeep = {chioces = [[]]}", "unknown key 'chioces'; did .* 'choices'"),
        ("[options.quantise]\nkeep = {choices = [[]]}", "no pass 'quantise'; did .* 'quantize'"),
        ("[options.quantize]\nkep = {choices = [[]]}", "no option 'kep'; did you mean 'keep'"),
        ("[options.quantize]\nkeep = {choices = [[], 'a']}", "'keep': it takes a list"),
        ("[options.quantize]\nid = {choices = ['a']}", "has no option 'id'"),
        ("[options.quantize]\nkeep = {}", "give either choices, or low and high"),
        ("[options.quantize]\nkeep = {choices = []}", "options.quantize.keep.choices: List should"),
        ("[options.quantize]\nkeep = {low = 1}", "give either choices, or low and high"),
        ("[options.quantize]\nkeep = {low = 1, high = 2, choices = [1]}", "give either choices"),
        ("[options.quantize]\nkeep = {low = 2, high = 1}", "low is 2, above high, 1"),
        ("[options.quantize]\nkeep = {low = 0, high = 1, log = true}", "log needs low above 0"),
        ("[options.quantize]\nkeep = {low = 1, high = 4, step = 1, log = true}", "and no step"),
        ("[options.quantize]\nkeep = {low = 1, high = 4, step = 0}", "step.*greater than 0"),
        ("[options.quantize]\nkeep = {choices = [[]], log = true}", "step and log are for ranges"),
        ("optional = ['packd']", "no pass 'packd'; did you mean 'packed'"),
        ("optional = ['attention']", "needs 'attention'"),
        ("optional = ['packed']\nobjectives = ['speed']", "'latency', 'size' or 'fidelity'"),
        ("optional = ['packed']\nobjectives = []", "nothing to search for"),
        ("optional = ['packed']\n[metrics]\nscore = 'up'", "'minimize' or 'maximize'"),
        ("optional = [", "space.toml"),
    ],
)
def test_a_wrong_space_is_told_before_anything_is_built(
    text: str, message: str, recipe: Recipe, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message) as error:
        space_of(text, recipe, tmp_path)
    assert "space.toml" in str(error.value) or "needs 'attention'" in message


def test_a_range_is_tried_at_both_ends(tmp_path: Path) -> None:
    recipe = load_recipe("cpu-pruned-fp32")
    text = "[options.prune-ffn]\nshare = {low = 0.1, high = 1.5}"
    with pytest.raises(UsageError, match="share"):
        space_of(text, recipe, tmp_path)
    assert space_of(text.replace("1.5", "0.5"), recipe, tmp_path).options


def test_a_drawn_recipe_has_the_options_and_leaves_out_steps(
    recipe: Recipe, tmp_path: Path
) -> None:
    space = space_of(SPACE, recipe, tmp_path)
    names = [name for name, _ in space.dimensions()]
    assert names == ["quantize.embeddings", "quantize.keep", "packed.present"]
    drawn = {"quantize.embeddings": False, "quantize.keep": ["*.down"], "packed.present": False}
    steps = {step.name: step.run for step in recipe_of(recipe, drawn).pipeline().steps}
    assert "packed" not in steps
    assert steps["quantize"].options()["keep"] == ("*.down",)
    assert steps["quantize"].options()["embeddings"] is False
    # The second of two equal passes keeps its id where the first one is left out.
    twice = load_recipe("cpu-fp32").insert("quantize", "quantize", before="residuals")
    one = recipe_of(twice, {"quantize.present": False})
    assert [s.name for s in one.pipeline().steps if "quantize" in s.name] == ["quantize-2"]


@pytest.fixture
def space(recipe: Recipe, tmp_path: Path) -> Space:
    return space_of(SPACE, recipe, tmp_path)


def study_of(tmp_path: Path, recipe: Recipe, space: Space) -> Study:
    return Study(f"sqlite:///{tmp_path / 'study.db'}", "search", recipe, space, 0)


def test_a_study_goes_on_where_it_was(tmp_path: Path, recipe: Recipe, space: Space) -> None:
    study = study_of(tmp_path, recipe, space)
    for size, fidelity in ((5.0, 0.9), (4.0, 0.8), (6.0, 0.85)):
        trial, drawn = study.ask()
        assert drawn["quantize.keep"] in ([], ["*.down"])
        study.succeeded(trial, {"latency": 1.0, "size": size, "fidelity": fidelity, "more": 1.0})
    again = study_of(tmp_path, recipe, space)
    trial, _ = again.ask()
    again.failed(trial, "no room")
    tried = again.tried()
    assert [one.best for one in tried] == [True, True, False, False]
    assert [one.reason for one in tried] == ["", "", "", "no room"]
    assert tried[0].measured["more"] == 1.0
    assert set(tried[0].values) == {"quantize.embeddings", "quantize.keep", "packed.present"}


def test_a_study_of_something_else_is_not_gone_on_with(
    tmp_path: Path, recipe: Recipe, space: Space
) -> None:
    study_of(tmp_path, recipe, space)
    other = space.model_copy(update={"optional": []})
    with pytest.raises(UsageError, match="is of another recipe or another space; name another"):
        study_of(tmp_path, recipe, other)
    with pytest.raises(UsageError, match="is of another recipe"):
        study_of(tmp_path, recipe.override("quantize.embeddings=false"), space)


@pytest.mark.parametrize("storage", ["nonsense", "sqlite:////dev/null/study.db", "unknown://x/y"])
def test_a_database_that_cannot_be_opened_is_told(
    storage: str, recipe: Recipe, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strop.compiler.search.study._PAUSE", 0.0)
    with pytest.raises(UsageError, match="--storage: the study cannot be opened: "):
        Study(storage, "search", recipe, space, 0)


def test_workers_that_begin_together_wait_for_the_tables_of_the_first(
    recipe: Recipe, space: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import optuna
    from sqlalchemy.exc import IntegrityError, OperationalError

    init = optuna.storages.RDBStorage.__init__
    failures: list[Exception] = [
        IntegrityError("insert", {}, ValueError("not unique")),
        OperationalError("create", {}, ValueError("already exists")),
        OperationalError("create", {}, ValueError("locked")),
    ]

    def late(self: Any, storage: str) -> None:
        if failures:
            raise failures.pop()
        init(self, storage)

    monkeypatch.setattr(optuna.storages.RDBStorage, "__init__", late)
    monkeypatch.setattr("strop.compiler.search.study._PAUSE", 0.0)
    assert study_of(tmp_path, recipe, space).tried() == []


def test_without_optuna_it_says_what_to_install(
    recipe: Recipe, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(
        UsageError, match=r"needs the package optuna: pip install 'strop\[search\]'"
    ):
        Study("sqlite://", "search", recipe, space, 0)


def ranges(low: Any, high: Any, **more: Any) -> Space:
    dimension = {"low": low, "high": high, **more}
    return Space.model_validate({"options": {"a": {"b": dimension}}})


@pytest.mark.parametrize(
    ("space", "allowed"),
    [
        (ranges(1, 3), {1, 2, 3}),
        (ranges(1, 5, step=2), {1, 3, 5}),
        (ranges(0.5, 1.0, step=0.25), {0.5, 0.75, 1.0}),
        (ranges(1, 3, log=True), {1, 2, 3}),
    ],
)
def test_numbers_are_drawn_from_their_range(
    space: Space, allowed: set[float], recipe: Recipe
) -> None:
    study = Study("sqlite://", "search", recipe, space, 0)
    drawn = [study.ask()[1]["a.b"] for _ in range(12)]
    assert len(set(drawn)) > 1 and set(drawn) <= allowed
    kind = type(next(iter(allowed)))
    assert all(type(value) is kind for value in drawn)


def results(*outcomes: Any) -> Any:
    """A workshop whose builds end like that, one after the other."""
    left = list(outcomes)

    def values(recipe: Recipe) -> dict[str, float]:
        outcome = left.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return dict.fromkeys(("latency", "size", "fidelity"), outcome)

    @contextmanager
    def opened(*_: object) -> Iterator[Any]:
        measured = dict.fromkeys(("latency", "size", "fidelity"), 1.0)
        yield SimpleNamespace(measured=measured, values=values)

    return opened


@pytest.fixture
def said() -> list[str]:
    return []


def search_of(recipe: Recipe, space: Space, said: list[str]) -> Search:
    return Search("model.py:make", recipe, space, lambda what: None, said.append)


def test_a_trial_that_fails_is_recorded_and_the_next_one_begins(
    recipe: Recipe, space: Space, said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes = (BudgetError("too far"), ZeroDivisionError("by zero"), 0.5)
    monkeypatch.setattr(searching, "workshop", results(*outcomes))
    study = study_of(tmp_path, recipe, space)
    search_of(recipe, space, said).run(study, 3)
    reasons = [one.reason for one in study.tried()]
    assert reasons == ["too far", "a bug in strop: ZeroDivisionError: by zero", ""]
    assert said == [
        "trial 0 failed: too far",
        "trial 1 failed: a bug in strop: ZeroDivisionError: by zero",
        "trial 2: latency 0.5, size 0.5, fidelity 0.5",
    ]


def test_an_interrupted_trial_is_recorded_too(
    recipe: Recipe, space: Space, said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "workshop", results(0.5, Interrupted()))
    study = study_of(tmp_path, recipe, space)
    with pytest.raises(Interrupted):
        search_of(recipe, space, said).run(study, 3)
    assert [one.reason for one in study.tried()] == ["", "it was interrupted"]


def test_a_metric_that_is_not_measured_is_told_before_the_first_trial(
    recipe: Recipe, space: Space, said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "workshop", results())
    other = space.model_copy(update={"metrics": {"fidelty": "maximize"}})
    study = study_of(tmp_path, recipe, other)
    with pytest.raises(UsageError, match="did not return 'fidelty'; did you mean 'fidelity'"):
        search_of(recipe, other, said).run(study, 1)
    assert not study.tried()


def tried(number: int, latency: float, fidelity: float, best: bool, **values: Any) -> Tried:
    measured = {"latency": latency, "size": 1e6, "fidelity": fidelity}
    return Tried(number, values, measured, "", best)


def test_the_page_shows_the_front_and_what_failed(space: Space) -> None:
    trials = [
        tried(0, 0.5, 0.9, True, a=["<b>"]),
        tried(1, 0.7, 0.8, False),
        Tried(2, {}, {}, "<script>", False),
    ]
    page = render("<recipe>", space.directions, {"latency": 1, "size": 2e6, "fidelity": 1}, trials)
    assert "<script>" not in page and "&lt;script&gt;" in page and "&lt;recipe&gt;" in page
    assert page.count("<circle") == 4 and page.count('class="best"') == 2
    front = page[page.index("<table") : page.index('id="all"')]
    assert "0.50×" in front and "0.70×" not in front and "2.0 MB" in front
    assert 'cx="0.0" cy="0.0"' in page and 'cx="600.0" cy="240.0"' in page
    only_failed = render("r", space.directions, {}, trials[2:])
    assert "<circle" not in only_failed


@pytest.mark.parametrize("objectives", [["size"], ["latency", "size"]])
def test_the_page_takes_any_objectives(objectives: list[str]) -> None:
    space = Space.model_validate({"objectives": objectives})
    page = render("r", space.directions, {}, [tried(0, 0.5, 0.9, True)])
    assert page.count("<circle") == len(objectives) - 1


def options_of(best: Path) -> Mapping[str, Any]:
    passes = tomllib.loads(best.read_text())["passes"]
    return next(entry for entry in passes if entry["name"] == "quantize")


def test_a_search_builds_records_reports_and_goes_on(
    strop: Strop, small: str, tmp_path: Path
) -> None:
    path, out = tmp_path / "space.toml", tmp_path / "out"
    path.write_text("[options.quantize]\nkeep = {choices = [['up'], ['down']]}\n")
    command = ("search", small, "--space", path, "-o", out, "--recipe", "cpu-fp32", "--pass",
               "quantize", "--before", "residuals", "--set", "budget.min_cosine=0.9", "--set",
               "budget.max_error=1")  # fmt: skip
    first = strop(*command, "--trials", 1)
    assert first.code == 0, first.err
    assert "trial 0" in first.out and "trial 1" not in first.out
    again = strop(*command, "--trials", 1)
    assert again.code == 0 and "trial 1" in again.out, again.err
    assert not interrupts._state.settled  # a signal would end the search, whatever was built
    names = {p.name for p in out.iterdir()}
    best = [out / name for name in names if name.startswith("best-")]
    assert names == {"study.db", "search.json", "report.html", *(p.name for p in best)}
    assert best and all(options_of(p)["keep"] in (["up"], ["down"]) for p in best)
    page = (out / "report.html").read_text()
    assert "<b>2</b> trials" in page
    built = strop("build", small, "-o", tmp_path / "artifact", "--recipe", best[0])
    assert built.code == 0, built.err
    assert json.loads((out / "search.json").read_text()) == {"strop_search": 1, "study": "search"}


def test_a_folder_with_other_files_is_refused(strop: Strop, small: str, tmp_path: Path) -> None:
    path, out = tmp_path / "space.toml", tmp_path / "out"
    path.write_text("[options.quantize]\nembeddings = {choices = [true]}\n")
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    result = strop("search", small, "--space", path, "-o", out)
    assert result.code == 2 and "holds files that are not a search's" in result.err
    assert [p.name for p in out.iterdir()] == ["notes.txt"]


def test_an_interrupted_search_says_how_to_go_on(
    strop: Strop, small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = tmp_path / "space.toml", tmp_path / "out"
    path.write_text("[options.quantize]\nembeddings = {choices = [true]}\n")

    monkeypatch.setattr(searching, "workshop", results(0.5, Interrupted()))
    monkeypatch.setattr("strop.compiler.cli.ending._interruption", lambda: "ended by SIGINT")
    result = strop("search", small, "--space", path, "-o", out)
    assert result.code == 1
    assert f"The study is kept in {out}: the same command goes on with it." in result.err
    assert "it was interrupted" in (out / "report.html").read_text()
