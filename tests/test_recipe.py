"""Recipes: read, written, changed, and what of it all is refused."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, make_dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.fx.node import Node

from strop.compiler import Pass, Program, Rule, load_recipe
from strop.compiler.ir.builder import Builder
from strop.compiler.recipes.budget import Budget
from strop.compiler.recipes.entry import PassEntry
from strop.compiler.recipes.loading import parse_recipe, recipe_names
from strop.compiler.recipes.recipe import Recipe
from strop.compiler.recipes.registry import RESERVED, pass_classes
from strop.compiler.recipes.syntax import parse_pass, parse_value
from strop.compiler.recipes.text import recipe_text
from strop.compiler.rewriting.pattern import Match
from strop.compiler.rewriting.rules import Log
from strop.compiler.util.errors import UsageError

WORDS = st.from_regex(r"[a-z][a-z_]{0,8}", fullmatch=True).filter(lambda w: w not in RESERVED)
VALUES = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"])),
)
OPTIONS = st.dictionaries(
    WORDS, st.one_of(VALUES, st.lists(VALUES), st.dictionaries(WORDS, VALUES))
)


@dataclass(frozen=True)
class Nothing(Pass):
    """A pass that does nothing, however often."""

    name = "nothing"
    times: int = 1

    def apply(self, program: Program, log: Log) -> None:
        pass


class Never(Rule):
    """A rule that looks at no operator."""

    name = "never"
    roots = ()

    def targets(self) -> tuple[()]:
        return ()

    def rewrite(self, match: Match, build: Builder) -> Node | None:
        raise AssertionError


def names(recipe: Recipe) -> list[str]:
    return [step.name for step in recipe.pipeline().steps]


@pytest.mark.parametrize("name", recipe_names())
def test_a_built_in_recipe_reads_back_as_it_was_written(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.passes
    assert parse_recipe(recipe_text(recipe), "text") == recipe
    assert names(recipe)


def test_every_pass_that_comes_with_strop_has_a_name_of_its_own_and_a_docstring() -> None:
    for name, kind in pass_classes().items():
        assert kind.name == name
        assert (kind.__doc__ or "").strip()
    assert len({kind.name for kind in pass_classes().values()}) == len(pass_classes())


@given(st.text(st.characters(exclude_categories=["Cs"])), st.lists(OPTIONS, max_size=3))
def test_any_recipe_reads_back_as_it_was_written(
    name: str, options: list[dict[str, object]]
) -> None:
    passes = [PassEntry.model_validate({"name": "cse", **one}) for one in options]
    recipe = Recipe(name=name, budget=Budget(max_error=1e-05), passes=passes)
    again = tomllib.loads(recipe_text(recipe))
    assert again["name"] == name
    assert [{**one, "name": "cse"} for one in options] == again.get("passes", [])


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("p", {}),
        ("p{}", {}),
        (" p { } ", {}),
        ("p{a=1}", {"a": 1}),
        ("p{a=1,b=0.5}", {"a": 1, "b": 0.5}),
        (
            "p{scheme=w8a8-dynamic, keep=[\"x, y\",'z']}",
            {"scheme": "w8a8-dynamic", "keep": ["x, y", "z"]},
        ),
        ('p{a="b,c=d",e=true}', {"a": "b,c=d", "e": True}),
        ("p{a={x = 1, y = 2},b=1e-4}", {"a": {"x": 1, "y": 2}, "b": 1e-4}),
    ],
)
def test_a_pass_on_the_command_line_takes_toml_values_and_bare_words(
    text: str, options: dict[str, object]
) -> None:
    entry = parse_pass(text)
    assert (entry.name, entry.options) == ("p", options)


@pytest.mark.parametrize("text", ["", "{a=1}", "p{a=1", "p}", "p{a}", "p{a=[1}", 'p{a="b}', "p{,}"])
def test_a_malformed_pass_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not of the form"):
        parse_pass(text)


def test_a_value_that_is_not_toml_is_a_word() -> None:
    assert [parse_value(t) for t in ("1", "1.5", "true", "w8a8", " a b ")] == [
        1,
        1.5,
        True,
        "w8a8",
        "a b",
    ]


def test_passes_are_inserted_in_the_order_given_at_one_place() -> None:
    recipe = Recipe(name="r", passes=[PassEntry(name=n) for n in ("noops", "masks", "cse")])
    assert names(recipe.insert("constants", "norms")) == [
        "noops",
        "masks",
        "cse",
        "constants",
        "norms",
    ]
    assert names(recipe.insert("constants", "norms", after="noops"))[1:3] == ["constants", "norms"]
    assert names(recipe.insert("constants", "norms", before="cse"))[2:4] == ["constants", "norms"]
    assert names(recipe) == ["noops", "masks", "cse"]


def test_a_repeated_pass_is_addressed_by_the_number_of_its_step() -> None:
    recipe = Recipe(name="r").insert(Nothing(), "cse", Nothing())
    assert names(recipe) == ["nothing", "cse", "nothing-2"]
    assert names(recipe.insert("noops", after="nothing-2"))[-1] == "noops"
    changed = recipe.override("nothing-2.times=5")
    assert [e.options.get("times") for e in changed.passes] == [1, None, 5]
    assert [e.options.get("times") for e in recipe.passes] == [1, None, 1]


def test_a_pass_made_in_python_stands_in_a_recipe_with_its_options() -> None:
    recipe = Recipe(name="r").insert(Nothing(times=3), Nothing, Never(), Never)
    steps = recipe.pipeline().steps
    assert [s.name for s in steps] == ["nothing", "nothing-2", "Never", "Never-2"]
    assert [s.run.options().get("times") for s in steps] == [3, 1, None, None]
    assert recipe.override("nothing.times=4").pipeline().steps[0].run.options() == {"times": 4}


def test_a_recipe_with_a_pass_made_in_python_reads_back_from_its_file() -> None:
    recipe = Recipe(name="r").insert(Nothing(times=3))
    again = parse_recipe(recipe_text(recipe), "text")
    assert again.passes[0].name == f"{Path(__file__).resolve()}:Nothing"
    assert again.pipeline().steps[0].run.options() == {"times": 3}


def test_a_manifest_names_a_users_file_without_its_folder() -> None:
    recipe = Recipe(name="r").insert(Nothing(times=3))
    assert recipe.without_folders().values()["passes"] == [
        {"name": "test_recipe.py:Nothing", "times": 3}
    ]


def test_a_recipe_file_finds_a_pass_beside_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "mine.py").write_text(
        "from strop.compiler import Pass\n"
        "class Mine(Pass):\n"
        "    name = 'mine'\n"
        "    def apply(self, program, log): pass\n"
    )
    (tmp_path / "recipes" / "r.toml").write_text('name = "r"\n[[passes]]\nname = "mine.py:Mine"')
    monkeypatch.chdir(tmp_path)
    assert names(load_recipe("recipes/r.toml")) == ["mine"]


def test_settings_change_budgets_and_options() -> None:
    recipe = load_recipe("cpu-int8").override("budget.max_error=0.5", "quantize.keep=['a']")
    assert recipe.budget.max_error == 0.5
    assert recipe.budget.min_cosine == load_recipe("cpu-int8").budget.min_cosine
    assert [e.options for e in recipe.passes if e.name == "quantize"] == [{"keep": ["a"]}]


def test_ids_do_not_shift_when_a_pass_is_inserted() -> None:
    recipe = load_recipe("cpu-fp32")
    for place in names(recipe):
        made = recipe.insert("noops", "cse{id=mine}", "noops", before=place)
        assert [n for n in names(made) if n not in ("noops-2", "noops-3", "mine")] == names(recipe)
        at = names(made).index(place)
        assert names(made)[at - 3 : at] == ["noops-2", "mine", "noops-3"]
        assert parse_recipe(recipe_text(made), "text") == made


def test_ids_that_are_numbers_of_repeats_are_kept_too() -> None:
    flat = Recipe(name="r", passes=[PassEntry(name="cse"), PassEntry(name="cse")])
    made = flat.insert("cse", before="cse").insert("cse", after="cse-2")
    assert names(made) == ["cse-3", "cse", "cse-2", "cse-4"]
    assert made.override("expect.cse-4=1").expect == {"cse-4": 1}


def test_an_id_that_is_taken_is_refused() -> None:
    for text in ("cse{id=noops-after-attention}", "cse{id=attention}"):
        with pytest.raises(UsageError, match="two passes have the id"):
            load_recipe("cpu-fp32").insert(text)
    with pytest.raises(UsageError, match="two passes have the id 'x'"):
        Recipe(name="r").insert("cse{id=x}", "noops{id=x}")


def test_reasons_are_data() -> None:
    recipe = Recipe(name="r").insert("cse{why='It is \"first\"'}")
    assert recipe.passes[0].why == 'It is "first"'
    assert parse_recipe(recipe_text(recipe), "text") == recipe
    assert recipe.values()["passes"] == [{"name": "cse", "why": 'It is "first"'}]
    assert recipe.passes[0].options == {}


@pytest.mark.parametrize("key", [key for key in RESERVED if key != "name"])
def test_an_option_that_recipes_cannot_write_is_refused(key: str) -> None:
    kind = make_dataclass("Odd", [(key, int, 1)], bases=(Nothing,), frozen=True)
    with pytest.raises(UsageError, match=f"has an option '{key}', which recipes use; rename it"):
        Recipe(name="r").insert(kind)


def test_a_value_of_none_is_left_to_its_default() -> None:
    kind = make_dataclass("Maybe", [("most", int | None, None)], bases=(Nothing,), frozen=True)
    recipe = Recipe(name="r").insert(kind())
    assert "most" in recipe.passes[0].options
    assert "most" not in recipe_text(recipe)


class Late(Nothing):
    """Needs another pass before it."""

    name = "late"
    after = ("cse",)


class Early(Nothing):
    """Must precede another."""

    name = "early"
    before = ("cse", "nowhere")


def test_a_pass_that_needs_another_before_it_says_so() -> None:
    with pytest.raises(UsageError, match="'late' needs 'cse' before it; the recipe has it nowhere"):
        Recipe(name="r").insert(Late()).pipeline()
    with pytest.raises(UsageError, match="'late' needs 'cse' before it; the recipe has it later"):
        Recipe(name="r").insert("noops", Late(), "cse").pipeline()
    assert names(Recipe(name="r").insert("cse", Late(), "cse")) == ["cse", "late", "cse-2"]


def test_a_pass_that_must_precede_another_says_so() -> None:
    with pytest.raises(UsageError, match="'early' must come before 'cse'; the recipe has it after"):
        Recipe(name="r").insert("cse", "noops", Early()).pipeline()
    assert names(Recipe(name="r").insert(Early(), "cse", Early())) == ["early", "cse", "early-2"]
    assert names(Recipe(name="r").insert(Early())) == ["early"]


def test_an_order_is_told_by_the_id_of_the_step() -> None:
    with pytest.raises(UsageError, match="pass 'early-2' must come before 'cse'"):
        Recipe(name="r").insert("noops{id=early}", "cse", Early()).pipeline()


@pytest.mark.parametrize("word", ["after", "before"])
def test_an_order_that_is_no_tuple_is_refused(word: str) -> None:
    kind = type("Wrong", (Nothing,), {"name": "wrong", word: "cse", "__module__": __name__})
    with pytest.raises(UsageError, match="'after' and 'before' are tuples of pass names"):
        Recipe(name="r").insert("cse", kind).pipeline()


@pytest.mark.parametrize(
    ("passes", "says"),
    [
        (["attention", "quantize", "packed"], "'packed' must come before 'quantize'"),
        (["bias-gelu", "quantize"], "'quantize' must come before 'bias-gelu'"),
        (["residuals", "bias-gelu", "biases"], "'biases' must come before 'bias-gelu'"),
        (["attention", "rotary"], "'rotary' must come before 'attention'"),
        (["conv-pads", "conv-bn"], "'conv-bn' must come before 'conv-pads'"),
        (["dtypes", "complex"], "'complex' must come before 'dtypes'"),
        (["packed", "attention"], "'packed' needs 'attention' before it"),
        (["biases", "residuals"], "'biases' needs 'residuals' before it"),
    ],
)
def test_passes_that_come_with_strop_hold_their_order(passes: list[str], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Recipe(name="r").insert(*passes).pipeline()
