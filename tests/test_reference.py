"""The reference is the user's module as it is: its dtypes, its inputs, its NaN and its sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from strop.compiler import Artifact, Model, build
from strop.compiler.check.comparison import compare
from strop.compiler.check.rounding import with_rounding
from strop.compiler.frontend.cases import Case, make_cases
from strop.compiler.frontend.inputs import read_inputs, resize
from strop.compiler.frontend.prepare import capture_model
from strop.compiler.recipes.budget import Budget
from strop.compiler.util.errors import UnsupportedError, UsageError
from strop.compiler.util.stages import Stages
from strop.passes.legalize.dtypes import LegalizeDtypes


class Calls(nn.Module):
    def __init__(self, function: Callable[..., Any], **buffers: Tensor) -> None:
        super().__init__()
        self.function = function
        for name, value in buffers.items():
            self.register_buffer(name, value)

    def forward(self, x: Tensor) -> Any:
        return self.function(x, *self.buffers())


def built(module: nn.Module, x: Tensor, out: Path, **more: Any) -> Artifact:
    return build(Model(module.eval(), {"x": x}, **more), out)


def ran(artifact: Artifact, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The first output of the file, in a session that knows nothing of strop."""
    session = ort.InferenceSession(str(artifact.model_path), providers=["CPUExecutionProvider"])
    result: np.ndarray[Any, Any] = session.run(None, {"x": x})[0]
    return result


def test_a_float64_buffer_keeps_its_digits(tmp_path: Path) -> None:
    mean = torch.tensor([1.7e9 + 77], dtype=torch.float64)
    x = torch.tensor([[1.7e9 + 80]], dtype=torch.float64)
    artifact = built(Calls(lambda x, m: (x - m).float(), mean=mean), x, tmp_path / "o")
    assert ran(artifact, x.numpy()) == 3


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_weights_inputs_and_outputs_of_one_dtype_keep_it(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 2)).to(dtype)
    x = torch.randn(3, 6, dtype=dtype)
    artifact = build(Model(module.eval(), (x,)), tmp_path / "o")
    session = ort.InferenceSession(str(artifact.model_path))
    (got,) = session.run(None, {"input": x.numpy()})
    want = module(x).detach().numpy()
    assert got.dtype == want.dtype
    # Two units in the last place of float16; float64 to its last digits.
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-3 if dtype == torch.float16 else 1e-14)


def test_a_model_that_writes_to_its_input_is_held_to_what_it_gives(tmp_path: Path) -> None:
    x = torch.randn(3)
    kept = x.clone()
    artifact = built(Calls(lambda x: x.mul_(1e20) + 1), x, tmp_path / "o")
    assert torch.equal(x, kept)
    assert artifact.manifest["notes"] == [
        "the model writes to its input 'x'; the artifact leaves inputs as they are"
    ]
    np.testing.assert_allclose(ran(artifact, kept.numpy()), kept.numpy() * 1e20 + 1, rtol=1e-6)


def test_infinities_and_nan_stay_where_the_original_has_them(tmp_path: Path) -> None:
    x = torch.tensor([[-1.0, 0.0, 4.0]])
    artifact = built(Calls(lambda x: x.log()), x, tmp_path / "o")
    np.testing.assert_array_equal(np.isnan(ran(artifact, x.numpy())), [[True, False, False]])
    assert artifact.manifest["notes"] == [
        "the original gives NaN in 'output' (case 'calibration[0]'); the artifact gives it there "
        "too"
    ]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_an_output_without_any_number_is_built_with_a_warning(value: float, tmp_path: Path) -> None:
    x = torch.randn(3)
    artifact = built(Calls(lambda x: (x.new_full((2, 2), value) + x[0], x + 1)), x, tmp_path / "o")
    np.testing.assert_array_equal(ran(artifact, x.numpy()), np.full((2, 2), value, np.float32))
    (note,) = artifact.manifest["notes"]
    assert note.startswith("WARNING") and "'output_0'" in note and "no numbers" in note
    assert "no numbers" in (artifact.path / "report.html").read_text()


