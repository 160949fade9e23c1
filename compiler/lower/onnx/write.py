"""Write an ONNX model as a stream: one weight in memory at a time, whatever the size.

Protobuf's own serializer holds the whole file in memory, twice. An ONNX file is a few nested
length-prefixed fields, so here the small parts are serialized by protobuf and the weights are
copied between them. Readers cannot tell the difference.
"""

from __future__ import annotations

import hashlib
import os
from io import BufferedRandom
from pathlib import Path
from typing import Any, BinaryIO

import onnx_ir as ir
from onnx import TensorProto

from strop.compiler.ir.constants import weights_behind
from strop.compiler.lower.onnx.emitter import COMPUTED_FROM
from strop.compiler.lower.shared import SharedWeights, Stored

# Protobuf ends at 2 GiB; the graph itself needs some of that.
EXTERNAL_DATA_OVER = 1_800_000_000
# Small tensors stay in the graph, where ONNX Runtime wants to read shapes and axes.
EXTERNAL_TENSOR_FROM = 1024
# External tensors begin on a page, so that they can be mapped.
PAGE = 4096
# Keys of length-delimited fields: (field number << 3) | 2.
MODEL_GRAPH = bytes([7 << 3 | 2])
GRAPH_INITIALIZER = bytes([5 << 3 | 2])
TENSOR_RAW_DATA = bytes([9 << 3 | 2])


def write_model(model: ir.Model, path: Path, external_over: int = EXTERNAL_DATA_OVER) -> list[str]:
    """Write a model; its weights go to ``<name>.data`` where their bytes exceed a limit.

    Returns:
        The names of the files written.
    """
    tensors = [_tensor_of(value) for value in model.graph.initializers.values()]
    if sum(t.nbytes for t in tensors) > external_over:
        return write_beside(model, path, path.with_name(f"{path.name}.data"), SharedWeights())
    _write_file(model, path, [(_header(t), t) for t in tensors])
    return [path.name]


def write_beside(model: ir.Model, path: Path, data: Path, shared: SharedWeights) -> list[str]:
    """Write a model whose weights go to a file of data that holds those of other models, too.

    Returns:
        The names of the files written.
    """
    inside: list[tuple[TensorProto, Any]] = []
    with data.open("r+b" if shared.places else "w+b") as stream:
        stream.seek(0, os.SEEK_END)
        for value in model.graph.initializers.values():
            tensor = _tensor_of(value)
            header = _header(tensor)
            small = tensor.nbytes < EXTERNAL_TENSOR_FROM
            if not small:
                place, again = _put_outside(tensor, stream, shared.places)
                _point(header, data.name, place, tensor.nbytes)
                weights = weights_behind(value.meta.get(COMPUTED_FROM, ()))
                shared.stored.append(Stored(path.stem, tensor.nbytes, weights, again))
            inside.append((header, tensor if small else None))
    _write_file(model, path, inside)
    return [path.name, data.name]


def _tensor_of(value: ir.Value) -> Any:
    """An initializer's tensor, under the name by which nodes know it."""
    assert value.const_value is not None, f"initializer {value.name} has no value"
    value.const_value.name = value.name
    return value.const_value


def _header(tensor: Any) -> TensorProto:
    """Everything of a tensor but its data."""
    return TensorProto(
        name=tensor.name, data_type=int(tensor.dtype), dims=[int(s) for s in tensor.shape]
    )


def _put_outside(tensor: Any, stream: BufferedRandom, places: dict[bytes, int]) -> tuple[int, bool]:
    """Where a tensor lies in the data file, and whether an equal one was there already.

    It is written to find out what it holds: some weights are computed as they are written.
    """
    end = stream.tell()
    start = -(-end // PAGE) * PAGE
    stream.write(bytes(start - end))
    _put_bytes(tensor, stream)
    stream.seek(start)
    place = places.setdefault(hashlib.file_digest(stream, "sha256").digest(), start)
    if place == start:
        return start, False
    stream.seek(end)
    stream.truncate()
    return place, True


def _point(header: TensorProto, location: str, offset: int, length: int) -> None:
    """Say in a tensor's header where its data lies."""
    header.data_location = TensorProto.EXTERNAL
    for key, entry in (("location", location), ("offset", offset), ("length", length)):
        header.external_data.add(key=key, value=str(entry))


def _put_bytes(tensor: Any, stream: BinaryIO) -> None:
    start = stream.tell()
    tensor.tofile(stream)
    assert stream.tell() - start == tensor.nbytes, f"weight {tensor.name} has another size"


def _write_file(model: ir.Model, path: Path, weights: list[tuple[TensorProto, Any]]) -> None:
    """Write the ONNX file; a weight without a tensor has its data elsewhere."""
    model_bytes, graph_bytes = _without_initializers(model)
    fields = []
    for header, tensor in weights:
        fixed = header.SerializeToString()
        raw = b"" if tensor is None else TENSOR_RAW_DATA + _varint(tensor.nbytes)
        length = len(fixed) + len(raw) + (0 if tensor is None else tensor.nbytes)
        fields.append((GRAPH_INITIALIZER + _varint(length) + fixed + raw, tensor))
    total = len(graph_bytes) + sum(len(f) + (t.nbytes if t is not None else 0) for f, t in fields)
    with path.open("wb") as stream:
        stream.write(model_bytes + MODEL_GRAPH + _varint(total) + graph_bytes)
        for field, tensor in fields:
            stream.write(field)
            if tensor is not None:
                _put_bytes(tensor, stream)


def _without_initializers(model: ir.Model) -> tuple[bytes, bytes]:
    """The serialized model without its graph, and the serialized graph without its weights."""
    weights = dict(model.graph.initializers)
    model.graph.initializers.clear()
    proto = ir.to_proto(model)
    model.graph.initializers.update(weights)
    graph = proto.graph.SerializeToString()
    proto.ClearField("graph")
    return proto.SerializeToString(), graph


def _varint(number: int) -> bytes:
    """Protobuf's base-128 integer, least significant group first."""
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*groups, number])
