"""Times of single nodes in ONNX Runtime: what is fast, and which form a lowering should take.

``python -m strop.bench.kernels`` re-measures the rows below and the emitter choices, and with
``--ship`` writes the table of choices that strop ships for CPUs.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnx_ir as ir
import typer
from onnx_ir import tape

from strop.bench.figures import RESULTS, console, save
from strop.bench.machine import environment
from strop.compiler.lower.choices import Milliseconds
from strop.compiler.lower.onnx import tune
from strop.compiler.lower.onnx.write import write_model
from strop.compiler.targets.target import CPU
from strop.compiler.util.moving import Progress
from strop.compiler.util.shown import shown
from strop.compiler.util.terminal import Table

MICROSOFT = "com.microsoft"
HIDDEN, WIDE, HEADS = 384, 1536, 12
SHIPPED = Path(tune.__file__).with_name("measured_cpu.json")
RNG = np.random.default_rng(0)
Shape = tuple[int, ...]


class Build(tape.Tape):
    """A graph under construction; weights are random, and drawn in order."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs: list[ir.Value] = []
        self.feeds: dict[str, Any] = {}

    def feed(self, *shape: int) -> ir.Value:
        """A float input."""
        name = f"x{len(self.inputs)}"
        kind = ir.TensorType(ir.DataType.FLOAT)
        self.inputs.append(ir.Value(name=name, type=kind, shape=ir.Shape(shape)))
        self.feeds[name] = RNG.normal(size=shape).astype(np.float32)
        return self.inputs[-1]

    def weight(self, *shape: int, dtype: Any = np.float32) -> ir.Value:
        """A random constant: normal for floats, the whole range for integers."""
        if np.dtype(dtype).kind == "f":
            array = RNG.normal(size=shape).astype(dtype)
        else:
            info = np.iinfo(dtype)
            array = RNG.integers(info.min, info.max, size=shape, dtype=dtype, endpoint=True)
        return self.constant(array)

    def constant(self, array: Any) -> ir.Value:
        """A given constant."""
        return self.initializer(ir.tensor(array), name=f"w{len(self.initializers)}")

    def contrib(self, op_type: str, *inputs: Any, **attributes: Any) -> Any:
        """A node of ``com.microsoft``."""
        return self.op(op_type, inputs, attributes, domain=MICROSOFT)


@dataclass(frozen=True)
class Kernel:
    """One form of one computation.

    Attributes:
        group: kernels of a group compute comparable things.
        name: the form.
        shapes: batch and sequence, or for convolutions batch and side, at which it is timed.
        make: builds the graph and returns its output.
    """

    group: str
    name: str
    shapes: tuple[Shape, ...]
    make: Callable[..., Any]


ROWS: list[Kernel] = []
TEXT: tuple[Shape, ...] = ((1, 1), (1, 16), (1, 128), (8, 128))


def _row(group: str, name: str, shapes: tuple[Shape, ...] = TEXT) -> Callable[[Any], Any]:
    def enter(make: Callable[..., Any]) -> Callable[..., Any]:
        ROWS.append(Kernel(group, name, shapes, make))
        return make

    return enter


def _simple(group: str, name: str, width: int, **attributes: Any) -> None:
    """A node with one activation and, where its name says so, a bias; or two activations."""
    op_type, _, more = name.partition(" + ")
    domain = MICROSOFT if op_type in ("BiasGelu", "FastGelu", "QuickGelu") else ""

    @_row(group, name)
    def make(b: Build, batch: int, seq: int) -> Any:
        second = {"bias": lambda: b.weight(width), "input": lambda: b.feed(batch, seq, width)}
        x = b.feed(batch, seq, width)
        return b.op(op_type, [x, *([second[more]()] if more else [])], attributes, domain=domain)


_simple("residual and norm", "Add + input", HIDDEN)
_simple("residual and norm", "Sum + input", HIDDEN)
_simple("gelu", "Gelu", WIDE)
_simple("gelu", "BiasGelu + bias", WIDE)
_simple("gelu", "FastGelu + bias", WIDE)


@_row("quantize", "DynamicQuantizeLinear")
def _quantize(b: Build, batch: int, seq: int) -> Any:
    return b.op_multi_out("DynamicQuantizeLinear", [b.feed(batch, seq, HIDDEN)], num_outputs=3)[0]


def _norm(b: Build, x: Any) -> Any:
    return b.op("LayerNormalization", [x, b.weight(HIDDEN), b.weight(HIDDEN)], {"axis": -1})


