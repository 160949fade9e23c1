"""Several programs in one artifact: what a factory may give."""

from __future__ import annotations

from pathlib import Path

import pairs
import pytest
import torch

from strop.compiler import Model, Programs
from strop.compiler.frontend.crossing import require_agreement
from strop.compiler.frontend.generation import Generation
from strop.compiler.frontend.programs import as_programs
from strop.compiler.frontend.source import load_model, load_source
from strop.compiler.frontend.teacher import capture_teacher
from strop.compiler.ir.contract import Contract, TensorSpec
from strop.compiler.ir.program import Program
from strop.compiler.recipes.loading import load_recipe
from strop.compiler.search.trial import workshop
from strop.compiler.targets.target import MAIN
from strop.compiler.util.errors import UsageError


def model(**more: object) -> Model:
    return Model(torch.nn.Linear(4, 2).eval(), {"input": torch.ones(1, 4)}, **more)  # type: ignore[arg-type]


def test_a_model_is_the_programs_of_one() -> None:
    generation = Generation({}, context=8)
    one = model(generation=generation, labels={0: "cat"})
    made = as_programs(one)
    assert (dict(made.models), made.generation) == ({MAIN: one}, generation)
    assert made.labels == {0: "cat"}


@pytest.mark.parametrize("name", ["", "a b", "../x", "1st", "é", "x.onnx", "a" * 65, 3])
def test_names_are_identifiers(name: str) -> None:
    with pytest.raises(UsageError, match="is no name for a program"):
        as_programs(Programs({name: model()}))


def test_names_differ_in_more_than_case() -> None:
    with pytest.raises(UsageError, match="'decoder' and 'Decoder' differ in case only"):
        as_programs(Programs({"decoder": model(), "Decoder": model()}))


@pytest.mark.parametrize(
    "given, what",
    [
        ({}, "is empty or no mapping"),
        ([], "is empty or no mapping"),
        ({"decoder": torch.nn.Linear(4, 2)}, r"models\['decoder'\] is Linear; it must be a"),
    ],
)
def test_programs_are_models_by_name(given: object, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        as_programs(Programs(given))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "given",
    [
        {"files": [Path("x")]},
        {"labels": {0: "cat"}},
        {"generation": Generation({}, context=8)},
    ],
)
def test_what_belongs_to_all_is_given_once(given: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=rf"give Programs\({next(iter(given))}="):
        as_programs(Programs({"encoder": model(), "decoder": model(**given)}))


TWO = """
import torch
from strop.compiler import Model, Programs

def one(size):
    return Model(torch.nn.Linear(size, 2).eval(), {"input": torch.ones(1, size)})

def alone():
    return one(3)

def make():
    return Programs({"encoder": one(4), "decoder": one(3)})
"""


@pytest.fixture
def two(tmp_path: Path) -> str:
    (tmp_path / "two.py").write_text(TWO)
    return f"{tmp_path}/two.py:make"


def test_a_factory_may_return_programs(two: str) -> None:
    made = load_source(two)
    assert isinstance(made, Programs) and list(made.models) == ["encoder", "decoder"]
    assert load_model(two, "decoder").module.in_features == 3


def test_one_of_several_programs_has_to_be_named(two: str) -> None:
    with pytest.raises(UsageError, match="has 2 programs: encoder, decoder; say which one"):
        load_model(two)
    with pytest.raises(UsageError, match="has no program 'decode'; did you mean 'decoder'"):
        load_model(two, "decode")


def test_programs_that_fit_together_are_taken() -> None:
    require_agreement(pairs.make())


@pytest.mark.parametrize(
    "cross, what",
    [
        ({"cross_keys": "key"}, "no program takes 'cross_keys' together; did you mean 'cross_key'"),
        ({"cross_key": "keys"}, "no program beside 'decoder' gives 'keys'; did you mean 'key'"),
    ],
)
def test_names_of_what_one_program_gives_another_are_looked_up(
    cross: dict[str, str], what: str
) -> None:
    given = pairs.make()
    given.generation = Generation({}, context=8, cross=cross)
    with pytest.raises(UsageError, match=what):
        require_agreement(given)


@pytest.mark.parametrize(
    "key, shown",
    [
        (torch.zeros(2, 4, 7, 8, dtype=torch.float64), r"float64 \[batch, 4, source, 8\]"),
        (torch.zeros(2, 2, 7, 8), r"float32 \[batch, 2, source, 8\]"),
        (torch.zeros(2, 4, 7), r"float32 \[batch, 4, source\]"),
    ],
)
def test_what_one_program_gives_another_has_its_dtype_and_shape(
    key: torch.Tensor, shown: str
) -> None:
    given = pairs.make()
    decoder = given.models["decoder"]
    decoder.example_inputs = {**decoder.example_inputs, "cross_key": key}  # type: ignore[dict-item]
    said = rf"'encoder' gives 'key' as float32 \[2, 4, 5, 8\], and 'decoder' takes it as .*{shown}"
    with pytest.raises(UsageError, match=said):
        require_agreement(given)


def test_a_program_is_taught_by_the_one_of_its_name(two: str) -> None:
    def taught(source: str, name: str) -> Program:
        contract = Contract((TensorSpec("input", "f32", (1, 3)),), (), ())
        return capture_teacher(source, contract, {"input": torch.ones(1, 3)}, name)

    assert taught(two, "decoder").weights["weight"].shape == (2, 3)
    with pytest.raises(UsageError, match="has 2 programs: encoder, decoder"):
        taught(two, "other")
    alone = two.replace("make", "alone")
    assert taught(alone, "decoder").weights["weight"].shape == (2, 3)


def test_a_search_is_for_one_program(two: str) -> None:
    with (
        pytest.raises(UsageError, match="makes 2 programs, and a search builds one"),
        workshop(two, load_recipe("cpu-fp32"), lambda stage: None),
    ):
        pass
