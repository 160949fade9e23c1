"""Crash bundles, written and read in this process."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from program_tools import program_of
from staging_tools import content, fill

from strop.compiler.driver.bundle import (
    BUNDLE,
    PACKAGES,
    SMALL,
    Failure,
    fails,
    read_bundle,
    replace_program,
    require_bundle_place,
    without_weights,
    write_bundle,
)
from strop.compiler.ir.program import Program
from strop.compiler.ir.snapshots.reader import load_inputs, load_program
from strop.compiler.recipes.recipe import Recipe
from strop.compiler.rewriting.passes import Pass, Step
from strop.compiler.rewriting.rules import Log
from strop.compiler.util.errors import UsageError, VerifyError
from strop.compiler.util.files.holdings import holdings
from strop.passes.quantize.dynamic import QuantizeDynamic

LARGE, LEFT = torch.zeros(SMALL + 1), torch.zeros(SMALL)
X = torch.ones(3)


@dataclass(frozen=True)
class Breaks(Pass):
    """Fails, and only on weights that are zero if asked to."""

    name = "breaks"
    on_zeros: bool = False
    note: str | None = None

    def apply(self, program: Program, log: Log) -> None:
        zero = all(not weight.any() for weight in program.weights.values())
        if zero or not self.on_zeros:
            raise ValueError(f"of {len(program.weights)} weights")
        raise TypeError("another one")


def program() -> Program:
    def function(x: Any, large: Any, left: Any) -> Any:
        return x * large[:3] + left[:3]

    return program_of(function, X, large=LARGE, left=LEFT)


def written(folder: Path, run: Pass, **of: Program) -> tuple[Path, ValueError]:
    """Write a bundle beside ``folder/out``; returns it, and the error with its notes."""
    made = of.get("program") or program()
    recipe = Recipe(name="r").insert("cse", "/home/me/mine.py:Own{id=own}")
    try:
        run.run(made)
    except ValueError as error:
        write_bundle(error, (Step("breaks-2", run), made), {"input_0": X}, recipe, folder / "out")
        return folder / "out.crash", error
    raise AssertionError("the pass does not fail")


def test_a_failure_is_that_of_the_innermost_frame() -> None:
    with pytest.raises(ValueError, match="weights") as raised:
        Breaks().run(program())
    inner = Failure.of(raised.value)
    assert inner == Failure("ValueError", "of 2 weights", "test_bundle.py:apply")
    wrapped = UsageError("in other words")
    wrapped.__cause__ = raised.value
    assert Failure.of(wrapped) == inner
    foreign = KeyError("key")
    foreign.__cause__ = raised.value
    assert Failure.of(foreign) == Failure("KeyError", "'key'", "")
    assert Failure.of(VerifyError("alone")) == Failure("VerifyError", "alone", "")


def test_failures_are_one_where_kind_and_place_are() -> None:
    one = Failure("ValueError", "of 2", "a.py:f")
    assert one.same_as(Failure("ValueError", "of 3", "a.py:f"))
    assert not one.same_as(Failure("TypeError", "of 2", "a.py:f"))
    assert not one.same_as(Failure("ValueError", "of 2", "a.py:g"))


def test_large_float_weights_are_noise_in_a_bundle(tmp_path: Path) -> None:
    folder, error = written(tmp_path, Breaks())
    names = {"crash.json", "program.json", "program.txt", "pass.toml", "recipe.toml"}
    found = set(content_names(folder))
    assert {n for n in found if not n.startswith("weights/")} == names | {"inputs.safetensors"}
    crash = json.loads((folder / "crash.json").read_text())
    assert crash["files"] == sorted(found - {"crash.json"})
    assert (crash["strop_crash"], crash["pass"], crash["seed"]) == (1, "breaks-2", 0)
    assert crash["error"] == {
        "kind": "ValueError", "message": "of 2 weights", "place": "test_bundle.py:apply",
    }  # fmt: skip
    assert set(crash["versions"]) == {*PACKAGES, "python"}
    (said,) = error.__notes__
    assert said == f"to see it again: strop debug replay {folder} --pass {__file__}:Breaks"
    read = load_program(folder / "program.json")
    sizes = {w.numel(): bool(w.any()) for w in read.weights.values()}
    assert sizes == {SMALL: False, SMALL + 1: True}
    assert torch.equal(load_inputs(folder, read)["input_0"], X)
    assert 'name = "mine.py:Own"' in (folder / "recipe.toml").read_text()
    assert str(read) == (folder / "program.txt").read_text()
    assert holdings(folder, BUNDLE).foreign == []


def content_names(folder: Path) -> list[str]:
    return [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]


def test_weights_that_the_crash_needs_are_kept(tmp_path: Path) -> None:
    folder, _ = written(tmp_path, Breaks(on_zeros=True))
    assert not any(w.any() for w in load_program(folder / "program.json").weights.values())


def test_noise_is_the_same_each_time_and_of_the_same_kind() -> None:
    made = program()
    made.weights["half"] = torch.zeros(70, 70, dtype=torch.float16)
    made.weights["whole"] = torch.zeros(70, 70, dtype=torch.int64)
    first, second = without_weights(made), without_weights(made)
    for name, weight in made.weights.items():
        kept = weight.numel() <= SMALL or not weight.is_floating_point()
        assert torch.equal(first.weights[name], second.weights[name])
        assert (first.weights[name] is weight) == kept
        assert type(first.weights[name]) is type(weight)
        assert (first.weights[name].shape, first.weights[name].dtype) == (
            weight.shape,
            weight.dtype,
        )
    assert not made.weights["half"].any()


def test_a_bundle_that_cannot_be_written_is_a_note(tmp_path: Path) -> None:
    fill(tmp_path / "out.crash", {"thesis": "mine"})
    _, error = written(tmp_path, Breaks())
    (said,) = error.__notes__
    assert said.startswith("no crash bundle was written: ") and "holds 'thesis'" in said
    assert content(tmp_path / "out.crash") == {"thesis": "mine"}
    with pytest.raises(UsageError, match="is not a crash bundle"):
        require_bundle_place(tmp_path / "out.crash")


def test_a_bundle_replaces_the_one_before_it(tmp_path: Path) -> None:
    folder, _ = written(tmp_path, Breaks(on_zeros=True))
    before = set(content_names(folder))
    written(tmp_path, Breaks())
    assert set(content_names(folder)) != before
    assert holdings(folder, BUNDLE).foreign == []
    require_bundle_place(folder)


def test_the_pass_of_a_bundle_is_strops_or_the_one_that_the_user_names(tmp_path: Path) -> None:
    folder, _ = written(tmp_path, Breaks(note="a"))
    read = read_bundle(folder)
    assert (read.step, read.program) == ("breaks-2", folder / "program.json")
    assert read.failure == Failure("ValueError", "of 2 weights", "test_bundle.py:apply")
    with pytest.raises(UsageError, match=r"is test_bundle.py:Breaks, which is not strop's"):
        read.run_pass()
    mine = read.run_pass(f"{__file__}:Breaks")
    assert (mine.name, mine.options()["note"], mine.options()["on_zeros"]) == ("breaks", "a", False)
    again = fails(mine, load_program(read.program))
    assert again is not None and again.same_as(read.failure)
    one = 'name = "quantize"\nkeep = ["inner.left"]'
    (folder / "pass.toml").write_text(f'name = "x"\n[[passes]]\n{one}')
    made = read_bundle(folder).run_pass()
    assert isinstance(made, QuantizeDynamic) and fails(made, program()) is None
    for passes in (0, 2):
        (folder / "pass.toml").write_text('name = "x"\n' + '[[passes]]\nname = "cse"\n' * passes)
        with pytest.raises(UsageError, match=f"names {passes} passes; a bundle has one"):
            read_bundle(folder).run_pass()


def test_options_that_are_none_are_left_to_their_default(tmp_path: Path) -> None:
    folder, error = written(tmp_path, Breaks())
    text = (folder / "pass.toml").read_text()
    assert "note" not in text and "on_zeros = false" in text
    assert error.__notes__


def test_a_bundle_with_another_program_keeps_what_is_said_of_the_failure(tmp_path: Path) -> None:
    folder, _ = written(tmp_path, Breaks())
    small = program_of(lambda a: a + 1, X)
    replace_program(read_bundle(folder), small, tmp_path / "small")
    read = read_bundle(tmp_path / "small")
    assert (read.step, read.failure) == ("breaks-2", read_bundle(folder).failure)
    assert str(load_program(read.program)) == str(small)
    assert set(content_names(tmp_path / "small")) == {
        "crash.json", "program.json", "program.txt", "pass.toml", "recipe.toml",
    }  # fmt: skip
    assert holdings(tmp_path / "small", BUNDLE).foreign == []
    for name in ("pass.toml", "recipe.toml"):
        assert (tmp_path / "small" / name).read_text() == (folder / name).read_text()


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is not a crash bundle: it has no crash.json"):
        read_bundle(tmp_path)
    assert BUNDLE.named(tmp_path) is None
    (tmp_path / "crash.json").write_text('{"strop_crash": 1, "pass": 3}')
    with pytest.raises(UsageError, match=r"crash.json is damaged at 'pass'"):
        read_bundle(tmp_path)
    assert BUNDLE.named(tmp_path) is None
    error = {"kind": "a", "message": "b", "place": "c"}
    values = {"strop_crash": 1, "pass": "p", "error": error, "more": 1}
    (tmp_path / "crash.json").write_text(json.dumps(values))
    assert read_bundle(tmp_path).failure == Failure("a", "b", "c")
    assert BUNDLE.named(tmp_path) == {"crash.json"}
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "link").symlink_to("nowhere")
    with pytest.raises(UsageError, match="link is a link; a crash bundle holds files only"):
        read_bundle(tmp_path)
