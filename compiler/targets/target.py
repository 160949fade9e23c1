"""What a target can do: policy that passes and lowerings read, never a branch on a name."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from strop.compiler.util.errors import UsageError, did_you_mean

MAIN = "model"
"""The name of the program of an artifact that holds one, after which its file is named."""

PREFILL = "prefill"
"""The name after which a second file of the same program is named, for many new tokens."""


def onnx_file(program: str) -> str:
    """The name of a program's ONNX file."""
    return f"{program}.onnx"


@dataclass(frozen=True)
class Target:
    """A place where an artifact runs.

    Attributes:
        name: how recipes and the command line call it.
        lowering: the room under ``compiler/lower`` that makes its files.
        runtime: the module under ``compiler/targets`` that opens and runs them.
        model_file: the file of the artifact that users open.
        more_files: files that an artifact may have beside it.
        dtypes: names of the dtypes that it computes in; programs in others are computed in these.
        fused_dtypes: names of the dtypes that its fused operators have kernels for.
        dynamic_int8: whether it multiplies u8 activations by s8 weights faster than floats.
        static_int8: how activations with fixed scales are rounded where that is faster than float,
            the fastest first: ``asymmetric`` (u8) or ``symmetric`` (s8), both by s8 weights.
        int32_biases: whether its int8 layers take only biases that are whole numbers.
        fp8: whether it multiplies 8-bit floats (e4m3).
        weight_bits: most bits of packed weights that it multiplies float activations by; 0 where it
            has no such product.
        weight_zero_points: whether each group of packed weights may have a zero point of its own.
        weight_groups: how many input channels of packed weights may share a scale; () where it
            takes groups of any size.
        caches: whether it has attention that reads and continues a cache.
        int8_caches: whether such a cache may be in int8, and is read faster than one in float.
        runs_on_stand_in: whether users may open its files where there is no such device: what runs
            them instead says so itself.
        several_programs: whether an artifact may hold several programs that share weights.
    """

    name: str
    lowering: str
    runtime: str
    model_file: str
    more_files: tuple[str, ...]
    dtypes: frozenset[str]
    fused_dtypes: frozenset[str]
    dynamic_int8: bool
    static_int8: tuple[str, ...]
    int32_biases: bool
    fp8: bool
    weight_bits: int
    weight_zero_points: bool
    weight_groups: tuple[int, ...] = field(default=(), kw_only=True)
    caches: bool = field(default=False, kw_only=True)
    int8_caches: bool = field(default=False, kw_only=True)
    runs_on_stand_in: bool = field(default=False, kw_only=True)
    several_programs: bool = field(default=False, kw_only=True)

    def file_of(self, program: str) -> str:
        """The file of a program that users open."""
        return self.model_file

    @property
    def computes_int8(self) -> bool:
        """Whether it multiplies activations in int8 at all."""
        return self.dynamic_int8 or bool(self.static_int8)

    def computes(self, dtype: object) -> bool:
        """Whether operators take a dtype of torch's."""
        return _name(dtype) in self.dtypes

    def fuses(self, dtype: object) -> bool:
        """Whether fused operators take a dtype of torch's."""
        return _name(dtype) in self.fused_dtypes


def _name(dtype: object) -> str:
    return str(dtype).removeprefix("torch.")


@dataclass(frozen=True)
class OnnxTarget(Target):
    """A target that runs ONNX files.

    Attributes:
        opset: ONNX opset of the lowered model.
        providers: ONNX Runtime execution providers, in order.
        contrib: whether it has ONNX Runtime's own operators; else files are of the standard's.
        packed_biases: whether products with packed weights add a bias as fast as none.
    """

    opset: int
    contrib: bool
    packed_biases: bool
    providers: tuple[str, ...]

    def file_of(self, program: str) -> str:
        """``model.onnx``; for one of several programs, ``encoder.onnx``."""
        return onnx_file(program)


