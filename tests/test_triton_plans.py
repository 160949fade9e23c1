"""Plans as data: the arena, sizes as text, and plans from strangers, which reach nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from program_tools import program_of
from safetensors.torch import save_file
from torch import Tensor
from triton_tools import plan_of, session_of

import strop.compiler.ir.dialect  # noqa: F401  (registers the operators)
from strop.compiler.lower.triton.arena import assign, lives
from strop.compiler.lower.triton.memory import Buffer
from strop.compiler.targets.triton.bound import bind, sizes_of
from strop.compiler.targets.triton.checks import require_sound
from strop.compiler.targets.triton.interpreter import Interpreter
from strop.compiler.targets.triton.plan import Plan
from strop.compiler.targets.triton.session import PlanSession, open_plan
from strop.compiler.util.errors import RuntimeRefusedError, UnsupportedError
from strop.kernels.expression import evaluate

strop = torch.ops.strop
DIMS = {0: {0: ("batch", 1, 8), 1: ("seq", 1, 64)}}


def norms(x: Tensor, w: Tensor) -> Any:
    y = F.layer_norm(x, (16,), w)
    for _ in range(4):
        y = F.rms_norm(y, (16,), w, 1e-6)
    return y + 1, y


@cache
def norms_plan() -> Plan:
    return plan_of(program_of(norms, torch.ones(2, 5, 16), dims=DIMS, w=torch.ones(16)))[0]


@pytest.fixture
def plan() -> Plan:
    return norms_plan()


# The arena -------------------------------------------------------------------------------


@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 12), st.integers(1, 5)), max_size=20),
    st.integers(0, 300),
)
def test_buffers_that_are_alive_together_do_not_overlap(
    drawn: list[tuple[int, int, int]], size: int
) -> None:
    buffers = [Buffer(f"{factor}*n", factor) for _, _, factor in drawn]
    uses = [(step, b) for b, (start, length, _) in enumerate(drawn)
            for step in (start, start + length)]  # fmt: skip
    alive = lives(sorted(uses))
    slots, taken = assign(buffers, alive)
    widths = [max(evaluate(text, {"n": size}) for text in slot.sizes) for slot in slots]
    for a, first in alive.items():
        assert evaluate(buffers[a].bytes, {"n": size}) <= widths[taken[a]]
        for b, second in alive.items():
            together = first.first <= second.last and second.first <= first.last
            assert a == b or not together or taken[a] != taken[b]


def test_a_slot_is_used_again(plan: Plan) -> None:
    assert len(plan.steps) == 6
    assert len(plan.slots) == 2


@given(batch=st.integers(1, 8), seq=st.integers(1, 64))
@settings(max_examples=20)
def test_slots_begin_at_multiples_of_256_bytes_and_do_not_overlap(batch: int, seq: int) -> None:
    plan = norms_plan()
    bound = bind(plan, sizes_of(plan, [(batch, seq, 16)]))
    assert list(bound.offsets) == [0, -(-batch * seq * 64 // 256) * 256]
    assert bound.arena == 2 * bound.offsets[1]


# Sizes -------------------------------------------------------------------------------------


def test_a_plan_serves_all_sizes_of_its_dims() -> None:
    session = session_of(program_of(norms, torch.ones(2, 5, 16), dims=DIMS, w=torch.ones(16)))
    for shape in ((1, 1, 16), (3, 7, 16)):
        x = torch.randn(shape)
        found = session.run({"input_0": x.numpy()})
        wanted = norms(x, torch.ones(16))
        for one, two in zip(found.values(), wanted, strict=True):
            torch.testing.assert_close(torch.from_numpy(one), two)


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((9, 5, 16), "batch is 9; it was built for 1 to 8"),
        ((2, 5, 17), "has to be"),
        ((2, 5), "has 2 axes"),
    ],
)
def test_sizes_that_it_was_not_built_for_are_refused(shape: tuple[int, ...], said: str) -> None:
    session = session_of(program_of(norms, torch.ones(2, 5, 16), dims=DIMS, w=torch.ones(16)))
    with pytest.raises(RuntimeRefusedError, match=said):
        session.run({"input_0": torch.ones(shape).numpy()})


def test_an_input_that_begins_at_an_odd_address_is_copied() -> None:
    session = session_of(program_of(norms, torch.ones(2, 5, 16), dims=DIMS, w=torch.ones(16)))
    odd = torch.randn(2 * 5 * 16 + 1)[1:].view(2, 5, 16)
    (found, _) = session.run({"input_0": odd.numpy()}).values()
    torch.testing.assert_close(torch.from_numpy(found), norms(odd, torch.ones(16))[0])


def test_a_size_that_depends_on_the_data_is_refused_by_name() -> None:
    def function(x: Tensor) -> Any:
        return x[x > 0]

    with pytest.raises(UnsupportedError, match="depends on the data"):
        plan_of(program_of(function, torch.randn(8)))


def test_random_numbers_are_refused_by_name() -> None:
    def function(x: Tensor) -> Any:
        return torch.rand_like(x) + x

    with pytest.raises(UnsupportedError, match="draws random numbers"):
        plan_of(program_of(function, torch.randn(8)))


@pytest.mark.parametrize("module", [torch.nn.LSTM(8, 8), torch.nn.GRU(8, 8)])
def test_what_may_drop_values_out_and_does_not_is_run_by_torch(module: torch.nn.Module) -> None:
    x = torch.randn(3, 2, 8)
    program = program_of(module, x)
    found = session_of(program).run({"input_0": x.numpy()}).values()
    for one, wanted in zip(found, program.run(input_0=x), strict=True):
        torch.testing.assert_close(torch.from_numpy(one), wanted)


def test_dropout_that_is_on_is_refused() -> None:
    def function(x: Tensor) -> Any:
        return F.scaled_dot_product_attention(x, x, x, dropout_p=0.5)

    with pytest.raises(UnsupportedError, match="draws random numbers"):
        plan_of(program_of(function, torch.randn(1, 1, 4, 8)))


# Plans from strangers ----------------------------------------------------------------------

Change = Callable[[dict[str, Any]], Any]


def _set(*path: Any, to: Any) -> Change:
    def change(plan: dict[str, Any]) -> None:
        place: Any = plan
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = to

    return change


def _call(operator: str, *args: Any) -> Change:
    def change(plan: dict[str, Any]) -> None:
        extern = next(step for step in plan["steps"] if step["kind"] == "extern")
        extern |= {"operator": operator, "args": list(args)}

    return change


def _argument(name: str, to: Any) -> Change:
    return _set("steps", 0, "arguments", name, to=to)


def _constant(name: str, to: Any) -> Change:
    def change(plan: dict[str, Any]) -> None:
        for one in plan["variants"].values():
            one["constants"][name] = to

    return change


NOT_THERE, OUTSIDE, FOREIGN = "not there|not have", "outside of its tensors", "plans may call"
HOSTILE: dict[str, tuple[Change, str]] = {
    "an offset behind the buffer": (_set("values", 2, "offset", to="1000000"), "ends after"),
    "a negative offset": (_set("values", 2, "offset", to="-8"), "negative size or stride"),
    "a negative stride": (_set("values", 2, "stride", to=["-16", "1"]), "negative size or stride"),
    "too few strides": (_set("values", 2, "stride", to=["16"]), "other strides than axes"),
    "a stride out of the buffer": (_set("values", 2, "stride", to=["99*seq", "1"]), "ends after"),
    "a size that grows": (_set("values", 2, "shape", to=["9*" * 1100, "1"]), "2000 characters"),
    "a size of many bits": (_set("values", 2, "shape", to=["9*" * 90 + "9", "1"]), "63 bits"),
    "a size that is code": (_set("values", 2, "shape", to=["exit()", "16"]), "cannot be computed"),
    "a size of unknown dims": (
        _set("values", 2, "shape", to=["other", "16"]),
        "cannot be computed",
    ),
    "a division by zero": (_set("values", 2, "shape", to=["seq//0", "16"]), "by zero"),
    "memory that is not there": (_set("values", 0, "number", to=7), NOT_THERE),
    "a value that is not there": (_set("outputs", 0, "value", to=10_000), NOT_THERE),
    "a value that nothing made": (_set("values", 0, "of", to="made"), "which nothing made"),
    "an unknown kernel": (_set("steps", 0, "kernel", to="other"), "no variant"),
    "an unknown variant": (_set("steps", 0, "buckets", 0, "variant", to="norm-0"), "no variant"),
    "another argument": (_set("steps", 0, "arguments", "more", to=None), "other arguments"),
    "a pointer for a number": (_argument("rows", {"value": 0}), "is no i32"),
    "more rows than there are": (_argument("rows", {"size": "batch*seq*64"}), OUTSIDE),
    "rows that lie further apart": (_argument("x_stride", {"size": "65536"}), OUTSIDE),
    "rows that lie backwards": (_argument("x_stride", {"size": "-1600"}), OUTSIDE),
    "a number of 64 bits": (_argument("rows", {"size": "4294967297"}), "too large"),
    "a stride that is not aligned": (_argument("x_stride", {"size": "15"}), "no multiple of 16"),
    "too many programs": (_set("steps", 0, "grid", to=["1", "70000"]), "too many"),
    "a negative grid": (_set("steps", 0, "grid", to=["-1"]), "too many"),
    "a slot of negative size": (_set("slots", 0, to=["-64"]), "negative size"),
    "a slot that is too small": (_set("slots", 0, to=["64"]), "ends after"),
    "an operator that reads files": (_call("aten.from_file.default", "/etc/passwd"), FOREIGN),
    "an operator that writes": (_call("aten.add_.Tensor", {"value": 0}, 1), FOREIGN),
    "an operator of another library": (_call("os.system.default", "true"), FOREIGN),
    "an argument of no known kind": (_call("aten.abs.default", {"file": "x"}), "not known here"),
    "a dtype by its number": (_call("aten.to.dtype", {"value": 0}, 15), "is no ScalarType"),
    "a value by its name": (_call("aten.abs.default", {"value": "x"}), "does not run"),
    "a result of another shape": (_call("aten.sum.default", {"value": 0}), "the plan has"),
    "other constants": (_constant("MORE", 1), "takes other arguments"),
    "a dim of no axis": (_set("dims", 0, "axis", to=9), "size of no axis"),
    "another format": (_set("strop_plan", to=2), "has format 2"),
    "no steps": (lambda plan: plan.pop("steps"), "Field required"),
}


def opened(folder: Path, plan: dict[str, Any]) -> PlanSession:
    (folder / "plan.json").write_text(json.dumps(plan))
    weights = {w["name"]: torch.ones(w["shape"]) for w in plan["weights"]}
    save_file(weights, folder / "weights.safetensors")
    return PlanSession(*open_plan(folder), Interpreter())


def test_a_plan_that_nobody_changed_runs(plan: Plan, tmp_path: Path) -> None:
    session = opened(tmp_path, plan.model_dump())
    assert session.run({"input_0": torch.ones(2, 5, 16).numpy()})


@pytest.mark.skipif(torch.cuda.is_available(), reason="kernels are confined by the interpreter")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_plan_is_refused(plan: Plan, tmp_path: Path, name: str) -> None:
    changed = plan.model_dump()
    change, said = HOSTILE[name]
    change(changed)
    with pytest.raises(RuntimeRefusedError, match=said):
        opened(tmp_path, changed).run({"input_0": torch.ones(2, 5, 16).numpy()})


def test_weights_that_are_not_as_the_plan_says_are_refused(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(plan.model_dump_json())
    save_file({"inner.w": torch.ones(17)}, tmp_path / "weights.safetensors")
    with pytest.raises(RuntimeRefusedError, match="do not hold"):
        open_plan(tmp_path)


def test_a_sound_plan_is_sound(plan: Plan) -> None:
    require_sound(plan)


def test_outputs_share_no_memory_with_each_other_or_with_inputs() -> None:
    def function(x: Tensor) -> Any:
        made = torch.tanh(x)
        return made, made, made[0], x

    x = torch.randn(2, 3)
    session = session_of(program_of(function, x))
    given = session.given("input_0", {"input_0": x})
    found = session.run_tensors([given])
    for tensor, wanted in zip(found, function(x), strict=True):
        torch.testing.assert_close(tensor.cpu(), wanted)
    storages = {tensor.untyped_storage().data_ptr() for tensor in (*found, given)}
    assert len(storages) == 5
