"""What the user gives for passes to learn from, as the context of passes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import wraps
from typing import Any

import torch

from strop.compiler.frontend.evaluation import evaluate
from strop.compiler.frontend.inputs import input_names
from strop.compiler.frontend.model import Evaluate, Model
from strop.compiler.frontend.streams import stream
from strop.compiler.ir.program import Program
from strop.compiler.ir.running import run_program
from strop.compiler.rewriting.context import Context, Measure
from strop.compiler.targets.runtime import Run
from strop.compiler.targets.target import Target
from strop.compiler.util.cache import Cache, cache_root


def learned_cache() -> Cache:
    """What passes learned on this machine."""
    return Cache(cache_root() / "learned")


def context_of(model: Model, target: Target) -> Context:
    """The context of a model's passes, before it is captured.

    Raises:
        UsageError: calibration or training data cannot be passed over again.
    """
    names = input_names(model)
    return Context(
        target=target,
        calibration=stream(model.calibration, names, "calibration"),
        train=stream(model.train, names, "train"),
        loss=model.loss,
        evaluate=None if model.evaluate is None else _metrics_by(model.evaluate),
        cache=learned_cache(),
    )


def _metrics_by(measure: Evaluate) -> Measure:
    """A function that gives the user's metrics of a program."""

    # A wrapper keeps the source of the user's function, on which the cache depends.

    @wraps(measure)
    def metrics(program: Program) -> dict[str, float]:
        return evaluate(measure, lambda: _runner(program), "the program")

    return metrics


def _runner(program: Program) -> Run:
    """A program as ``run(**inputs) -> tuple of arrays``, as ``Model.evaluate`` takes it."""

    def run(**inputs: Any) -> tuple[Any, ...]:
        tensors: Mapping[str, torch.Tensor] = {n: torch.as_tensor(v) for n, v in inputs.items()}
        return tuple(run_program(program, dict(tensors)).values())

    return run
