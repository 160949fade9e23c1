"""What a target can do: policy that passes and lowerings read, never a branch on a name."""

from __future__ import annotations

from dataclasses import dataclass

from strop.compiler.util.errors import UsageError, did_you_mean


@dataclass(frozen=True)
class Target:
    """A place where an artifact runs.

    Attributes:
        name: how recipes and the command line call it.
        opset: ONNX opset of the lowered model.
        providers: ONNX Runtime execution providers, in order.
        dynamic_int8: whether the runtime multiplies u8 activations by s8 weights.
    """

    name: str
    opset: int
    providers: tuple[str, ...]
    dynamic_int8: bool


TARGETS = {
    "cpu": Target("cpu", 23, ("CPUExecutionProvider",), dynamic_int8=True),
}


def get_target(name: str) -> Target:
    """Look a target up by name.

    Raises:
        UsageError: no such target.
    """
    if name not in TARGETS:
        raise UsageError(f"unknown target '{name}'{did_you_mean(name, list(TARGETS))}")
    return TARGETS[name]
