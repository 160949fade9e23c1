"""ONNX Runtime: how ``model.onnx`` is opened, run and looked into."""

from __future__ import annotations

from strop.compiler.targets.onnxruntime.runtime import RUNTIME

__all__ = ["RUNTIME"]