def test_one_number_in_one_case_is_enough(tmp_path: Path) -> None:
    def once(x: Tensor) -> Tensor:
        return torch.where(torch.ones(x.shape[0]).sum() > 2, float("inf"), x)

    model = Model(Calls(once).eval(), (torch.randn(3),), dynamic={"x": {0: ("rows", 2, 9)}})
    assert build(model, tmp_path / "o").manifest["notes"] == []


def test_an_output_without_elements_holds_no_number_and_needs_no_warning(tmp_path: Path) -> None:
    assert built(Calls(lambda x: x[:0]), torch.randn(3), tmp_path / "o").manifest["notes"] == []


@pytest.mark.parametrize("dtype", [torch.complex32, torch.float8_e4m3fn, torch.float8_e5m2])
def test_an_output_of_a_dtype_that_numpy_lacks_is_refused_by_name(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedError):
        built(Calls(lambda x: x.to(dtype)), torch.randn(3), tmp_path / "o")


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("want", "got", "same"),
    [
        ([1, -INF, NAN], [1, -INF, NAN], True),
        ([1, -INF, NAN], [1, INF, NAN], False),
        ([1, -INF, NAN], [1, -INF, 0], False),
        ([1, 2, 3], [1, 2, NAN], False),
        ([1, 2, INF], [1, 2, 3], False),
        ([1, 2, 3], [1, 2, INF], False),
    ],
)
def test_values_that_are_no_numbers_are_compared_by_position(
    want: list[float], got: list[float], same: bool
) -> None:
    case = Case("case", {}, {"output": np.array(want, dtype=np.float32)})
    (found,) = compare(case, {"output": np.array(got, dtype=np.float32)})
    assert found.finite == same
    assert (found.misses(Budget(max_error=1e-4)) is None) == same


def test_other_infinities_do_not_hide_an_error() -> None:
    case = Case("case", {}, {"output": np.array([[1.0, -INF, 2.0]], dtype=np.float32)})
    (found,) = compare(case, {"output": np.array([[1.0, -INF, 3.0]], dtype=np.float32)})
    assert (found.finite, found.max_error) == (True, 0.5)
    assert found.cosine is not None
    assert found.cosine < 0.99


def test_rounding_of_the_original_widens_the_budget_and_nothing_else() -> None:
    array = np.array([1.0], dtype=np.float32)
    case = Case("case", {}, {"output": array}, rounding={"output": 0.01})
    near, far = (compare(case, {"output": array + by})[0] for by in (0.0099, 0.0102))
    assert near.misses(Budget(max_error=1e-4)) is None
    assert "the original's own rounding 1.00e-02" in str(far.misses(Budget(max_error=1e-4)))


ROWS: dict[str, Any] = {"x": {0: ("n", 0, 6)}}


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x @ torch.ones(4, 3),
        lambda x: x.reshape(x.shape[0], 2, 2).transpose(1, 2).reshape(-1, 4),
        lambda x: torch.cat([x, torch.ones(1, 4)]).cumsum(0),
        lambda x: x.sum(0),
        lambda x: torch.softmax(x, -1).reshape(-1),
        lambda x: x.unsqueeze(1).expand(-1, x.shape[0], -1).flatten(1),
    ],
)
def test_no_rows_at_all_is_a_size(function: Callable[[Tensor], Tensor], tmp_path: Path) -> None:
    artifact = built(Calls(function), torch.randn(6, 4), tmp_path / "o", dynamic=ROWS)
    for size in range(7):
        x = torch.randn(size, 4)
        np.testing.assert_allclose(ran(artifact, x.numpy()), function(x).numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("dim", "sizes"),
    [
        (("n", 1, 8), [1, 5, 8]),
        (("n", 1, 7), [1, 5, 7]),
        (("n", 2, 3), [2, 3]),
        (("n", 3, 3), [3]),
        ("n", [1, 5, 7]),
    ],
)
def test_the_check_covers_the_range_of_a_dim(dim: Any, sizes: list[int]) -> None:
    model = Model(nn.Identity().eval(), {"input": torch.ones(3)}, {"input": {0: dim}})
    signature, example, _ = read_inputs(model)
    cases = make_cases(model.module, signature, [example])
    assert [c.inputs["input"].shape[0] for c in cases] == [3, *sizes]


