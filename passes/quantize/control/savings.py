"""What it saves to quantize each layer: time on the target, or multiply-adds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

from strop.compiler.ir.cost import CostModel, traced_sizes
from strop.compiler.ir.nodes import tensors_of
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.context import Context
from strop.compiler.util.ranks import processes
from strop.passes.quantize.control.layers import Layer
from strop.passes.quantize.control.scheme import Scheme
from strop.passes.train.processes import Team

Weigh = Literal["latency", "multiply-adds"]


def savings(
    program: Program, scheme: Scheme, layers: Sequence[Layer], context: Context, weigh: Weigh
) -> tuple[list[float], Weigh]:
    """How much of one run it saves that a layer is quantized, layer by layer.

    Args:
        program: in float.
        scheme: that quantizes.
        layers: of the program.
        context: its clock measures the time.
        weigh: "latency" is by how much a run takes longer if that layer alone stays in float, over
            what it takes with all layers quantized; measured where the context has a clock.
            "multiply-adds" is the share of the layer in those of the program, at the sizes of the
            traced example.

    Returns:
        The shares, and by which of the two they were found. A measured one may be below 0: the
        layer is slower when it is quantized.
    """
    if weigh == "latency" and context.clock is not None:
        return _measured(program, scheme, layers, context), "latency"
    counts = CostModel(program).multiply_adds(traced_sizes(program))
    whole = max(sum(counts.values()), 1)
    return [sum(counts.get(n, 0) for n in x.nodes) / whole for x in layers], "multiply-adds"


def _measured(
    program: Program, scheme: Scheme, layers: Sequence[Layer], context: Context
) -> list[float]:
    """Layers of one form save the same: they are timed together, which noise disturbs less."""
    assert context.clock is not None
    alike: dict[str, list[Layer]] = defaultdict(list)
    for layer in layers:
        alike[_form(program, layer)].append(layer)
    saved: dict[str, float] = {}
    team = Team(processes())
    with context.clock(scheme.keeping(program, ())) as relative:
        for number, (form, group) in enumerate(alike.items(), 1):
            context.progress(f"time of layers: form {number} of {len(alike)}")
            # All processes choose by what the first one measures.
            took = relative(scheme.keeping(program, group)) if team.rank == 0 else 0.0
            saved[form] = (team.from_first(took) - 1) / len(group)
    return [saved[_form(program, layer)] for layer in layers]


def _form(program: Program, layer: Layer) -> str:
    """The operators of a layer, and the shapes of what they read."""
    calls = [node for node in program.graph.nodes if node.name in layer.nodes]
    shapes = [
        (str(node.target), [str(t.shape) for n in node.all_input_nodes for t in tensors_of(n)])
        for node in calls
    ]
    return repr(shapes)