@_row("residual and norm", "LayerNormalization")
def _layer_norm(b: Build, batch: int, seq: int) -> Any:
    return _norm(b, b.feed(batch, seq, HIDDEN))


@_row("residual and norm", "Sum, LayerNormalization")
def _sum_norm(b: Build, batch: int, seq: int) -> Any:
    return _norm(b, b.op("Sum", [b.feed(batch, seq, HIDDEN), b.feed(batch, seq, HIDDEN)]))


@_row("residual and norm", "SkipLayerNormalization")
def _skip_norm(b: Build, batch: int, seq: int) -> Any:
    x, skip = b.feed(batch, seq, HIDDEN), b.feed(batch, seq, HIDDEN)
    return b.contrib("SkipLayerNormalization", x, skip, b.weight(HIDDEN), b.weight(HIDDEN))


@_row("residual and norm", "RMSNormalization")
def _rms_norm(b: Build, batch: int, seq: int) -> Any:
    return b.op("RMSNormalization", [b.feed(batch, seq, HIDDEN), b.weight(HIDDEN)], {"axis": -1})


@_row("residual and norm", "SkipSimplifiedLayerNormalization")
def _skip_rms(b: Build, batch: int, seq: int) -> Any:
    x, skip = b.feed(batch, seq, HIDDEN), b.feed(batch, seq, HIDDEN)
    return b.contrib("SkipSimplifiedLayerNormalization", x, skip, b.weight(HIDDEN))


@_row("gelu", "Add, Gelu (fused by the runtime)")
def _add_gelu(b: Build, batch: int, seq: int) -> Any:
    return b.op("Gelu", [b.op("Add", [b.feed(batch, seq, WIDE), b.weight(WIDE)])])


@_row("gelu", "Sum, Gelu")
def _sum_gelu(b: Build, batch: int, seq: int) -> Any:
    return b.op("Gelu", [b.op("Sum", [b.feed(batch, seq, WIDE), b.weight(WIDE)])])


def _qkv(b: Build, batch: int, seq: int) -> list[Any]:
    return [b.feed(batch, seq, HIDDEN) for _ in range(3)]


@_row("attention", "Attention (opset 23), additive mask")
def _attention(b: Build, batch: int, seq: int) -> Any:
    heads = {"q_num_heads": HEADS, "kv_num_heads": HEADS}
    mask = b.feed(batch, 1, seq, seq)
    return b.op("Attention", [*_qkv(b, batch, seq), mask], heads)


@_row("attention", "Attention (opset 23), no mask")
def _attention_bare(b: Build, batch: int, seq: int) -> Any:
    return b.op("Attention", _qkv(b, batch, seq), {"q_num_heads": HEADS, "kv_num_heads": HEADS})


@_row("attention", "MultiHeadAttention, key mask")
def _mha(b: Build, batch: int, seq: int) -> Any:
    mask = b.constant(np.ones((batch, seq), np.int32))
    return b.contrib("MultiHeadAttention", *_qkv(b, batch, seq), None, mask, num_heads=HEADS)


@_row("attention", "MultiHeadAttention, no mask")
def _mha_bare(b: Build, batch: int, seq: int) -> Any:
    return b.contrib("MultiHeadAttention", *_qkv(b, batch, seq), num_heads=HEADS)