def test_an_example_without_rows_grows() -> None:
    model = Model(nn.Identity().eval(), {"x": torch.ones(0, 4)}, {"x": {0: ("n", 0, 6)}})
    signature, example, _ = read_inputs(model)
    assert resize(example, signature, {"n": 3})["x"].shape == (3, 4)


class Picks(nn.Module):
    """Takes the row that its second input names."""

    def forward(self, x: Tensor, last: Tensor) -> Tensor:
        return x[torch.arange(x.shape[0]), last]


def pick_inputs(sizes: Mapping[str, int]) -> dict[str, Tensor]:
    x = torch.randn(sizes["batch"], sizes["seq"], 4)
    return {"x": x, "last": torch.full((sizes["batch"],), sizes["seq"] - 1)}


PICKS: dict[str, Any] = {
    "x": {0: ("batch", 1, 4), 1: ("seq", 2, 9)},
    "last": {0: "batch"},
}


def picks(**more: Any) -> Model:
    return Model(Picks().eval(), pick_inputs({"batch": 2, "seq": 5}), PICKS, **more)


def test_inputs_whose_values_depend_on_sizes_come_from_the_owner(tmp_path: Path) -> None:
    artifact = build(picks(inputs_at=pick_inputs), tmp_path / "o")
    assert {c["case"] for c in artifact.manifest["checks"]} == {
        "calibration[0]",
        "smallest: batch=1, seq=2",
        "between: batch=3, seq=5",
        "largest: batch=4, seq=9",
    }


def test_a_module_that_fails_on_cut_inputs_is_not_blamed() -> None:
    model = picks()
    signature, example, _ = read_inputs(model)
    with pytest.raises(UsageError, match="cut or repeated to these sizes") as refusal:
        make_cases(model.module, signature, [example])
    assert "give Model(inputs_at=...)" in str(refusal.value)


@pytest.mark.parametrize(
    ("inputs_at", "words"),
    [
        (lambda sizes: {"x": torch.randn(1, 2, 4)}, r"inputs_at\(.*\) has \['x'\]"),
        (lambda sizes: pick_inputs(sizes | {"seq": 3}), r"gave inputs of the sizes .*'seq': 3"),
        (lambda sizes: 1 / 0, r"raised ZeroDivisionError"),
        (
            lambda sizes: pick_inputs(sizes) | {"last": torch.zeros(sizes["batch"])},
            r"\['last'\] is torch.float32",
        ),
    ],
)
def test_inputs_of_the_owner_that_do_not_fit_are_refused(
    inputs_at: Callable[[Mapping[str, int]], Any], words: str
) -> None:
    signature, example, _ = read_inputs(picks(inputs_at=inputs_at))
    with pytest.raises(UsageError, match=words):
        resize(example, signature, {"batch": 1, "seq": 2})


def rounded(module: nn.Module, x: Tensor) -> dict[str, float]:
    """By output, the rounding of the only case of a module and its captured program."""
    captured = capture_model(Model(module.eval(), {"x": x}), Stages())
    legal = LegalizeDtypes().run(captured.program).program
    (case,) = with_rounding(captured.cases, [captured.program, legal])
    return dict(case.rounding)


def test_rounding_is_measured_where_a_model_computes_in_16_bits() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64)).bfloat16()
    found = rounded(Calls(module), torch.randn(8, 64).bfloat16())["output"]
    unit = torch.finfo(torch.bfloat16).eps
    assert unit <= found <= 32 * unit


@pytest.mark.parametrize(
    ("function", "units"),
    [(lambda x: x * 2, 0), (lambda x: x.half(), 1), (lambda x: (x * 2).half().float(), 0)],
)
def test_an_output_in_16_bits_may_round_by_one_unit(
    function: Callable[[Tensor], Tensor], units: int
) -> None:
    found = rounded(Calls(function), torch.randn(3, 4))
    assert found.get("output", 0) == units * torch.finfo(torch.float16).eps
