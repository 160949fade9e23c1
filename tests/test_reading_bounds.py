"""Readers of files, recipes and records: each bound from both sides, each refusal by its reason."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from strop.bench.records.figures import Spread
from strop.bench.records.record import (
    BenchCase,
    DuelRecord,
    EngineRow,
    Plan,
    Result,
    counted,
    ratios,
    spread,
)
from strop.compiler.recipes.budget import Budget
from strop.compiler.recipes.entry import PassEntry
from strop.compiler.recipes.loading import asked_recipe, load_recipe, parse_recipe, recipe_names
from strop.compiler.recipes.recipe import Recipe
from strop.compiler.recipes.text import recipe_text
from strop.compiler.util.errors import UsageError
from strop.compiler.util.files.parsing import MOST_DEPTH, parse_json, parse_toml
from strop.compiler.util.files.reading import (
    MEBIBYTE,
    file_hash,
    is_there,
    opened,
    read_bytes,
    read_json,
    read_text,
    read_toml,
    require_inside,
)

PAGE = 4096


def file_of(path: Path, size: int, stored: int) -> Path:
    """A file of a size, of which so many bytes are on the disk and the others are a hole."""
    with path.open("wb") as stream:
        stream.write(b" " * stored)
        stream.truncate(size)
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="counts the blocks of Linux's file systems")
@pytest.mark.parametrize(
    ("size", "stored", "fits"),
    [
        (64 * MEBIBYTE, 0, True),
        (64 * MEBIBYTE + 1, 0, False),
        (1000 * 20 * PAGE, 20 * PAGE, True),
        (1000 * (20 * PAGE + 1), 20 * PAGE, False),
    ],
)
def test_a_large_file_of_which_a_thousandth_is_stored_is_read(
    tmp_path: Path, size: int, stored: int, fits: bool
) -> None:
    path = file_of(tmp_path / "file", size, stored)
    assert path.stat().st_blocks * 512 == stored
    if fits:
        with opened(path, "the file") as stream:
            assert stream.read(1) in (b" ", b"\0")
    else:
        with pytest.raises(UsageError, match="is a sparse file"), opened(path, "the file"):
            pass


def test_text_is_read_up_to_its_bound(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"#" * MEBIBYTE)
    assert read_toml(path, "the file") == {}
    path.write_bytes(b"#" * (MEBIBYTE + 1))
    with pytest.raises(UsageError, match="larger than 1,048,576 bytes"):
        read_toml(path, "the file")
    file_of(path, 64 * MEBIBYTE, 128 * PAGE)
    assert len(read_bytes(path, "the file")) == 64 * MEBIBYTE
    file_of(path, 64 * MEBIBYTE + 1, 128 * PAGE)
    with pytest.raises(UsageError, match="larger than 67,108,864 bytes"):
        read_bytes(path, "the file")


def test_a_bound_that_is_given_is_kept_by_every_reader(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("{}")
    assert (read_text(path, "it", most_bytes=2), read_json(path, "it", most_bytes=2)) == ("{}", {})
    for reader in (read_text, read_json, read_toml):
        with pytest.raises(UsageError, match="larger than 1 bytes"):
            reader(path, "it", most_bytes=1)
    path.write_text("")
    assert read_toml(path, "it", most_bytes=0) == {}


def test_a_link_out_of_the_folder_is_refused_by_every_reader(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("{}")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path / "secret")
    for reader in (read_bytes, read_text, read_json, read_toml, file_hash):
        with pytest.raises(UsageError, match="leads out of"):
            reader(tmp_path / "in" / "link", "it", within=tmp_path / "in")


def test_a_file_is_opened_without_waiting_or_being_handed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = []
    real = os.open
    (tmp_path / "file").write_text("text")
    monkeypatch.setattr(os, "open", lambda path, how: (flags.append(how), real(path, how))[1])
    assert read_text(tmp_path / "file", "it") == "text"
    wanted = os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    assert flags[0] & wanted == wanted and not flags[0] & (os.O_WRONLY | os.O_RDWR)


def test_what_is_put_there_while_it_is_opened_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_text("text")
    regular = (tmp_path / "file").stat()
    monkeypatch.setattr(Path, "stat", lambda self, **_: regular)
    with pytest.raises(UsageError, match="is not a regular file"):
        read_bytes(tmp_path / "pipe", "it")


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's file of its own memory")
def test_a_file_that_fails_while_it_is_read_is_a_sentence() -> None:
    with pytest.raises(UsageError, match="the memory /proc/self/mem cannot be read: Input"):
        read_bytes(Path("/proc/self/mem"), "the memory")


def test_whether_something_is_there(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    assert is_there(tmp_path / "file") and is_there(tmp_path / "link")
    assert not is_there(tmp_path / "none") and not is_there(tmp_path / "file" / "below")
    for name in ("n" * 256, "a\0b"):
        with pytest.raises(UsageError, match="cannot be read"):
            is_there(tmp_path / name)


def test_a_loop_of_links_is_inside_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(UsageError, match="the file .* cannot be read"):
        require_inside(tmp_path / "a", "the file", tmp_path)
    require_inside(tmp_path / "none" / ".." / "x", "the file", tmp_path)
    with pytest.raises(UsageError, match="leads out of"):
        require_inside(tmp_path / ".." / "x", "the file", tmp_path)


# JSON and TOML ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("left", "right"), [("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")])
def test_json_nests_so_deep_and_no_deeper(left: str, right: str) -> None:
    each = len(left.replace('"a":', ""))
    most = MOST_DEPTH // each
    parse_json(left * most + "1" + right * most, "it")
    with pytest.raises(UsageError, match="it nests deeper than 64 levels"):
        parse_json("[" + left * most + "1" + right * most + "]", "it")


def test_toml_nests_so_deep_and_no_deeper() -> None:
    # The table of the file itself is the first level.
    parse_toml(f"{'.'.join('a' * MOST_DEPTH)}=1", "it")
    parse_toml(f"[{' . '.join('a' * (MOST_DEPTH - 1))}]", "it")
    parse_toml(f"a={'[' * (MOST_DEPTH - 1)}{']' * (MOST_DEPTH - 1)}", "it")
    for text in (
        f"{'.'.join('a' * (MOST_DEPTH + 1))}=1",
        f"[{'.'.join('a' * MOST_DEPTH)}]",
        f"a={'[' * MOST_DEPTH}{']' * MOST_DEPTH}",
        f"{'.'.join('a' * 5000)}=1",
    ):
        with pytest.raises(UsageError, match="it nests deeper than 64 levels"):
            parse_toml(text, "it")
    # Dots within strings are none of a key.
    dots = ".".join("a" * 500)
    assert parse_toml(f"a = \"{dots}\"\nb = '{dots}'", "it") == {"a": dots, "b": dots}


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (str(2**64 - 1), ""),
        (str(1 - 2**64), ""),
        (str(2**64), "has more than 64 bits"),
        (str(-(2**64)), "has more than 64 bits"),
        ("1" * 60, f"the integer {'1' * 40} has more"),
        ("1.7976931348623157e308", ""),
        ("1e309", "1e309 is larger than any number here"),
        (f"{'1' * 60}e999", f": {'1' * 40} is larger"),
        ("NaN", "NaN is no number"),
        ("-Infinity", "-Infinity is no number"),
        ('"\\ud800"', "is not JSON"),
        ('"\\ud83d\\ude00"', ""),
        ('{"b": 1, "a": 2, "a": 3}', "the key 'a' is there twice"),
    ],
)
def test_numbers_keys_and_characters_of_json(number: str, says: str) -> None:
    if says:
        with pytest.raises(UsageError) as raised:
            parse_json(number, "it")
        assert says in str(raised.value) and str(raised.value).startswith("it is not JSON")
    else:
        parse_json(number, "it")


# Recipes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "fits", "beyond"),
    [
        ("max_error", [0.0, 5.0, None], [-1e-9, True, "1"]),
        ("min_cosine", [-1.0, 1.0, None], [-1.001, 1.001]),
        ("min_agreement", [0.0, 1.0, None], [-0.001, 1.001]),
    ],
)
def test_a_budget_has_ends(key: str, fits: list[Any], beyond: list[Any]) -> None:
    for value in fits:
        made = Budget(**{key: value})
        assert getattr(made, key) == value and made.least_agreement <= 1
    for value in beyond:
        with pytest.raises(ValueError, match=key):
            Budget(**{key: value})


def test_the_least_agreement_is_given_or_follows_from_the_error() -> None:
    assert Budget().least_agreement == 0.0
    assert Budget(max_error=0.25).least_agreement == 0.75
    assert Budget(max_error=0.25, min_agreement=0.0).least_agreement == 0.0
    assert Budget(min_agreement=0.5).least_agreement == 0.5


MISTAKES: list[tuple[str, str]] = [
    ("nme = 'r'", "unknown key 'nme'; did you mean 'name'?"),
    ("name = 'r'\n[budget]\nmax_eror = 1.0", "unknown key 'max_eror'; did you mean 'max_error'?"),
    ("name = 'r'\n[budget]\nmax_error = '1'", "budget.max_error: "),
    ("name = 'r'\n[[passes]]\nnme = 'cse'", "passes.0.name: Field required"),
    ("name = 3", "it: name: "),
    ("name = 'r'\n[expect]\ncse = 'x'", "expect.cse: "),
    ("name = ", "it: "),
]


@pytest.mark.parametrize(("text", "says"), MISTAKES)
def test_a_mistake_in_a_recipe_is_told_with_its_place(text: str, says: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_recipe(text, "it")
    assert says in str(raised.value)


BASE = Recipe(name="r").insert("constants", "cse", "noops")


def steps(recipe: Recipe) -> list[str]:
    return [entry.name for entry in recipe.passes]


def test_passes_are_inserted_before_after_or_at_the_end() -> None:
    assert steps(BASE) == ["constants", "cse", "noops"]
    assert steps(BASE.insert("masks", before="cse")) == ["constants", "masks", "cse", "noops"]
    assert steps(BASE.insert("masks", after="cse")) == ["constants", "cse", "masks", "noops"]
    assert steps(BASE.insert("masks", before="constants"))[0] == "masks"
    assert steps(BASE.insert("masks", after="noops"))[-1] == "masks"
    with pytest.raises(UsageError, match="either 'before' or 'after'"):
        BASE.insert("masks", before="cse", after="cse")
    with pytest.raises(UsageError, match="the recipe has no pass 'cs'; did you mean 'cse'"):
        BASE.insert("masks", before="cs")


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("cse", "is not of the form pass.option=value"),
        ("cse=1", "is not of the form pass.option=value"),
        ("cse.option", "is not of the form pass.option=value"),
        ("nothing.option=1", "the recipe has no pass 'nothing'"),
        ("budget.max_eror=1", "--set: unknown key 'max_eror'"),
        ("expect.cse=many", "--set: expect.cse"),
        ("cse.name='x'", "pass 'cse' has no option 'name'"),
    ],
)
def test_a_setting_that_is_none_is_refused(setting: str, says: str) -> None:
    with pytest.raises(UsageError) as raised:
        BASE.override(setting)
    assert says in str(raised.value)


def test_settings_are_options_budgets_and_expectations() -> None:
    base = BASE.insert("quantize")
    made = base.override("budget.max_error=0.5", "expect.cse=3", "quantize.keep=['a']")
    assert (made.budget.max_error, made.expect, made.name) == (0.5, {"cse": 3}, "r")
    assert [entry.options for entry in made.passes] == [{}, {}, {}, {"keep": ["a"]}]
    again = made.override(
        " quantize.embeddings=false", "quantize.keep=[]", "expect.noops=0", "budget.min_cosine=0.5"
    )
    assert again.passes[3].options == {"keep": [], "embeddings": False}
    assert again.expect == {"cse": 3, "noops": 0}
    assert (again.budget.max_error, again.budget.min_cosine) == (0.5, 0.5)
    assert base.passes[3].options == {}


def test_a_recipe_is_asked_for_with_all_that_changes_it() -> None:
    first = load_recipe("cpu-fp32")
    asked = asked_recipe("cpu-fp32", ["expect.cse=0"], ["cse"], before=steps(first)[0])
    assert steps(asked) == ["cse", *steps(first)]
    assert (asked.expect, asked.target) == ({"cse": 0}, first.target)
    assert steps(asked_recipe("cpu-fp32", passes=["cse"], after=steps(first)[0]))[1] == "cse"
    assert asked_recipe("cpu-fp32", target="cpu").target == "cpu"
    for where in ({"before": "cse"}, {"after": "cse"}):
        with pytest.raises(UsageError, match="there is no --pass"):
            asked_recipe("cpu-fp32", **where)
    with pytest.raises(UsageError, match="unknown recipe 'cpu-fp3'; did you mean 'cpu-fp32'"):
        asked_recipe("cpu-fp3")
    with pytest.raises(UsageError, match="target"):
        asked_recipe("cpu-fp32", target="abacus")
    with pytest.raises(UsageError, match="unknown pass 'nopass'"):
        asked_recipe("cpu-fp32", passes=["nopass"])
    assert all(not name.endswith(".toml") for name in recipe_names())


def test_a_recipe_of_every_part_reads_back(tmp_path: Path) -> None:
    odd = 'a "b" \\ \x7f \u2028 \x00 é 😀'
    made = BASE.override("budget.max_error=1e-05", "expect.cse=3").model_copy(update={"name": odd})
    made.passes[1] = PassEntry(name="cse", words=[odd, "x"], table={"a b": 1, "c": [True]}, n=1.5)
    assert parse_recipe(recipe_text(made), "it") == made
    (tmp_path / "r.toml").write_text(recipe_text(made))
    assert load_recipe(str(tmp_path / "r.toml")) == made
    assert "[expect]" not in recipe_text(BASE)


def test_the_users_own_files_are_looked_up_and_recorded_without_their_folder() -> None:
    made = Recipe(name="r").insert("cse", "sub/mine.py:Own{id=own}")
    found = made.in_folder(Path("/home"))
    assert steps(found) == ["cse", "/home/sub/mine.py:Own"]
    assert found.files() == [Path("/home/sub/mine.py")]
    recorded = found.without_folders().values()
    assert [entry["name"] for entry in recorded["passes"]] == ["cse", "mine.py:Own"]
    assert "max_error" not in recorded["budget"]


@pytest.mark.parametrize(
    ("given", "found", "file", "recorded"),
    [
        ("own.py:f", "/home/own.py:f", "/home/own.py", "own.py:f"),
        ("../b/own.py:f", "/home/../b/own.py:f", "/home/../b/own.py", "own.py:f"),
        ("/x/own.py:f", "/x/own.py:f", "/x/own.py", "own.py:f"),
        ("hf:big#text", "hf:/home/big#text", "/home/big", "hf:big#text"),
        ("hf:/x/big", "hf:/x/big", "/x/big", "hf:big"),
    ],
)
def test_what_options_name_is_looked_up_as_passes_are(
    given: str, found: str, file: str, recorded: str
) -> None:
    recipe = (
        Recipe(name="r").insert(f"recover{{own_loss='{given}'}}", "cse").in_folder(Path("/home"))
    )
    assert recipe.passes[0].options == {"own_loss": found}
    assert recipe.files() == [Path(file)]
    assert recipe.without_folders().values()["passes"][0]["own_loss"] == recorded


def test_options_are_looked_up_from_the_folder_of_the_recipe_that_sets_them(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    path = tmp_path / "sub" / "r.toml"
    path.write_text(
        'name = "r"\nextends = "cpu-pruned-fp32"\n'
        '[options.prune-ffn]\nimportance = "own.py:f"\nshare = 0.25\n'
    )
    options = load_recipe(str(path)).passes
    (entry,) = [e for e in options if e.id == "prune-ffn"]
    assert entry.options["importance"] == str(tmp_path / "sub" / "own.py:f")
    assert entry.options["share"] == 0.25


# Records ----------------------------------------------------------------------------------------


def case_of(calm: list[list[bool]], threads: int = 1, **values: Any) -> BenchCase:
    took = [[float(i + 1) for i, _ in enumerate(bout)] for bout in calm]
    result = Result(milliseconds=spread(took), speedup=None, samples=took, fidelity=None)
    known = {"threads": threads, "sizes": {"batch": 1}, "results": {"a": result}}
    return BenchCase(**(known | {"canary_ms": took, "calm": calm, "all_count": False} | values))


def record_of(*cases: BenchCase) -> DuelRecord:
    rows = [
        EngineRow(
            name=name, subject=subject, outcome=outcome, reason=None, bytes=None, load_ms=None,
            peak_memory_bytes=None,
        )
        for name, subject, outcome in (
            ("a", True, "ran"), ("b", True, "failed"), ("c", False, "ran"), ("d", False, "missing"),
        )
    ]  # fmt: skip
    return DuelRecord(
        environment={}, plan=Plan(threads=[1]), inputs="made up", baseline=None, engines=rows,
        cases=list(cases),
    )  # fmt: skip


def test_a_record_tells_who_ran() -> None:
    record = record_of(case_of([[True]]))
    assert (record.subjects, record.peers) == (["a"], ["c"])
    assert record.engine("d").outcome == "missing"


@pytest.mark.parametrize(
    ("calm", "all_count", "quiet"),
    [
        ([[True, True, False]], False, True),
        ([[True, False], [True]], False, True),
        ([[True, True, False, False]], False, False),
        ([[True, True], [True, False, False]], False, False),
        ([[True, True, True]], True, False),
        ([[True, True, True]], False, True),
    ],
)
def test_a_machine_was_quiet_in_two_of_three_rounds(
    calm: list[list[bool]], all_count: bool, quiet: bool
) -> None:
    assert record_of(case_of(calm, all_count=all_count)).quiet == quiet
    loud = case_of([[False, True]])
    assert not record_of(case_of([[True]]), loud).quiet


def test_the_best_of_the_canary_is_that_of_its_threads() -> None:
    slow = case_of([[True]], threads=2, canary_ms=[[9.0, 8.0], [7.0]])
    record = record_of(case_of([[True]], canary_ms=[[3.0], [2.0, 5.0]]), slow)
    assert (record.canary_best(1), record.canary_best(2)) == (2.0, 7.0)


def test_rounds_that_count_are_the_calm_ones_or_all() -> None:
    calm = [[True, False], [False, True]]
    assert counted([[1.0, 2.0], [3.0, 4.0]], calm, all_count=False) == [[1.0], [4.0]]
    assert counted([[1.0, 2.0], [3.0, 4.0]], calm, all_count=True) == [[1.0, 2.0], [3.0, 4.0]]
    assert case_of(calm).counted("a") == [[1.0], [2.0]]
    assert case_of(calm, all_count=True).counted("a") == [[1.0, 2.0], [1.0, 2.0]]
    assert ratios([[2.0, 9.0], [8.0]], [[1.0, 3.0], [4.0]]) == [2.0, 3.0, 2.0]
    assert spread([[1.0, 2.0], [3.0]]) == Spread.of([1.0, 2.0, 3.0])


def test_a_case_is_called_by_its_sizes_and_threads() -> None:
    assert case_of([[True]], threads=2, sizes={"batch": 3, "seq": 4}).label == (
        "batch=3 seq=4 threads=2"
    )


@pytest.mark.parametrize(
    "values", [{"threads": "1"}, {"more": 1}, {"canary_ms": [[float("nan")]]}, {"threads": 1.0}]
)
def test_a_record_is_strict(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        case_of([[True]], **values)


def test_a_plan_has_what_it_has_by_default() -> None:
    plan = Plan(threads=[2])
    assert (plan.bouts, plan.rounds, plan.turn_seconds) == (5, 5, 0.2)
    assert (plan.timeout, plan.patience) == (300.0, 30.0)
