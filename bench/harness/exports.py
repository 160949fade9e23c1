"""How the peers export, convert and quantize the original model.

Each step runs in a process of its own. It takes the model's source, a folder and the name
of a program of the source, and writes its file into the folder, where a later step may read it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from strop.bench.harness.subject import Original, load_original
from strop.bench.processes.spawned import EngineError
from strop.compiler.util.numerics import Array
from strop.compiler.util.quiet import quiet_torch

if TYPE_CHECKING:
    from strop.compiler.frontend.inputs import Signature

EXPORTED, OPTIMIZED, QUANTIZED = "exported.onnx", "optimized.onnx", "quantized.onnx"
HF, HF_QUANTIZED = "hf.onnx", "hf-quantized.onnx"
PREPARED, STATIC = "prepared.onnx", "static.onnx"
OPENVINO, NNCF = "openvino.xml", "nncf.xml"


def export_onnx(source: str, folder: Path, program: str) -> None:
    """``torch.onnx.export`` with dynamic shapes."""
    import torch

    original = load_original(source, program)
    args, kwargs = _call_with(original)
    with quiet_torch(), torch.no_grad():
        torch.onnx.export(
            original.module,
            args,
            str(folder / EXPORTED),
            kwargs=kwargs,
            # Keyword inputs keep their names by themselves.
            input_names=list(original.signature.names) if args else None,
            dynamo=True,
            verbose=False,
            dynamic_shapes=_dynamic(original),
        )


def optimize(source: str, folder: Path, program: str) -> None:
    """ONNX Runtime's ``transformers.optimizer`` on the exported file."""
    from onnxruntime.transformers import optimizer

    config = getattr(load_original(source, program).module, "config", None)
    heads = getattr(config, "num_attention_heads", 0)
    hidden = getattr(config, "hidden_size", 0)
    kind = getattr(config, "model_type", "bert")
    known = kind if kind in optimizer.MODEL_TYPES else "bert"
    model = optimizer.optimize_model(
        str(folder / EXPORTED), model_type=known, num_heads=heads, hidden_size=hidden
    )
    model.save_model_to_file(str(folder / OPTIMIZED), use_external_data_format=True)


def quantize(source: str, folder: Path, program: str) -> None:
    """ONNX Runtime's ``quantize_dynamic`` on the exported file, with its defaults."""
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(folder / EXPORTED, folder / QUANTIZED, use_external_data_format=True)


def quantize_static(source: str, folder: Path, program: str) -> None:
    """ONNX Runtime's ``quantize_static`` after its basic optimizations, on the model's calibration.

    That is what its ``quant_pre_process`` does, which fails on weights beside the model.

    QDQ with u8 activations and s8 weights per channel: the faster of its forms on CPUs.
    """
    import onnxruntime
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    original = load_original(source, program)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folder / PREPARED)
    onnxruntime.InferenceSession(folder / EXPORTED, options)
    quantize_static(
        folder / PREPARED,
        folder / STATIC,
        _Calibration(original),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )


class _Calibration:
    """The model's calibration inputs, one after the other, as ONNX Runtime asks for them."""

    def __init__(self, original: Original) -> None:
        self._batches = iter(original.calibration)

    def get_next(self) -> dict[str, Array] | None:
        """The next inputs, or None after the last."""
        batch = next(self._batches, None)
        return None if batch is None else {name: tensor.numpy() for name, tensor in batch.items()}


def export_hf(source: str, folder: Path, program: str) -> None:
    """``transformers.exporters`` with its fusions for ONNX Runtime."""
    _export_hf(source, folder / HF, program)


def quantize_hf(source: str, folder: Path, program: str) -> None:
    """The same, and its dynamic quantization."""
    from transformers.exporters import OnnxRuntimeDynamicConfig, OnnxRuntimeQuantizer

    quantizer = OnnxRuntimeQuantizer(OnnxRuntimeDynamicConfig())
    _export_hf(source, folder / HF_QUANTIZED, program, quantizer=quantizer)


def _export_hf(source: str, path: Path, program: str, **options: Any) -> None:
    import transformers
    from transformers.exporters import OnnxConfig, OnnxExporter

    original = load_original(source, program)
    if not isinstance(original.module, transformers.PreTrainedModel):
        kind = type(original.module).__name__
        raise EngineError(f"it exports models of transformers only, and this is a {kind}")
    inputs = _export_inputs(original)
    config = OnnxConfig(dynamic_shapes=_dynamic(original), ort_fusions="cpu", **options)
    with quiet_torch():
        exported = OnnxExporter().export(original.module, inputs, config=config)
    OnnxExporter.save_program(exported.program, path)


def convert_openvino(source: str, folder: Path, program: str) -> None:
    """``openvino.convert_model`` on the graph of ``torch.export``, kept in fp32."""
    import openvino
    import torch

    decline_telemetry()
    original = load_original(source, program)
    args, kwargs = _call_with(original)
    with quiet_torch(), torch.no_grad():
        exported = torch.export.export(
            original.module, args, kwargs, dynamic_shapes=_dynamic(original), strict=False
        )
    model = openvino.convert_model(exported)
    openvino.save_model(model, folder / OPENVINO, compress_to_fp16=False)


def quantize_openvino(source: str, folder: Path, program: str) -> None:
    """NNCF's post-training int8 quantization of the OpenVINO file, on the model's calibration."""
    decline_telemetry()
    import nncf
    import openvino

    original = load_original(source, program)
    model = openvino.Core().read_model(folder / OPENVINO)
    names = {name for port in model.inputs for name in port.get_names()}
    samples = [
        {n: t.numpy() for n, t in inputs.items() if n in names} for inputs in original.calibration
    ]
    attends = any(op.get_type_name() == "ScaledDotProductAttention" for op in model.get_ops())
    quantized = nncf.quantize(
        model,
        nncf.Dataset(samples),
        model_type=nncf.ModelType.TRANSFORMER if attends else None,
    )
    openvino.save_model(quantized, folder / NNCF, compress_to_fp16=False)


def decline_telemetry() -> None:
    """OpenVINO's tools send nothing from a CI job."""
    os.environ["CI"] = "true"


def _call_with(original: Original) -> tuple[tuple[Any, ...], dict[str, Any]]:
    inputs = _export_inputs(original)
    return (tuple(inputs.values()), {}) if original.signature.positional else ((), inputs)


def _export_inputs(original: Original) -> dict[str, Any]:
    """The example at sizes of 2 or more where they are dynamic: export fixes sizes of 0 and 1."""
    dims = original.signature.dims
    sizes = {
        dim: min(max(size, 2), dims[dim].max or max(size, 2))
        for dim, size in original.sizes().items()
    }
    return dict(original.at(sizes))


def named_shapes(signature: Signature) -> dict[str, dict[int, Any]]:
    """What ``torch.export`` is told of the axes of keyword inputs: their dims, with ranges."""
    from torch.export import Dim

    dims = {name: Dim(name, min=dim.min, max=dim.max) for name, dim in signature.dims.items()}
    shapes: dict[str, dict[int, Any]] = {name: {} for name in signature.names}
    for name, axis, extent in signature.extents():
        shapes[name][axis] = dims[extent[0]] if len(extent) == 1 else Dim.AUTO
    return shapes


def _dynamic(original: Original) -> Any:
    """All named axes as dynamic; the exporter itself finds out which of them are equal."""
    import torch

    axes = original.signature.axes
    shapes = {
        name: dict.fromkeys(axes.get(name, {}), torch.export.Dim.DYNAMIC)
        for name in original.signature.names
    }
    return tuple(shapes.values()) if original.signature.positional else shapes
