"""Target ``cuda``: what the file holds, what it computes as far as the CPU shows, what is refused.

No test needs a GPU: files run on ONNX Runtime's CPU provider, which has all of their operators.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from conftest import Strop, Write
from program_tools import program_of
from torch import Tensor, nn

from strop.bench.models.zoo import ZOO
from strop.compiler import load
from strop.compiler.driver.driver import build
from strop.compiler.frontend.export.capture import capture
from strop.compiler.frontend.inputs import read_inputs
from strop.compiler.ir.program import Program
from strop.compiler.lower.choices import Choices, shipped
from strop.compiler.lower.onnx.lowering import lower_to_onnx
from strop.compiler.lower.onnx.table import TABLE
from strop.compiler.recipes.loading import load_recipe
from strop.compiler.rewriting.context import Context
from strop.compiler.targets.onnxruntime import providers
from strop.compiler.targets.runtime import runtime_of
from strop.compiler.targets.target import CPU, CUDA
from strop.compiler.util.errors import RuntimeRefusedError, UsageError
from strop.passes.precision.precision import Precision
from strop.passes.quantize.control.control import AccuracyControl
from strop.passes.quantize.dynamic import QuantizeDynamic
from strop.passes.quantize.static import QuantizeStatic
from strop.passes.quantize.weights import QuantizeWeights

strop_ops = torch.ops.strop
SEED = torch.Generator().manual_seed(0)
HALF_STEP = 2**-11
MODEL = """
    import torch
    from strop.compiler import Model

    class Small(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.down = torch.nn.Linear(64, 128), torch.nn.Linear(128, 64)
            self.norm = torch.nn.LayerNorm(64)

        def forward(self, x):
            return self.norm(x + self.down(torch.nn.functional.gelu(self.up(x))))

    def make():
        torch.manual_seed(0)
        return Model(Small().eval(), {"x": torch.randn(3, 5, 64)}, {"x": {0: ("batch", 1, 8)}})
"""


def values(*sizes: int) -> Tensor:
    return torch.randn(*sizes, generator=SEED)


def lowered(program: Program) -> ir.Model:
    return lower_to_onnx(program, CUDA, shipped(CUDA))


def operators(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph)


def run(model: ir.Model, *inputs: Tensor) -> list[Any]:
    """Outputs of a file on the CPU provider."""
    content = ir.serde.serialize_model(model).SerializeToString()
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    feeds = zip((i.name for i in session.get_inputs()), inputs)
    result: list[Any] = session.run(None, {name: x.numpy() for name, x in feeds})
    return result


def in_half(
    function: Callable[..., Any] | nn.Module, *inputs: Tensor, **weights: Tensor
) -> Program:
    return Precision().run(program_of(function, *inputs, **weights)).program


def assert_near(
    function: Callable[..., Any], model: ir.Model, *inputs: Tensor, steps: float = 8
) -> None:
    (got,), want = run(model, *inputs), function(*inputs)
    assert np.isfinite(got).all() == bool(want.isfinite().all())
    scale = max(float(want.abs().nan_to_num().max()), 1.0)
    np.testing.assert_allclose(got, want.numpy(), rtol=0, atol=steps * HALF_STEP * scale)


# Operators -----------------------------------------------------------------------------------

WEIGHT, VECTOR = values(32, 32) / 6, values(32)
PACKED = values(2, 5, 32)


def nbits(x: Tensor) -> Any:
    scale = strop_ops.group_scale(WEIGHT, 1, 4, True)
    return strop_ops.linear_nbits(x, WEIGHT, scale, None, VECTOR, 4)


ROWS: dict[str, tuple[Callable[[Tensor], Any], dict[str, int]]] = {
    "linear": (lambda x: F.linear(x, WEIGHT, VECTOR), {"FusedMatMul": 1, "Add": 1}),
    "a norm after a sum": (
        lambda x: strop_ops.skip_layer_norm(x, x * 0.5, VECTOR, VECTOR, 1e-5)[0],
        {"SkipLayerNormalization": 1, "Mul": 1},
    ),
    "a root mean square after a sum": (
        lambda x: strop_ops.skip_rms_norm(x, x * 0.5, VECTOR, 1e-5)[0],
        {"SkipSimplifiedLayerNormalization": 1, "Mul": 1},
    ),
    "a norm after a sum of four axes": (
        lambda x: strop_ops.skip_layer_norm(x[None], x[None], VECTOR, VECTOR, 1e-5)[0],
        {"LayerNormalization": 1, "Add": 1},
    ),
    "bias and GELU": (lambda x: strop_ops.bias_gelu(x, VECTOR, "none"), {"BiasGelu": 1}),
    "bias and GELU by tanh": (lambda x: strop_ops.bias_gelu(x, VECTOR, "tanh"), {"FastGelu": 1}),
    "gate": (lambda x: strop_ops.gated(x, x * 0.5, "silu"), {"QuickGelu": 1, "Mul": 2}),
    "weights of 4 bits": (nbits, {"MatMulNBits": 1, "Add": 1}),
    "rotation": (
        lambda x: strop_ops.rotary(x, x[:, :, :4].cos(), x[:, :, :4].sin(), 4),
        {"RotaryEmbedding": 1},
    ),
}


@pytest.mark.parametrize("case", ROWS)
def test_operators_are_the_runtimes_own(case: str) -> None:
    function, wanted = ROWS[case]
    model = lowered(in_half(function, PACKED))
    found = operators(model)
    for name, count in wanted.items():
        assert found[name] == count, found
    assert_near(function, model, PACKED)


def test_packed_weights_are_symmetric_in_blocks_of_32_with_float16_scales() -> None:
    model = lowered(in_half(nbits, PACKED))
    (product,) = [n for n in model.graph if n.op_type == "MatMulNBits"]
    assert [i is None for i in product.inputs] == [False, False, False]
    assert product.inputs[2].dtype == ir.DataType.FLOAT16
    settings = {name: a.value for name, a in product.attributes.items()}
    assert (settings["bits"], settings["block_size"]) == (4, 32)


def test_every_preference_names_an_emitter_that_is_there() -> None:
    table = {str(op).removesuffix(".default"): set(row) for op, row in TABLE.items()}
    preferred = shipped(CUDA).preferred
    assert preferred
    for operator, variant in preferred.items():
        assert variant in table[operator]


@pytest.mark.parametrize("text", ['{"basis": "", "preferred": {"a": "b"}}', '{"milliseconds": {}}'])
def test_a_table_of_preferences_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Choices.modelled(text, "the table")


def test_what_was_measured_counts_more_than_what_is_preferred() -> None:
    operator = strop_ops.bias_gelu.default
    both = Choices({"strop.bias_gelu": {"add_gelu": {"any": 0.1}}}, {"strop.bias_gelu": "contrib"})
    assert both.variant(operator, ["add_gelu", "contrib"]) == "add_gelu"
    unknown = Choices({}, {"strop.bias_gelu": "another"})
    assert unknown.variant(operator, ["add_gelu", "contrib"]) == "add_gelu"


# Attention -----------------------------------------------------------------------------------

KEYS = torch.tensor([[1, 1, 1, 0, 0], [0, 1, 1, 1, 1], [0, 0, 0, 0, 0]]).bool()
QUERIES = values(3, 5, 32)
GROUPED = values(3, 5, 16)


def attend(
    mask: Tensor | None = None, causal: bool = False, kv: int = 4, scale: float = 0.35
) -> Callable[[Tensor, Tensor], Any]:
    def function(q: Tensor, k: Tensor) -> Any:
        return strop_ops.attention(q, k, k, mask, 4, kv, scale, causal)

    return function


PADDING = KEYS[:, None, None, :]
ROWS_OF_KEYS = (values(3, 1, 5, 5) > -0.3) & (torch.arange(5) != 2)[:, None]
HIDDEN_ROW = torch.zeros(5, 5).masked_fill(torch.arange(5)[:, None] == 2, -torch.inf)
CALLS: dict[str, tuple[Callable[..., Any], Tensor, str]] = {
    "all keys": (attend(), QUERIES, "MultiHeadAttention"),
    "causal": (attend(causal=True), QUERIES, "MultiHeadAttention"),
    "padding": (attend(PADDING), QUERIES, "MultiHeadAttention"),
    "padding, causal": (attend(PADDING, causal=True), QUERIES, "MultiHeadAttention"),
    "a mask of rows": (attend(ROWS_OF_KEYS), QUERIES, "MultiHeadAttention"),
    "a mask of rows, causal": (attend(ROWS_OF_KEYS, causal=True), QUERIES, "Softmax"),
    "a mask of heads": (attend(values(1, 4, 5, 5) > 0), QUERIES, "Softmax"),
    "a bias": (attend(values(1, 4, 5, 5)), QUERIES, "MultiHeadAttention"),
    "a bias of two axes": (attend(values(5, 5)), QUERIES, "MultiHeadAttention"),
    "a bias, causal": (attend(values(5, 5), causal=True), QUERIES, "MultiHeadAttention"),
    "grouped": (attend(kv=2), GROUPED, "MultiHeadAttention"),
    "grouped, causal": (attend(kv=2, causal=True), GROUPED, "GroupQueryAttention"),
    "grouped, padding, causal": (
        attend(PADDING, kv=2, causal=True), GROUPED, "MultiHeadAttention"
    ),
    "a negative scale": (attend(scale=-0.35), QUERIES, "Softmax"),
    "a bias that hides a row": (attend(HIDDEN_ROW), QUERIES, "Softmax"),
    "fewer keys": (attend(), values(3, 4, 32), "MultiHeadAttention"),
    "fewer keys, causal": (attend(causal=True), values(3, 4, 32), "Softmax"),
    "keys for every batch": (attend(), values(1, 5, 32), "Softmax"),
}  # fmt: skip


@pytest.mark.parametrize("case", CALLS)
def test_attention_is_fused_where_the_operator_computes_the_same(case: str) -> None:
    """Rows that see no key give 0, as in torch."""
    function, keys, operator = CALLS[case]
    model = lowered(in_half(function, QUERIES, keys))
    assert operators(model)[operator] == 1, operators(model)
    assert_near(function, model, QUERIES, keys)


@pytest.mark.parametrize("case", CALLS)
def test_attention_with_split_heads_gives_the_same(case: str) -> None:
    packed, keys, _ = CALLS[case]
    kv = keys.shape[-1] // 8

    def function(q: Tensor, k: Tensor) -> Tensor:
        split = (t.unflatten(-1, (n, 8)).transpose(1, 2) for t, n in ((q, 4), (k, kv)))
        return packed(*split).transpose(1, 2).flatten(2)

    assert_near(function, lowered(in_half(function, QUERIES, keys)), QUERIES, keys)


def test_torchs_own_attention_is_fused_too() -> None:
    heads = values(2, 4, 5, 8)

    def function(q: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, q, q, is_causal=True)

    model = lowered(in_half(function, heads))
    assert operators(model)["MultiHeadAttention"] == 1
    assert_near(function, model, heads)


@pytest.mark.parametrize("hidden", [-torch.inf, torch.finfo(torch.float32).min, -1e9, -1e4])
def test_masks_that_are_added_keep_their_meaning(hidden: float) -> None:
    mask = torch.zeros(PADDING.shape).masked_fill(~PADDING, hidden)
    heads = values(3, 4, 5, 8)

    def function(q: Tensor, mask: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, q, q, mask)

    model = lowered(in_half(function, heads, mask))
    assert operators(model)["Softmax"] == 1  # in float32: the caller may give any number
    assert_near(function, model, heads, mask)


def test_grouped_attention_in_float32_has_no_kernel_and_is_not_asked_for() -> None:
    program = program_of(attend(kv=2, causal=True), QUERIES, GROUPED)
    assert operators(lowered(program))["GroupQueryAttention"] == 0


# Whole models --------------------------------------------------------------------------------

QUICK = ("vit",)


def optimized(name: str, recipe: str) -> tuple[Program, Program, dict[str, Tensor]]:
    model = ZOO[name].make()
    signature, example, _ = read_inputs(model)
    with torch.no_grad():
        program = capture(model.module, signature, example)
    pipeline = load_recipe(recipe).pipeline().within(Context(target=CUDA))
    return program, pipeline.run(program), example


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in ZOO]
)
def test_models_of_the_zoo_run_as_files_on_the_cpu_provider(name: str) -> None:
    program, after, example = optimized(name, "cuda-fp16")
    read = {str(n.target) for n in after.graph.find_nodes(op="placeholder")}
    got = run(lowered(after), *(x for n, x in example.items() if n in read))
    with torch.no_grad():
        for one, want in zip(got, program.run(**example)):
            scale = max(float(want.abs().max()), 1.0)
            np.testing.assert_allclose(one, want.numpy(), rtol=0, atol=8 * HALF_STEP * scale)


@pytest.mark.parametrize(
    "dtype",
    [
        torch.bfloat16,
        pytest.param(torch.float16, marks=pytest.mark.slow),
        pytest.param(torch.float64, marks=pytest.mark.slow),
    ],
)
def test_models_in_other_dtypes_are_built(dtype: torch.dtype, tmp_path: Path) -> None:
    from strop.compiler import Model

    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(32, 32), nn.LayerNorm(32), nn.Linear(32, 32)).to(dtype).eval()
    built = build(Model(layers, (values(3, 32).to(dtype),)), tmp_path / "out", "cuda-fp16")
    (given,) = built.manifest["contract"]["inputs"]
    assert given["dtype"] == {torch.float16: "f16", torch.float64: "f64"}.get(dtype, "f32")
    names = {n.op_type for n in onnx.load(built.model_path).graph.node}
    assert "LayerNormalization" in names


def test_an_artifact_says_what_it_was_checked_by(
    strop: Strop, write: Write, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = strop("build", write(MODEL), "-o", out, "--recipe", "cuda-w4a16")
    assert result.code == 0, result.err
    manifest = json.loads((out / "manifest.json").read_text())
    if providers.started(CUDA.providers) == CUDA.providers:
        return
    note = manifest["notes"][-1]
    assert note.startswith("CUDAExecutionProvider found no device: ONNX Runtime's CPU provider")
    assert "ran the files in 4 of 4 cases" in note
    assert json.loads((out / "build.json").read_text())["milliseconds"]["artifact"] is None
    for command in (("bench", out), ("debug", "profile", out)):
        ended = strop(*command)
        assert ended.code in (2, 5)
        assert "cuda" in ended.err
    with pytest.raises(RuntimeRefusedError, match="found no device.*--target cpu"):
        load(out)


# Refusals ------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[tuple[str, ...], str]] = {
    "int8 at run time": (("--recipe", "cpu-int8"), "no kernels for activations in int8"),
    "int8 beforehand": (("--recipe", "cpu-int8-static"), "no kernels for activations in int8"),
    "zero points": (("--recipe", "cpu-int4"), "symmetric weights only: set symmetric=true"),
    "other groups": (
        ("--recipe", "cuda-w4a16", "--set", "quantize-weights.group=64"), "groups of 32",
    ),
    "whole rows": (
        ("--recipe", "cuda-w4a16", "--set", "quantize-weights.group=0"), "groups of 32",
    ),
    "measuring": (("--recipe", "cuda-fp16", "--tune"), "nothing can be measured for cuda here"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_kernels_is_refused_before_anything_is_compiled(
    case: str, strop: Strop, write: Write, tmp_path: Path
) -> None:
    options, reason = REFUSED[case]
    # The model fails as soon as it runs.
    source = write(MODEL.replace("return self.norm", "return self.no_such_norm"))
    ended = strop("build", source, "-o", tmp_path / "out", "--target", "cuda", *options)
    assert (ended.code, reason in ended.err) == (2, True), ended.err


@pytest.mark.parametrize(
    "by",
    [
        QuantizeDynamic(),
        QuantizeStatic(),
        AccuracyControl(min_cosine=0.9),
        QuantizeWeights(),
        QuantizeWeights(symmetric=True, group=128),
    ],
)
def test_passes_refuse_the_target(by: Any) -> None:
    assert by.refused_by(CUDA)
    assert by.refused_by(CPU) is None


def test_int8_products_that_are_there_all_the_same_are_not_lowered() -> None:
    def layer(x: Tensor) -> Any:
        return strop_ops.linear_w8a8_rows(x, WEIGHT, strop_ops.int8_scale(WEIGHT), None)

    rows_as_floats = lower_to_onnx(in_half(layer, PACKED), CUDA, shipped(CUDA))
    assert not operators(rows_as_floats) & Counter(["MatMulIntegerToFloat", "QuantizeLinear"])


def test_a_provider_that_does_not_start_is_stood_in_for(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = runtime_of(CUDA)
    monkeypatch.setattr(providers, "_starts", lambda provider: True)
    assert runtime.stand_in(CUDA) is None
    monkeypatch.setattr(providers, "_starts", lambda provider: False)
    found = runtime.stand_in(CUDA)
    assert found is not None
    assert "CPU provider" in found.name
    assert runtime.stand_in(CPU) is None
    unknown = dataclasses.replace(CUDA, providers=("NoSuchProvider", "CPUExecutionProvider"))
    monkeypatch.undo()
    assert providers.started(unknown.providers) == ("CPUExecutionProvider",)
