"""Recovery from another model of the user's, and that nothing of it ships."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Result, Strop
from distill_tools import Encoder, batch, captured
from program_tools import program_of
from torch import Tensor, nn

from strop.compiler.frontend.teacher import capture_teacher
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.context import Context
from strop.compiler.util.errors import UsageError
from strop.compiler.util.sources import in_folder
from strop.passes.distill.kept import kept_positions
from strop.passes.distill.recover import Recover
from strop.passes.distill.teacher import require_same_contract
from strop.passes.prune.prune import Prune

FACTORY = """
import sys
sys.path.insert(0, {tests!r})
from distill_tools import Encoder, batch, model_of

def make():
    data = [batch(seed=seed) for seed in range(6)]
    return model_of(Encoder(classes=3, blocks=1), calibration=data)
"""

TEACHER = """
import sys
sys.path.insert(0, {tests!r})
import torch
from distill_tools import Encoder, model_of
from dataclasses import replace
from strop.compiler import Model

SEED = 7

def make():
    return model_of(Encoder(width=24, hidden=96, classes=3, seed=SEED))

def training():
    made = make()
    made.module.train()
    return made

def classes():
    return model_of(Encoder(classes=5))

def words():
    made = make()
    made.module.words = torch.nn.Embedding(30, 24)
    return replace(made, module=made.module.eval())

class Other(torch.nn.Module):
    def forward(self, tokens, mask):
        return tokens

def names():
    ids = torch.ones(2, 3, dtype=torch.int64)
    return Model(Other().eval(), {{"tokens": ids, "mask": ids}})

def one():
    return Model(torch.nn.Identity().eval(), (torch.ones(2, 3),))

def raises():
    raise OSError("no weights here")

def nothing():
    return None
"""


RECIPE = """
name = "taught"
extends = "cpu-fp32"
[budget]
max_error = 100.0
[[slots.compress]]
name = "recover"
steps = 4
check_every = 2
lr = 0.01
held_out = 0.34
taps = ["blocks.0=blocks.1"]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tests = str(Path(__file__).parent)
    (tmp_path / "factory.py").write_text(FACTORY.format(tests=tests))
    (tmp_path / "big.py").write_text(TEACHER.format(tests=tests))
    (tmp_path / "alone.toml").write_text(RECIPE.replace("blocks.0=blocks.1", "blocks.0"))
    (tmp_path / "taught.toml").write_text(RECIPE + 'teacher = "big.py:make"\n')
    return tmp_path


@pytest.fixture(scope="module")
def student() -> Program:
    return captured(Encoder(classes=3, blocks=1))


def build(strop: Strop, folder: Path, recipe: str, out: str = "", *more: str) -> Result:
    return strop("build", f"{folder / 'factory.py'}:make", "-o", folder / (out or recipe),
                 "--recipe", folder / f"{recipe}.toml", *more)  # fmt: skip


def of_recovery(artifact: Path) -> Any:
    passes = json.loads((artifact / "manifest.json").read_text())["passes"]
    return next(p for p in passes if p["name"] == "recover")["learned"]


def test_a_recipe_learns_from_another_model_and_ships_nothing_of_it(
    strop: Strop, folder: Path
) -> None:
    for recipe in ("alone", "taught"):
        result = build(strop, folder, recipe)
        assert result.code == 0, result.err
    alone, taught = of_recovery(folder / "alone"), of_recovery(folder / "taught")
    assert taught["facts"]["teacher"] == "big.py:make" and "teacher" not in alone["facts"]
    assert taught["from"]["teacher"] != alone["from"]["teacher"]
    assert taught["from"]["program"] == alone["from"]["program"]
    (tap,) = taught["facts"]["taps"]
    assert taught["facts"]["validation"]["after"] < taught["facts"]["validation"]["before"], tap
    files = [(folder / name / "model.onnx").read_bytes() for name in ("alone", "taught")]
    assert len(files[0]) == len(files[1]) and files[0] != files[1]
    for name, weight in Encoder(width=24, hidden=96, classes=3, seed=7).named_parameters():
        values = weight.detach().numpy()
        if values.size > 4 and values.std() > 0:
            assert values.tobytes() not in files[1], name
            assert np.ascontiguousarray(values.T).tobytes() not in files[1], name
    assert str(folder) not in (folder / "taught" / "manifest.json").read_text()


@pytest.mark.slow
def test_its_weights_count_for_the_cache_and_its_source_does_not(
    strop: Strop, folder: Path
) -> None:
    assert build(strop, folder, "taught").code == 0
    first = of_recovery(folder / "taught")
    entries = {path.name for path in learned(folder)}
    text = (folder / "big.py").read_text()
    (folder / "big.py").write_text(text + "# a comment\n")
    assert build(strop, folder, "taught", "again").code == 0
    assert {path.name for path in learned(folder)} == entries
    (folder / "big.py").write_text(text.replace("SEED = 7", "SEED = 8"))
    assert build(strop, folder, "taught", "other").code == 0
    other = of_recovery(folder / "other")
    assert len(learned(folder)) == len(entries) + 1
    assert other["from"]["teacher"] != first["from"]["teacher"]


