"""The streaming writer: the same model as protobuf's own, with weights inside or beside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from strop.compiler.lower.onnx.write import PAGE, write_model


def _model() -> ir.Model:
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["n", 300]))
    tensors = {
        "w": ir.tensor(
            np.random.default_rng(0).normal(size=(300, 40)).astype(np.float32), name="w"
        ),
        "lazy": ir.LazyTensor(
            lambda: ir.tensor(np.arange(40 * 30, dtype=np.float32).reshape(40, 30)),
            ir.DataType.FLOAT,
            shape=ir.Shape([40, 30]),
            name="lazy",
        ),
        "small": ir.tensor(np.ones(30, dtype=np.float32), name="small"),
        "empty": ir.tensor(np.zeros((0, 30), dtype=np.float32), name="empty"),
    }
    values = {
        n: ir.Value(name=n, const_value=t, type=ir.TensorType(t.dtype), shape=ir.Shape(t.shape))
        for n, t in tensors.items()
    }
    first = ir.node("MatMul", [x, values["w"]])
    second = ir.node("MatMul", [first.outputs[0], values["lazy"]])
    third = ir.node("Add", [second.outputs[0], values["small"]])
    last = ir.node("Concat", [third.outputs[0], values["empty"]], {"axis": 0})
    for i, node in enumerate((first, second, third, last)):
        node.outputs[0].name = f"v{i}"
    last.outputs[0].name = "y"
    last.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    last.outputs[0].shape = ir.Shape(["n", 30])
    graph = ir.Graph(
        [x],
        [last.outputs[0]],
        nodes=[first, second, third, last],
        initializers=list(values.values()),
        opset_imports={"": 23},
        name="g",
    )
    return ir.Model(graph, ir_version=10, producer_name="strop")


def _run(path: Path) -> np.ndarray:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    x = np.linspace(-1, 1, 600, dtype=np.float32).reshape(2, 300)
    return session.run(None, {"x": x})[0]


def test_the_file_says_what_protobufs_own_serializer_says(tmp_path: Path) -> None:
    model = _model()
    assert write_model(model, tmp_path / "m.onnx") == ["m.onnx"]
    got = onnx.load(str(tmp_path / "m.onnx"))
    want = ir.to_proto(model)
    assert [n.op_type for n in got.graph.node] == [n.op_type for n in want.graph.node]
    for a, b in zip(got.graph.initializer, want.graph.initializer):
        assert a.name == b.name
        assert a.raw_data == b.raw_data
        assert a.dims == b.dims
    onnx.checker.check_model(got)


@pytest.mark.parametrize("limit", [0, 5000])
def test_external_data_gives_the_same_outputs(tmp_path: Path, limit: int) -> None:
    for folder in ("inside", "beside"):
        (tmp_path / folder).mkdir()
    write_model(_model(), tmp_path / "inside" / "m.onnx")
    files = write_model(_model(), tmp_path / "beside" / "m.onnx", external_over=limit)
    assert files == ["m.onnx", "m.onnx.data"]
    proto = onnx.load(str(tmp_path / "beside" / "m.onnx"), load_external_data=False)
    outside = [t for t in proto.graph.initializer if t.external_data]
    assert [t.name for t in outside] == ["w", "lazy"]
    offsets = [int({e.key: e.value for e in t.external_data}["offset"]) for t in outside]
    assert all(o % PAGE == 0 for o in offsets)
    onnx.checker.check_model(str(tmp_path / "beside" / "m.onnx"))
    np.testing.assert_array_equal(
        _run(tmp_path / "inside" / "m.onnx"), _run(tmp_path / "beside" / "m.onnx")
    )
