"""Triton kernels by a launch plan: how an artifact's plan is read, opened and run."""

from __future__ import annotations

from strop.compiler.targets.triton.runtime import RUNTIME

__all__ = ["RUNTIME"]
