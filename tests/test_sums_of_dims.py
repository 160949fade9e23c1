"""Axes whose size is the sum of dims: declared, checked, captured, and written to a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from decoders import make
from torch import Tensor, nn

from strop.compiler import Model, build, load
from strop.compiler.debug.feeds import made_up
from strop.compiler.frontend.coverage import Coverage, choose_sizes
from strop.compiler.frontend.export.capture import capture
from strop.compiler.frontend.inputs import Signature, read_inputs, resize
from strop.compiler.ir.contract import dims_of, size_at
from strop.compiler.ir.cost import CostModel
from strop.compiler.ir.program import Program
from strop.compiler.util.errors import UsageError

PAST, SEQ = ("past", 0, 9), ("seq", 1, 9)


class Joined(nn.Module):
    """Adds weights to two tensors one after another."""

    def forward(self, old: Tensor, new: Tensor, weight: Tensor) -> Tensor:
        return torch.cat([old, new], 1) * weight


def joined(
    sizes: tuple[int, int, int] = (3, 4, 7), total: Any = "past + seq", **more: Any
) -> Model:
    inputs = {name: torch.randn(2, size) for name, size in zip(("old", "new", "weight"), sizes)}
    # The sum comes first: its parts are looked up when all are known.
    dynamic = {"weight": {1: total}, "old": {1: PAST}, "new": {1: SEQ}}
    return Model(Joined().eval(), inputs, dynamic | more.pop("dynamic", {}), **more)


def signature_of(model: Model) -> tuple[Signature, dict[str, Tensor]]:
    signature, example, _ = read_inputs(model)
    return signature, example


def captured(model: Model) -> Program:
    signature, example = signature_of(model)
    with torch.no_grad():
        return capture(model.module, signature, example)


def test_a_sum_is_no_dim_of_its_own() -> None:
    signature, example = signature_of(joined())
    assert signature.axes["weight"] == {1: ("past", "seq")}
    assert list(signature.dims) == ["past", "seq"]
    assert signature.sizes(example) == {"past": 3, "seq": 4}


@pytest.mark.parametrize("sizes", [(3, 4, 7), (0, 4, 4), (1, 1, 2), (0, 1, 1)])
def test_a_sum_is_captured_whatever_the_example(sizes: tuple[int, int, int]) -> None:
    program = captured(joined(sizes))
    assert [spec.shape for spec in program.contract.inputs] == [
        (2, "past"),
        (2, "seq"),
        (2, "past + seq"),
    ]
    assert program.contract.outputs[0].shape == (2, "past + seq")
    assert [dim.name for dim in program.contract.dims] == ["past", "seq"]


def test_a_sum_that_the_model_never_forms_is_captured() -> None:
    class Apart(nn.Module):
        def forward(self, old: Tensor, new: Tensor, weight: Tensor) -> Tensor:
            return old.sum() + new.sum() + weight.sum()

    model = joined()
    model.module = Apart().eval()
    assert captured(model).contract.inputs[2].shape == (2, "past + seq")


def test_a_dim_may_be_summed_with_itself_and_with_several() -> None:
    model = joined((3, 4, 10), "past + seq + past")

    class Thrice(nn.Module):
        def forward(self, old: Tensor, new: Tensor, weight: Tensor) -> Tensor:
            return torch.cat([old, new, old], 1) * weight

    model.module = Thrice().eval()
    assert captured(model).contract.outputs[0].shape == (2, "2*past + seq")


@pytest.mark.parametrize(
    ("total", "said"),
    [
        ("past + sex", "'past + sex', a sum of dims, but no other axis is declared as 'sex'"),
        ("past +", "a sum of dims, but no other axis is declared as ''"),
        (("past + seq", 2, 9), "the least of a sum follows from its parts"),
        (("past + seq", 0, 0), "has the range 0 to 0, but its parts together start at 1"),
    ],
)
def test_a_sum_of_dims_that_are_not_there_is_refused(total: Any, said: str) -> None:
    with pytest.raises(UsageError, match="dynamic") as told:
        read_inputs(joined(total=total))
    assert said in str(told.value)


def test_a_sum_has_one_range() -> None:
    dynamic = {"old": {1: PAST, 0: ("past + seq", 0, 9)}}
    with pytest.raises(UsageError, match="'past \\+ seq' has two ranges, up to 8 and up to 9"):
        read_inputs(joined(total=("past + seq", 0, 8), dynamic=dynamic))


def test_examples_have_the_size_of_the_sum() -> None:
    said = r"\['weight'\] has size 8 on axis 1, but past \+ seq is 3 \+ 4 = 7 elsewhere"
    with pytest.raises(UsageError, match=said):
        read_inputs(joined((3, 4, 8)))
    batch = {"old": torch.ones(2, 1), "new": torch.ones(2, 1), "weight": torch.ones(2, 3)}
    with pytest.raises(UsageError, match=r"calibration\[0\]\['weight'\] has size 3"):
        read_inputs(joined(calibration=[batch]))
    with pytest.raises(UsageError, match=r"past \+ seq is at most 6"):
        read_inputs(joined(total=("past + seq", 0, 6)))


def test_inputs_at_gives_the_size_of_the_sum() -> None:
    def inputs_at(sizes: Any) -> dict[str, Tensor]:
        past, seq = sizes["past"], sizes["seq"]
        return {name: torch.ones(2, n) for name, n in zip(("old", "new", "weight"), (past, seq, 9))}

    signature, example = signature_of(joined(inputs_at=inputs_at))
    assert resize(example, signature, {"past": 5, "seq": 4})["weight"].shape == (2, 9)
    with pytest.raises(UsageError, match=r"inputs_at.*past \+ seq is 5 \+ 5 = 10 elsewhere"):
        resize(example, signature, {"past": 5, "seq": 5})


def test_an_example_is_resized_to_the_sum() -> None:
    signature, example = signature_of(joined())
    small = resize(example, signature, {"past": 0, "seq": 2})
    assert {name: t.shape[1] for name, t in small.items()} == {"old": 0, "new": 2, "weight": 2}


@pytest.mark.parametrize("check", ["bounded", "full"])
def test_sizes_that_are_run_are_within_the_range_of_the_sum(check: Any) -> None:
    model = joined(total=("past + seq", 0, 10))
    signature, example = signature_of(model)
    coverage = Coverage(check)
    sizes = choose_sizes(signature, example, CostModel(captured(model)), coverage)
    assert sizes["smallest"] == {"past": 0, "seq": 1}
    assert sizes["largest past"] == {"past": 9, "seq": 1}
    assert sizes["largest seq"] == {"past": 1, "seq": 9}
    assert all(sum(one.values()) <= 10 for one in sizes.values())
    assert sum(sizes["between"].values()) == 10
    assert not coverage.left_out


def test_a_dim_is_checked_at_less_than_its_most_where_the_sum_has_less() -> None:
    model = joined(total=("past + seq", 0, 8))
    signature, example = signature_of(model)
    sizes = choose_sizes(signature, example, None, Coverage("full"))
    assert sizes["largest past"] == {"past": 7, "seq": 1}


def test_the_file_names_the_sum_and_runs_at_every_size(tmp_path: Path) -> None:
    built = build(joined(total=("past + seq", 1, 12)), tmp_path / "out", recipe="cpu-fp32")
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
    shapes = {given.name: given.shape for given in session.get_inputs()}
    assert shapes["weight"] == [2, "past + seq"]
    artifact = load(tmp_path / "out")
    for past, seq in ((0, 1), (3, 2), (9, 3)):
        old, new = np.ones((2, past), np.float32), np.ones((2, seq), np.float32)
        (found,) = artifact(old=old, new=new, weight=np.full((2, past + seq), 3, np.float32))
        assert found.tolist() == np.full((2, past + seq), 3).tolist()
    feeds = made_up(built.manifest["contract"], {"past": 4, "seq": 2})
    assert feeds.arrays["weight"].shape == (2, 6)


def test_a_decoder_with_caches_is_captured() -> None:
    model = make()
    signature, example = signature_of(model)
    with torch.no_grad():
        program = capture(model.module, signature, example)
        inputs = resize(example, signature, {"batch": 1, "seq": 1, "past": 0})
        expected = model.module(**inputs)
        for value, want in zip(program.run(**inputs), expected.values()):
            assert torch.allclose(value, want, atol=1e-5)
    shapes = {
        spec.name: spec.shape for spec in (*program.contract.inputs, *program.contract.outputs)
    }
    assert shapes["attention_mask"] == ("batch", "past + seq")
    assert shapes["logits"] == ("batch", 1, 61)
    assert shapes["present.1.value"] == ("batch", 2, "past + seq", 8)


def test_sizes_in_a_contract_are_dims_sums_and_numbers() -> None:
    sizes = {"past": 3, "seq": 4}
    assert dims_of("past + seq") == ("past", "seq")
    assert [size_at(s, sizes) for s in (5, "seq", "past + seq", "past + 2")] == [5, 4, 7, 5]
    assert [size_at(s, sizes) for s in ("batch", "2*seq", "past + batch")] == [None, None, None]


def test_many_axes_of_one_dim_are_parts_of_one_sum() -> None:
    """Torch gives each of them a symbol of its own, and puts one in the place of another later."""

    class Many(nn.Module):
        def forward(self, mask: Tensor, *pasts: Tensor) -> Tensor:
            new = pasts[-1]
            return sum(torch.cat([past, new], 1) * mask for past in pasts[:-1])  # type: ignore[return-value]

    count = 12
    names = [f"input_{i}" for i in range(count + 2)]
    tensors = [torch.ones(2, n) for n in (7, *[3] * count, 4)]
    dynamic: dict[str, Any] = {name: {1: PAST} for name in names[1:-1]}
    dynamic |= {names[0]: {1: "past + seq"}, names[-1]: {1: SEQ}}
    program = captured(Model(Many().eval(), tuple(tensors), dynamic))
    assert program.contract.outputs[0].shape == (2, "past + seq")