@_row("attention", "MatMul, Softmax, MatMul")
def _composed(b: Build, batch: int, seq: int) -> Any:
    split = b.constant(np.array([0, 0, HEADS, HIDDEN // HEADS]))
    joined = b.constant(np.array([0, 0, HIDDEN]))
    q, k, v = (b.op("Reshape", [x, split]) for x in _qkv(b, batch, seq))
    q, v = (b.op("Transpose", [x], {"perm": [0, 2, 1, 3]}) for x in (q, v))
    k = b.op("Transpose", [k], {"perm": [0, 2, 3, 1]})
    scores = b.op("Add", [b.op("MatMul", [q, k]), b.feed(batch, 1, seq, seq)])
    out = b.op("MatMul", [b.op("Softmax", [scores], {"axis": -1}), v])
    return b.op("Reshape", [b.op("Transpose", [out], {"perm": [0, 2, 1, 3]}), joined])


@_row("linear 384 to 1536", "MatMul, no bias")
def _matmul(b: Build, batch: int, seq: int) -> Any:
    return b.op("MatMul", [b.feed(batch, seq, HIDDEN), b.weight(HIDDEN, WIDE)])


@_row("linear 384 to 1536", "MatMul, Add")
def _matmul_add(b: Build, batch: int, seq: int) -> Any:
    return b.op("Add", [_matmul(b, batch, seq), b.weight(WIDE)])


@_row("linear 384 to 1536", "FusedMatMul transB, no bias")
def _fused_matmul(b: Build, batch: int, seq: int) -> Any:
    return b.contrib("FusedMatMul", b.feed(batch, seq, HIDDEN), b.weight(WIDE, HIDDEN), transB=1)


@_row("linear 384 to 1536", "FusedMatMul transB, Add")
def _fused_matmul_add(b: Build, batch: int, seq: int) -> Any:
    return b.op("Add", [_fused_matmul(b, batch, seq), b.weight(WIDE)])


@_row("linear 384 to 1536", "Reshape, Gemm transB with bias, Reshape")
def _gemm(b: Build, batch: int, seq: int) -> Any:
    flat = b.op("Reshape", [b.feed(batch, seq, HIDDEN), b.constant(np.array([-1, HIDDEN]))])
    out = b.op("Gemm", [flat, b.weight(WIDE, HIDDEN), b.weight(WIDE)], {"transB": 1})
    return b.op("Reshape", [out, b.constant(np.array([batch, seq, WIDE]))])


@_row("linear 384 to 1536", "DynamicQuantizeMatMul with bias")
def _dynamic_int8(b: Build, batch: int, seq: int) -> Any:
    grid, scale = b.weight(HIDDEN, WIDE, dtype=np.int8), b.constant(np.full(WIDE, 1e-2, np.float32))
    x = b.feed(batch, seq, HIDDEN)
    return b.contrib("DynamicQuantizeMatMul", x, grid, scale, None, b.weight(WIDE))


def _nbits(bits: int) -> None:
    @_row("linear 384 to 1536", f"MatMulNBits int{bits}, block 32, accuracy_level 4")
    def make(b: Build, batch: int, seq: int) -> Any:
        blocks = HIDDEN // 32
        packed = b.weight(WIDE, blocks, 32 * bits // 8, dtype=np.uint8)
        scales = b.constant(np.full((WIDE, blocks), 1e-2, np.float32))
        sizes = {"K": HIDDEN, "N": WIDE, "bits": bits, "block_size": 32, "accuracy_level": 4}
        return b.contrib("MatMulNBits", b.feed(batch, seq, HIDDEN), packed, scales, **sizes)


_nbits(4)
_nbits(8)


@_row("q, k and v 384 to 384", "one MatMul, Split")
def _packed_qkv(b: Build, batch: int, seq: int) -> Any:
    out = b.op("MatMul", [b.feed(batch, seq, HIDDEN), b.weight(HIDDEN, 3 * HIDDEN)])
    parts = b.op_multi_out("Split", [out], {"axis": -1, "num_outputs": 3}, num_outputs=3)
    return b.op("Sum", list(parts))


@_row("q, k and v 384 to 384", "three MatMuls")
def _three(b: Build, batch: int, seq: int) -> Any:
    x = b.feed(batch, seq, HIDDEN)
    return b.op("Sum", [b.op("MatMul", [x, b.weight(HIDDEN, HIDDEN)]) for _ in range(3)])


def _decode(past: int) -> None:
    """One token against a cache: 8 heads of 64, 2 key and value heads."""

    def token(b: Build, heads: int) -> Any:
        return b.feed(1, 1, heads * 64)

    @_row(f"one token after {past}", "Attention (opset 23)", ((1, 1),))
    def standard(b: Build, batch: int, seq: int) -> Any:
        new = [token(b, 8), token(b, 2), token(b, 2)]
        cache = [b.feed(1, 2, past, 64) for _ in range(2)]
        heads = {"q_num_heads": 8, "kv_num_heads": 2}
        return b.op_multi_out("Attention", [*new, None, *cache], heads, num_outputs=3)[0]

    @_row(f"one token after {past}", "GroupQueryAttention", ((1, 1),))
    def grouped(b: Build, batch: int, seq: int) -> Any:
        new = [token(b, 8), token(b, 2), token(b, 2)]
        cache = [b.feed(1, 2, past, 64) for _ in range(2)]
        lengths = [b.constant(np.array([past], np.int32)), b.constant(np.array(past + 1, np.int32))]
        heads = {"num_heads": 8, "kv_num_heads": 2}
        return b.op_multi_out(
            "GroupQueryAttention", [*new, *cache, *lengths], heads, domain=MICROSOFT, num_outputs=3
        )[0]


_decode(256)
_decode(1024)

IMAGES: tuple[Shape, ...] = ((1, 28), (8, 28))


def _conv(b: Build, batch: int, side: int, bias: bool) -> Any:
    inputs = [b.feed(batch, 64, side, side), b.weight(64, 64, 3, 3)]
    return b.op("Conv", inputs + [b.weight(64)] * bias, {"pads": [1, 1, 1, 1]})


@_row("convolution 3x3, 64 to 64", "Conv with bias", IMAGES)
def _conv_bias(b: Build, batch: int, side: int) -> Any:
    return _conv(b, batch, side, bias=True)


@_row("convolution 3x3, 64 to 64", "Conv, BatchNormalization (folded by the runtime)", IMAGES)
def _conv_bn(b: Build, batch: int, side: int) -> Any:
    scales = [b.constant(np.ones(64, np.float32)) for _ in range(4)]
    return b.op("BatchNormalization", [_conv(b, batch, side, bias=False), *scales])


@_row("convolution 3x3, 64 to 64", "Conv, Add", IMAGES)
def _conv_add(b: Build, batch: int, side: int) -> Any:
    bias = b.constant(np.ones((1, 64, 1, 1), np.float32))
    return b.op("Add", [_conv(b, batch, side, bias=False), bias])


def runner(row: Kernel, shape: Shape) -> tune.Runner:
    """A default session on one row's graph."""
    build = Build()
    output = row.make(build, *shape)
    output.name = "y"
    output.type = ir.TensorType(ir.DataType.UINT8 if row.group == "quantize" else ir.DataType.FLOAT)
    graph = ir.Graph(
        build.inputs,
        [output],
        nodes=build.nodes,
        initializers=build.initializers,
        opset_imports={"": CPU.opset, MICROSOFT: 1},
        name=row.name,
    )
    for i, value in enumerate(v for node in build.nodes for v in node.outputs if v is not output):
        value.name = f"v{i}"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        write_model(ir.Model(graph, ir_version=10), path)
        return tune.session_runner(path, build.feeds, CPU)


def measure_rows(
    rows: Sequence[Kernel], say: Callable[[str], None]
) -> dict[str, dict[str, dict[str, float]]]:
    """Milliseconds by group, shape and form; the forms of a group take turns."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for group in dict.fromkeys(r.group for r in rows):
        members = [r for r in rows if r.group == group]
        for shape in members[0].shapes:
            label = "x".join(map(str, shape))
            say(f"{group} {label}")
            times = tune.interleaved({r.name: runner(r, shape) for r in members})
            rounded = {name: float(f"{ms:.3g}") for name, ms in times.items()}
            found.setdefault(group, {})[label] = rounded
    return found


def print_rows(found: dict[str, dict[str, dict[str, float]]]) -> None:
    """One table a group; the fastest form of each shape is bold."""
    for group, shapes in found.items():
        table = Table("ms", *shapes, title=group)
        for name in next(iter(shapes.values())):
            cells = []
            for times in shapes.values():
                best = times[name] == min(times.values())
                cells.append(shown(f"{times[name]:.4g}", "bold" if best else ""))
            table.add_row(name, *cells)
        console.print(table)


def by_shape(choices: Milliseconds) -> dict[str, dict[str, dict[str, float]]]:
    """Operator, variant, shape turned into operator, shape, variant."""
    return {
        op: {
            shape: {variant: times[shape] for variant, times in variants.items()}
            for shape in next(iter(variants.values()))
        }
        for op, variants in choices.items()
    }


def main(
    ship: Annotated[bool, typer.Option(help="Write the table that strop ships.")] = False,
    results: Annotated[Path, typer.Option(help="Folder for the JSON.")] = RESULTS,
) -> None:
    """Time nodes and emitter variants in default sessions on this machine."""
    place = environment()
    with Progress(console=console, refresh_per_second=1) as progress:
        task = progress.add_task("", total=None)
        rows = measure_rows(ROWS, lambda what: progress.update(task, description=what))
        choices = tune.measure(CPU, lambda what: progress.update(task, description=what))
    print_rows(rows)
    print_rows(by_shape(choices))
    save("kernels", place, [], {"rows": rows, "choices": choices}, results)
    if ship:
        table = tune.describe_machine() | {"milliseconds": choices}
        SHIPPED.write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
