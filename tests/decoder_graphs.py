"""Small ONNX decoders with a cache, as ONNX Runtime takes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from strop.compiler.frontend.generation import Generation

VOCABULARY, HEADS, SIZE, CONTEXT = 11, 2, 16, 100
HIDDEN = HEADS * SIZE
KINDS = ("key", "value")


def called(**more: Any) -> Generation:
    caches = {f"past_key_values.0.{kind}": f"present.0.{kind}" for kind in KINDS}
    return Generation(**{"caches": caches, "context": CONTEXT, **more})


def empty(dtype: Any = np.float32) -> dict[str, Any]:
    return dict.fromkeys(called().caches, np.zeros((1, HEADS, 0, SIZE), dtype))


def session(extra: bool = False, dtype: Any = np.float32) -> Any:
    """The decoder, opened."""
    content = model_bytes(extra, dtype)
    return ort.InferenceSession(content, providers=["CPUExecutionProvider"])


def model_bytes(extra: bool = False, dtype: Any = np.float32) -> bytes:
    """One layer of ``GroupQueryAttention``; ``extra`` adds an input [batch, hidden] to scores."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    random = np.random.default_rng(0)
    tables = {n: random.normal(size=(VOCABULARY, HIDDEN)).astype(dtype) for n in "qkv"}
    tables["head"] = random.normal(size=(HIDDEN, VOCABULARY)).astype(dtype)
    numbers = {"one": [1], "minus": [-1]}
    weights = {**tables, **{n: np.array(value, np.int64) for n, value in numbers.items()}}
    make = helper.make_node
    nodes = [
        *(make("Gather", [name, "input_ids"], [f"{name}_new"]) for name in "qkv"),
        make("ReduceSum", ["attention_mask", "one"], ["real"], keepdims=0),
        make("Sub", ["real", "one"], ["before"]),
        make("Cast", ["before"], ["lengths"], to=TensorProto.INT32),
        make("Shape", ["attention_mask"], ["total_1"], start=1, end=2),
        make("Squeeze", ["total_1"], ["total_64"]),
        make("Cast", ["total_64"], ["total"], to=TensorProto.INT32),
        make(
            "GroupQueryAttention",
            ["q_new", "k_new", "v_new", *called().caches, "lengths", "total"],
            ["attended", *called().caches.values()],
            domain="com.microsoft", num_heads=HEADS, kv_num_heads=HEADS,
        ),
        make("Gather", ["attended", "minus"], ["newest"], axis=1),
        *([make("Add", ["newest", "extra"], ["state"])] if extra else []),
        make("MatMul", ["state" if extra else "newest", "head"], ["logits"]),
    ]  # fmt: skip
    value = helper.make_tensor_value_info
    whole = TensorProto.INT64
    caches = ("batch", HEADS, "past", SIZE), ("batch", HEADS, "total", SIZE)
    inputs = [value("input_ids", whole, ["b", "s"]), value("attention_mask", whole, ["b", "t"])]
    inputs += [value(name, kind, caches[0]) for name in called().caches]
    inputs += [value("extra", kind, ["b", 1, HIDDEN])] if extra else []
    outputs = [value("logits", kind, ["b", 1, VOCABULARY])]
    outputs += [value(name, kind, caches[1]) for name in called().caches.values()]
    stored = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "decoder", inputs, outputs, stored)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    content: bytes = model.SerializeToString()
    return content