@dataclass(frozen=True)
class TritonTarget(Target):
    """A target that runs compiled Triton kernels, and torch for the rest.

    Attributes:
        arch: of the GPU: ``sm90`` is compute capability 9.0.
    """

    arch: str


ONNX_FILE = onnx_file(MAIN)
ONNX_DATA_FILE = f"{ONNX_FILE}.data"
PLAN_FILE = "plan.json"
WEIGHTS_FILE = "weights.safetensors"
GATE_FILE = "gate.json"
CPU = OnnxTarget(
    "cpu",
    lowering="onnx",
    runtime="onnxruntime",
    model_file=ONNX_FILE,
    more_files=(ONNX_DATA_FILE, onnx_file(PREFILL)),
    several_programs=True,
    dtypes=frozenset({"float32", "float64", "int32", "int64", "bool"}),
    fused_dtypes=frozenset({"float32"}),
    dynamic_int8=True,
    # s8 by s8 runs at a tenth of the speed of floats.
    static_int8=("asymmetric",),
    int32_biases=True,
    fp8=False,
    weight_bits=8,
    weight_zero_points=True,
    caches=True,
    int8_caches=True,
    opset=23,
    contrib=True,
    packed_biases=True,
    providers=("CPUExecutionProvider",),
)
# Any runtime that takes ONNX, of which OpenVINO is measured. ONNX Runtime checks the file.
ONNX = replace(
    CPU,
    name="onnx",
    dynamic_int8=False,
    static_int8=("asymmetric", "symmetric"),
    int8_caches=False,
    contrib=False,
)
# TensorRT takes no zero points, and biases in float.
TENSORRT = replace(ONNX, name="tensorrt", static_int8=("symmetric",), int32_biases=False)
# Read from the sources and the binary of ONNX Runtime 1.31; nothing was run on a GPU. The CUDA
# provider has no QLinearMatMul, QLinearConv, ConvInteger and DynamicQuantizeLinear: products of
# int8 activations would run on the CPU. MatMulNBits has its kernels on tensor cores for float16,
# symmetric weights, blocks of 32, and no bias.
CUDA = replace(
    CPU,
    name="cuda",
    dtypes=CPU.dtypes | {"float16"},
    fused_dtypes=frozenset({"float16", "float32"}),
    dynamic_int8=False,
    static_int8=(),
    # Its operator has them, too; nothing was run on a GPU.
    int8_caches=False,
    weight_zero_points=False,
    weight_groups=(32,),
    packed_biases=False,
    providers=("CUDAExecutionProvider", "CPUExecutionProvider"),
)
# No bfloat16: Triton's interpreter computes it wrongly, so no build could be checked without a GPU.
SM80 = TritonTarget(
    "triton:sm80",
    lowering="triton",
    runtime="triton",
    model_file=PLAN_FILE,
    more_files=(WEIGHTS_FILE, GATE_FILE),
    dtypes=frozenset(
        {"float16", "float32", "float64", "int8", "uint8", "int16", "int32", "int64", "bool"}
    ),
    fused_dtypes=frozenset({"float16", "float32"}),
    # Of rows with a scale each; what has one scale for all rows has no kernel.
    dynamic_int8=True,
    static_int8=(),
    int32_biases=False,
    fp8=False,
    weight_bits=8,
    weight_zero_points=True,
    caches=True,
    runs_on_stand_in=True,
    arch="sm80",
)
SM89 = replace(SM80, name="triton:sm89", fp8=True, arch="sm89")
SM90 = replace(SM89, name="triton:sm90", arch="sm90")
TARGETS: dict[str, Target] = {
    target.name: target for target in (CPU, ONNX, TENSORRT, CUDA, SM80, SM89, SM90)
}


def get_target(name: str) -> Target:
    """Look a target up by name.

    Raises:
        UsageError: no such target.
    """
    if name not in TARGETS:
        raise UsageError(f"unknown target '{name}'{did_you_mean(name, list(TARGETS))}")
    return TARGETS[name]
