"""Recipes that extend others: what they fill, drop and change, and how their mistakes are told."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest
from conftest import Strop
from hypothesis import given
from hypothesis import strategies as st

from strop.compiler import load_recipe
from strop.compiler.recipes.composition import Layer, compose
from strop.compiler.recipes.loading import parse_recipe, recipe_names
from strop.compiler.recipes.recipe import Recipe
from strop.compiler.recipes.schema import read_recipe
from strop.compiler.recipes.text import recipe_text
from strop.compiler.util.errors import UsageError

BASE = """
name = "base"
[budget]
max_error = 0.5
[expect]
cse = 1
[[passes]]
name = "noops"
why = "One form."
[[passes]]
slot = "compress"
[[passes]]
name = "quantize"
keep = ["a"]
[[passes]]
slot = "quantize"
why = "For int8."
[[passes]]
name = "cse"
[[passes]]
name = "noops"
id = "again"
"""


def extended(*texts: str) -> Recipe:
    """The recipe that texts make, each of which extends the one before it."""
    files = [(f"{i}.toml", read_recipe(dedent(text), f"{i}.toml")) for i, text in enumerate(texts)]
    return compose([Layer(where, file) for where, file in files])


def child(text: str = "", *more: str) -> Recipe:
    return extended(BASE, *(f'name = "child"\nextends = "x"\n{t}' for t in (text, *more)))


def ids(recipe: Recipe) -> list[str]:
    return [step.name for step in recipe.pipeline().steps]


def slot(name: str, *passes: str) -> str:
    return "".join(f'[[slots.{name}]]\nname = "{one}"\n' for one in passes)


def test_a_recipe_takes_over_what_it_does_not_say() -> None:
    made = child()
    assert ids(made) == ["noops", "quantize", "cse", "again"]
    assert (made.name, made.target, made.budget.max_error) == ("child", "cpu", 0.5)
    assert made.expect == {"cse": 1}
    assert made.passes[0].why == "One form."
    assert made.passes[1].options == {"keep": ["a"]}


def test_a_budget_and_expectations_replace_those_of_the_base_as_a_whole() -> None:
    made = child("[budget]\nmin_cosine = 0.5\n[expect]\n")
    assert made.budget.values() == {"min_cosine": 0.5}
    assert made.expect == {}
    assert child("[budget]").budget.values() == {}


def test_the_target_is_the_last_that_is_named() -> None:
    assert child('target = "a"', "").target == "a"
    assert child('target = "a"', 'target = "b"').target == "b"


def test_a_slot_is_filled_at_its_place_and_stays_open_for_the_next_recipe() -> None:
    assert ids(child(slot("compress", "masks", "norms")))[:3] == ["noops", "masks", "norms"]
    both = child(slot("quantize", "masks"), slot("quantize", "norms") + slot("compress", "linears"))
    assert ids(both) == ["noops", "linears", "quantize", "masks", "norms", "cse", "again"]


def test_a_recipe_may_bring_slots_of_its_own() -> None:
    inner = '[[slots.compress]]\nslot = "inner"\n' + slot("compress", "masks")
    assert ids(child(inner, slot("inner", "norms")))[:3] == ["noops", "norms", "masks"]


def test_a_pass_is_dropped_and_its_place_filled_anew() -> None:
    assert ids(child('without = ["quantize", "again"]')) == ["noops", "cse"]
    renewed = child('without = ["quantize"]\n' + slot("quantize", "quantize"))
    assert ids(renewed) == ["noops", "quantize", "cse", "again"]
    assert renewed.passes[1].options == {}


def test_options_of_a_pass_are_changed_by_its_id() -> None:
    made = child("[options.quantize]\nembeddings = false")
    assert made.passes[1].options == {"keep": ["a"], "embeddings": False}
    assert child("[options.quantize]\nkeep = []").passes[1].options == {"keep": []}


def test_ids_of_the_base_stay_whatever_is_put_before_them() -> None:
    flat = 'name = "b"\n[[passes]]\nslot = "s"\n' + 2 * '[[passes]]\nname = "cse"\n'
    filled = 'name = "c"\nextends = "b"\n' + slot("s", "cse", "noops")
    made = extended(flat, filled, 'name = "d"\nextends = "c"\nwithout = ["cse"]')
    assert ids(extended(flat, filled)) == ["cse-3", "noops", "cse", "cse-2"]
    assert ids(made) == ["cse-3", "noops", "cse-2"]
    assert parse_recipe(recipe_text(made), "text") == made


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (slot("quantise", "cse"), "'0.toml' has no slot 'quantise'; did you mean 'quantize'?"),
        ('without = ["quantise"]', "'0.toml' has no pass 'quantise'; did you mean 'quantize'?"),
        ('without = ["cse", "cse"]\n[options.cse]', "'0.toml' has no pass 'cse'"),
        ("[options.agian]\nx = 1", "'0.toml' has no pass 'agian'; did you mean 'again'?"),
        ("[options.quantize]\nid = 'x'", "pass 'quantize' has no option 'id'"),
        ("[options.again]\nname = 'x'", "pass 'again' has no option 'name'"),
        (
            '[[slots.compress]]\nname = "masks"\nid = "again"',
            "1.toml: two passes have the id 'again'",
        ),
        (
            2 * '[[slots.compress]]\nname = "masks"\nid = "m"\n',
            "1.toml: two passes have the id 'm'",
        ),
        ('[[slots.compress]]\nslot = "quantize"', "1.toml: the slot 'quantize' is there 2 times"),
        ('[[slots.compress]]\nslot = "a"\n' * 2, "1.toml: the slot 'a' is there 2 times"),
        ('[[passes]]\nname = "cse"', "1.toml: a recipe that extends another has no [[passes]]"),
        ("[[slots.compress]]\nnme = 'x'", "slots.compress.0.name: Field required"),
        ("[[slots.compress]]\nslot = 'x'\nwy = ''", "unknown key 'wy'; did you mean 'why'?"),
        ("[[slots.compress]]\nslot = ''", "slots.compress.0.slot: "),
        ("extend = 'x'", "unknown key 'extend'; did you mean 'extends'?"),
    ],
)
def test_a_mistake_in_a_recipe_that_extends_another_is_told(text: str, says: str) -> None:
    with pytest.raises(UsageError) as raised:
        child(text)
    assert says in str(raised.value)


def test_a_recipe_without_slots_or_passes_has_none_to_name() -> None:
    empty = 'name = "b"'
    for text, says in ((slot("s", "cse"), "no slot at all"), ('without = ["x"]', "no pass at all")):
        with pytest.raises(UsageError, match=says):
            extended(empty, f'name = "c"\nextends = "b"\n{text}')


@pytest.mark.parametrize("text", ['without = ["cse"]', "[options.cse]\nx = 1", slot("s", "cse")])
def test_what_changes_another_recipe_must_say_which(text: str) -> None:
    with pytest.raises(UsageError, match='say which: extends = "..."'):
        extended(f'name = "r"\n{text}')


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (2 * '[[passes]]\nname = "cse"\nid = "x"\n', "two passes have the id 'x'"),
        (
            '[[passes]]\nname = "cse"\n[[passes]]\nname = "noops"\nid = "cse"',
            "two passes have the id 'cse'",
        ),
        ('[[passes]]\nname = "cse"\nid = "a.b"', "passes.0.id: the id 'a.b' must be of letters"),
        ('[[passes]]\nname = "cse"\nid = "budget"', "passes.0.id: 'budget' cannot be the id"),
        (2 * '[[passes]]\nslot = "x"\n', "the slot 'x' is there 2 times"),
        ("passes = [3]", "passes.0: Input should be a valid dictionary"),
    ],
)
def test_a_mistake_in_ids_and_slots_is_told(text: str, says: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_recipe(f'name = "r"\n{text}', "it").pipeline()
    assert says in str(raised.value)


def test_slots_are_no_passes_and_are_not_in_a_flat_recipe() -> None:
    made = parse_recipe(BASE, "it")
    assert [entry.name for entry in made.passes] == ["noops", "quantize", "cse", "noops"]
    assert "slot" not in recipe_text(made)


NAMES = st.sampled_from(["noops", "cse", "constants", "norms"])
BASES = st.lists(NAMES | st.just("-"), max_size=8)


@given(BASES, st.lists(st.lists(NAMES, max_size=3), min_size=1, max_size=3), st.data())
def test_whatever_is_filled_in_the_ids_of_the_base_stay(
    base: list[str], filled: list[list[str]], data: st.DataObject
) -> None:
    """A dash is a slot; each list of names fills one of them, in a recipe of its own."""
    lines = [
        f'[[passes]]\nslot = "s{9 - i}"' if name == "-" else f'[[passes]]\nname = "{name}"'
        for i, name in enumerate(base)
    ]
    places = [i for i, name in enumerate(base) if name == "-"]
    texts = ["\n".join(['name = "base"', *lines])]
    made = ids(extended(*texts))
    for names in filled if places else []:
        place = data.draw(st.sampled_from(places))
        texts.append(f'name = "c"\nextends = "x"\n{slot(f"s{9 - place}", *names)}')
        before, recipe = made, extended(*texts)
        made = ids(recipe)
        assert [one for one in made if one in before] == before
        assert len(made) == len(before) + len(names) == len(set(made))
        assert parse_recipe(recipe_text(recipe), "text") == recipe
        assert ids(recipe.insert("cse"))[:-1] == made


# Files ------------------------------------------------------------------------------------------

MINE = """
from strop.compiler import Pass
class Mine(Pass):
    name = "{name}"
    def apply(self, program, log): pass
