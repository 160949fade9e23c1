"""What a factory declares of a decoder with caches is held against what was captured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import decoders
import pytest

from strop.compiler import Recipe, build
from strop.compiler.frontend.called import require_called
from strop.compiler.frontend.generation import Generation
from strop.compiler.ir.contract import Contract, Dim, TensorSpec
from strop.compiler.util.errors import UsageError

PAST, PRESENT = ("batch", 2, "past", 8), ("batch", 2, "past + seq", 8)
CALLED = Generation({"past": "present"}, context=8)


def contract(**changed: TensorSpec) -> Contract:
    """Of a decoder with one cache; ``changed`` are specs in place of its own."""
    inputs = {
        "input_ids": TensorSpec("input_ids", "i64", ("batch", "seq")),
        "attention_mask": TensorSpec("attention_mask", "i64", ("batch", "past + seq")),
        "past": TensorSpec("past", "f32", PAST),
    }
    outputs = {
        "logits": TensorSpec("logits", "f32", ("batch", 1, 61)),
        "present": TensorSpec("present", "f32", PRESENT),
    }
    both = (
        tuple(changed.get(name, spec) for name, spec in given.items())
        for given in (inputs, outputs)
    )
    return Contract(*both, ())


def test_a_decoder_that_is_called_as_declared_is_taken() -> None:
    require_called(CALLED, {"model": contract()})
    require_called(CALLED, {"encoder": Contract((), (), ()), "decoder": contract()})
    require_called(None, {"model": Contract((), (), ())})
    require_called(Generation({}, context=8), {"model": Contract((), (), ())})


@pytest.mark.parametrize(
    "change, what",
    [
        ({"caches": {"pasts": "present"}}, "no program takes 'pasts'; did you mean 'past'"),
        ({"caches": {"past": "presents"}}, "no decoder gives 'presents'; did you mean 'present'"),
        ({"ids": "ids"}, "Generation.ids: no decoder takes 'ids'"),
        ({"mask": "mask"}, "Generation.mask: no decoder takes 'mask'"),
        ({"logits": "scores"}, "Generation.logits: no decoder gives 'scores'"),
    ],
)
def test_names_that_are_not_there_are_refused(change: dict[str, str], what: str) -> None:
    with pytest.raises(UsageError, match=what):
        require_called(replace(CALLED, **change), {"model": contract()})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "spec, what",
    [
        (TensorSpec("input_ids", "i32", ("batch", "seq")), r"'input_ids' is i32\[batch, seq\]"),
        (TensorSpec("attention_mask", "i64", ("batch",)), r"'attention_mask' is i64\[batch\]"),
        (TensorSpec("logits", "f32", ("batch", 61)), "must be floats of three axes"),
        (TensorSpec("logits", "i64", ("batch", 1, 61)), "must be floats of three axes"),
        (TensorSpec("present", "f16", PRESENT), r"f32\[batch, 2, past, 8\].*one dtype"),
        (TensorSpec("present", "f32", ("batch", 4, "past + seq", 8)), "differ in axis 2 only"),
        (TensorSpec("past", "f32", ("batch", 2, "past")), "four axes"),
    ],
)
def test_what_is_of_another_dtype_or_shape_is_refused(spec: TensorSpec, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        require_called(CALLED, {"model": contract(**{spec.name: spec})})


@pytest.mark.parametrize("most, taken", [(None, True), (4, True), (3, False)])
def test_a_context_is_no_longer_than_the_dims(most: int | None, taken: bool) -> None:
    dims = (Dim("past", 0, most), Dim("seq", 1, 4))
    given = {"model": replace(contract(), dims=dims)}
    if taken:
        require_called(CALLED, given)
        return
    with pytest.raises(UsageError, match=r"context is 8, but 'attention_mask' has 7 places"):
        require_called(CALLED, given)


def test_caches_that_no_program_has_together_are_refused() -> None:
    other = contract(past=TensorSpec("more", "f32", PAST))
    called = replace(CALLED, caches={"past": "present", "more": "present"})
    with pytest.raises(UsageError, match="no program takes all of these inputs together"):
        require_called(called, {"encoder": other, "decoder": contract()})


@pytest.mark.parametrize(
    "recipe", ["cpu-fp32", pytest.param(Recipe(name="bare"), marks=pytest.mark.slow)]
)
def test_the_manifest_of_a_decoder_says_how_it_is_called(
    tmp_path: Path, recipe: str | Recipe
) -> None:
    model = decoders.make(layers=1)
    assert model.generation is not None
    found = build(model, tmp_path / "out", recipe, instruments="off").manifest["generation"]
    assert found["caches"] == model.generation.caches
    assert (found["eos"], found["pad"], found["bos"]) == ([2], 0, 1)
    # Buffers can be shared where attention was fused with its cache.
    assert found["shared_buffers"] is (recipe == "cpu-fp32")


def test_a_decoder_that_is_declared_wrongly_is_refused_before_any_pass(tmp_path: Path) -> None:
    model = decoders.make(layers=1)
    assert model.generation is not None
    model.generation = replace(model.generation, logits="scores")
    seen: list[str] = []
    with pytest.raises(UsageError, match="no decoder gives 'scores'"):
        build(model, tmp_path / "out", progress=seen.append)
    assert "capture" in seen and "passes" not in seen