def learned(folder: Path) -> list[Path]:
    return [p for p in Path(os.environ["STROP_CACHE"], "learned").iterdir() if p.is_dir()]


@pytest.mark.parametrize(
    ("teacher", "said"),
    [
        ("big.py:training", "teacher .*big.py:training: the module is in train mode"),
        ("big.py:classes", r"output 'logits' is \['batch', 5\], the student's \['batch', 3\]"),
        ("big.py:words", r"looks 'input_ids' up in a table of 30 rows, the student in one of 40"),
        ("big.py:names", "its inputs are tokens, mask, those of the model that learns from it inp"),
        ("big.py:one", "its inputs are 1 by position, those of the model that learns from it inpu"),
        ("big.py:raises", r"raises raised OSError: no weights here\n  at .*big.py:\d+: raise OSEr"),
        ("big.py:nothing", r"nothing\(\) returned NoneType; it must return strop.compiler.Model"),
        ("big.py:SEED", "big.py:SEED is int, not a function"),
        ("big.py:mak", "big.py has no 'mak'; did you mean 'make'?"),
        ("gone.py:make", "gone.py does not exist"),
        ("hf:gone", "teacher hf:.*gone: "),
    ],
)
def test_what_is_no_teacher_for_this_model_is_told(
    teacher: str, said: str, student: Program, folder: Path
) -> None:
    place = in_folder(teacher, folder)
    known = batch()["input_ids"].clamp(max=20)
    example = batch() | {"input_ids": known}
    capture = partial(capture_teacher, contract=student.contract, example=example)
    context = Context(teacher=student, capture=capture, train=[batch()])
    with pytest.raises(UsageError, match=said):
        Recover(teacher=place).run(student, context=context)


def test_what_cannot_be_a_teacher_is_told_before_the_capture(strop: Strop, folder: Path) -> None:
    text = (folder / "factory.py").read_text()
    never = (
        "made = model_of(Encoder())\n    made.module.forward = None\n    made.calibration = data\n"
    )
    (folder / "factory.py").write_text(text.partition("return")[0] + never + "    return made\n")
    for teacher, said in (
        ("gone.py:make", "gone.py does not exist"),
        ("big", "teacher is 'big'; it must be FILE.py:make, or hf:PATH of a folder"),
    ):
        result = build(strop, folder, "alone", "out", "--set", f"recover.teacher={teacher}")
        assert result.code == 2
        assert said in result.err


def test_outside_a_build_its_program_is_given(student: Program) -> None:
    with pytest.raises(UsageError, match=r"only a build can capture.*Context\(teacher=...\)"):
        Recover(teacher="hf:big").run(student, context=Context(train=[batch()]))


def test_what_pruning_left_is_not_taken_out_of_another_models_features() -> None:
    teacher, whole = captured(Encoder(classes=3, seed=1)), captured(Encoder(classes=3))
    student = Prune(importance="l2", round_to=1).run(whole).program
    assert kept_positions(student)
    asked: list[str] = []

    def capture(source: str) -> Program:
        asked.append(source)
        return teacher

    context = Context(teacher=whole, capture=capture, train=[batch(seed=s) for s in range(4)])
    one = Recover(steps=1, taps=("gelu=gelu",), held_out=0.0, teacher="hf:big")
    result = one.run(student, context=context)
    assert asked == ["hf:big"]
    assert result.log.learned and result.log.learned["facts"]["taps"] == ["gelu=gelu"]


class Pooled(nn.Module):
    """Takes its inputs by position, and calls them otherwise."""

    def __init__(self, width: int = 4, least: int = 1) -> None:
        super().__init__()
        self.up, self.least = nn.Linear(3, width), least

    def forward(self, pixels: Tensor) -> Tensor:
        if pixels.shape[0] < self.least:
            raise ValueError("too few")
        return self.up(pixels).sum(-1, keepdim=True)


def test_inputs_by_position_may_have_other_names(tmp_path: Path) -> None:
    student = program_of(lambda x, w: x @ w, torch.randn(2, 3), w=torch.ones(3, 1))
    (tmp_path / "own.py").write_text(
        f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\nimport torch\n"
        "from strop.compiler import Model\nfrom test_distill_teacher import Pooled\n"
        "def make(): return Model(Pooled().eval(), (torch.ones(9, 3),))\n"
        "def picky(): return Model(Pooled(least=5).eval(), (torch.ones(9, 3),))\n"
        "def wide(): return Model(torch.nn.Linear(7, 1).eval(), (torch.ones(9, 7),))\n"
    )
    example = {"input_0": torch.randn(2, 3)}
    teacher = capture_teacher(f"{tmp_path}/own.py:make", student.contract, example)
    require_same_contract(student, replace(teacher, contract=student.contract))
    assert [spec.name for spec in teacher.contract.inputs] == ["input_0"]
    assert teacher.contract.inputs == student.contract.inputs
    for name, said in (("picky", "ValueError: too few"), ("wide", "mat1 and mat2")):
        with pytest.raises(UsageError, match=f"does not take the inputs .*2, 3.*{said}"):
            capture_teacher(f"{tmp_path}/own.py:{name}", student.contract, example)