"""


def write(folder: Path, **recipes: str) -> None:
    folder.mkdir(exist_ok=True)
    for name, text in recipes.items():
        (folder / f"{name}.toml").write_text(f'name = "{name}"\n{text}')


def test_files_are_found_from_the_folder_of_the_recipe_that_names_them(tmp_path: Path) -> None:
    above, below = tmp_path / "above", tmp_path / "below"
    write(above, base='[[passes]]\nname = "mine.py:Mine"\n[[passes]]\nslot = "s"')
    write(below, top='extends = "../above/base.toml"\n' + slot("s", "mine.py:Mine"))
    (above / "mine.py").write_text(MINE.format(name="upper"))
    (below / "mine.py").write_text(MINE.format(name="lower"))
    assert ids(load_recipe(str(below / "top.toml"))) == ["upper", "lower"]


def test_each_recipe_of_a_chain_names_its_base_from_its_own_folder(tmp_path: Path) -> None:
    write(tmp_path, base='[[passes]]\nname = "cse"')
    write(tmp_path / "in", middle='extends = "../base.toml"')
    write(tmp_path / "top", top='extends = "../in/middle.toml"')
    assert ids(load_recipe(str(tmp_path / "top" / "top.toml"))) == ["cse"]
    write(tmp_path / "in", middle='extends = "beside.toml"', beside='[[passes]]\nname = "noops"')
    assert ids(load_recipe(str(tmp_path / "top" / "top.toml"))) == ["noops"]


def test_a_users_pass_of_a_name_that_is_taken_gets_a_number(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE.format(name="cse"))
    write(tmp_path, top='extends = "cpu-fp32"\n' + slot("compress", "mine.py:Mine"))
    made = ids(load_recipe(str(tmp_path / "top.toml")))
    assert made[made.index("linears") + 1] == "cse-2"
    assert [one for one in made if one != "cse-2"] == ids(load_recipe("cpu-fp32"))


def test_an_absolute_path_and_a_long_chain_are_read(tmp_path: Path) -> None:
    write(tmp_path, r0='extends = "cpu-fp32"')
    write(tmp_path, **{f"r{i}": f'extends = "{tmp_path}/r{i - 1}.toml"' for i in range(1, 1200)})
    made = load_recipe(str(tmp_path / "r1199.toml"))
    assert (made.name, ids(made)) == ("r1199", ids(load_recipe("cpu-fp32")))


@pytest.mark.parametrize(
    ("recipes", "says"),
    [
        ({"a": 'extends = "a.toml"'}, "a.toml extends itself"),
        ({"a": 'extends = "../f/a.toml"'}, "a.toml extends itself"),
        (
            {"a": 'extends = "b.toml"', "b": 'extends = "./a.toml"'},
            "a.toml extends itself, by way of",
        ),
        (
            {"a": 'extends = "b.toml"', "b": 'extends = "c.toml"', "c": 'extends = "b.toml"'},
            "b.toml extends itself, by way of",
        ),
        (
            {"a": 'extends = "cpu-fp23"'},
            "a.toml extends 'cpu-fp23', which is not a recipe; did you mean 'cpu-fp32'?",
        ),
        (
            {"a": 'extends = "bsae.toml"', "base": ""},
            "extends 'bsae.toml', which is not a recipe; did you mean 'base.toml'?",
        ),
        (
            {"a": 'extends = "base"', "base": ""},
            "extends 'base', which is not a recipe; did you mean 'base.toml'?",
        ),
        (
            {"a": 'extends = "aa.toml"'},
            "extends 'aa.toml', which is not a recipe; known: cpu-fp32, cpu-int4",
        ),
        ({"a": 'extends = ""'}, "a.toml extends '', which is not a recipe; known: "),
        ({"a": 'extends = "b.toml"', "b": "x = 1"}, "b.toml: unknown key 'x'"),
        ({"a": "extends = 3"}, "a.toml: extends: "),
    ],
)
def test_a_base_that_cannot_be_read_is_told(
    strop: Strop, tmp_path: Path, recipes: dict[str, str], says: str
) -> None:
    write(tmp_path / "f", **recipes)
    result = strop("build", "--print-recipe", "--recipe", tmp_path / "f" / "a.toml")
    assert (result.code, says in result.err) == (2, True), result.err


def test_a_link_to_itself_is_a_circle_too(tmp_path: Path) -> None:
    write(tmp_path, a='extends = "b.toml"')
    (tmp_path / "b.toml").symlink_to("a.toml")
    with pytest.raises(UsageError, match=r"a.toml extends itself"):
        load_recipe(str(tmp_path / "a.toml"))


def test_a_text_that_stands_alone_extends_nothing() -> None:
    with pytest.raises(UsageError, match="a recipe that extends another cannot stand here"):
        parse_recipe('name = "r"\nextends = "cpu-fp32"', "bundle")


# Built-in recipes -------------------------------------------------------------------------------


def test_int8_is_float_with_four_passes_more_and_one_less() -> None:
    whole, int8 = ids(load_recipe("cpu-fp32")), ids(load_recipe("cpu-int8"))
    place = whole.index("residuals")
    assert [i for i in whole if i != "biases"] == [i for i in int8 if i in whole]
    assert int8[place : place + 4] == ["outliers", "smooth", "packed", "quantize"]


@pytest.mark.parametrize("name", recipe_names())
def test_ids_of_a_built_in_recipe_are_written_where_a_pass_repeats(name: str) -> None:
    made = load_recipe(name)
    seen = [entry.name for entry in made.passes if not entry.id]
    assert len(set(seen)) == len(seen)
    assert ids(made) == [entry.id or entry.name for entry in made.passes]


PRUNED = "[budget]\nmin_cosine = 0.9\n" + slot("compress", "mine.py:Mine")
LATER = {
    "int8-keeping": 'extends = "cpu-int8"\n[options.quantize]\nkeep = ["lm_head"]',
    "int8-plain": 'extends = "cpu-int8"\nwithout = ["packed"]',
    "int4": 'extends = "cpu-fp32"\n' + slot("quantize", "mine.py:Mine"),
    "pruned": f'extends = "cpu-fp32"\n{PRUNED}',
    "pruned-int8": f'extends = "cpu-int8"\n{PRUNED}',
    "both": 'extends = "pruned.toml"\nwithout = ["biases"]\n' + slot("quantize", "quantize"),
}


@pytest.mark.parametrize("name", LATER)
def test_a_recipe_of_a_kind_still_to_come_is_a_few_lines(name: str, tmp_path: Path) -> None:
    write(tmp_path, **LATER)
    (tmp_path / "mine.py").write_text(MINE.format(name="mine"))
    made = load_recipe(str(tmp_path / f"{name}.toml"))
    assert ("mine" in ids(made)) == ("mine.py" in LATER[name] or name == "both")
    assert parse_recipe(recipe_text(made), "text") == made
