"""``python -m strop.bench.sweeps.random_graphs``: random models by NNSmith, built and compared.

NNSmith (doi:10.1145/3575693.3575707) draws operators, types and shapes that fit together by a
constraint solver. It is the extra ``fuzz``: ``pip install -e '.[fuzz]'``.
"""

from __future__ import annotations

import json
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, nn

from strop.bench.processes.forks import ForkedCall, forked
from strop.bench.records.figures import Figure, console, save, show
from strop.bench.records.machine import environment
from strop.bench.sweeps.operators.differences import TOLERANCES
from strop.bench.sweeps.operators.outcomes import SampleOutcome, outcome
from strop.bench.sweeps.operators.samples import Sample, seed
from strop.compiler.util.files.writing import write_whole

# NNSmith's own defaults (config/main.yaml).
OPERATORS, ELEMENTS, MILLISECONDS = 5, 2**16, 10_000
LEAST_BUILT = 0.9
# CPU seconds for one graph; few take more than two.
LONGEST = 120.0


class Graph(nn.Module):
    """The operators that NNSmith drew, called one after another.

    Its own module looks for NaN in the inputs at every call, which ``torch.export`` cannot follow.
    """

    def __init__(self, drawn: Any) -> None:
        super().__init__()
        self.parts = drawn.mlist
        self.steps = [
            (call, list(takes), list(gives)) for call, takes, gives, _ in drawn.instructions
        ]
        self.takes, self.gives = list(drawn.input_map), list(drawn.output_map)

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        """The graph's leaves."""
        known = dict(zip(self.takes, values))
        for call, takes, gives in self.steps:
            made = call(*(known[name] for name in takes))
            known.update(zip(gives, made if isinstance(made, (list, tuple)) else [made]))
        return tuple(known[name] for name in self.gives)


@dataclass(frozen=True)
class GraphResult:
    """The outcome of one graph.

    Attributes:
        seed: the seed that it was drawn with.
        kind: ok, wrong, run (the file does not run), refused, traceback, not comparable, or not
            drawn (NNSmith fails, or torch does on the inputs that it tries).
        reason: the class of reasons.
        detail: the message.
        operators: what it is made of.
    """

    seed: int
    kind: str
    reason: str
    detail: str
    operators: tuple[str, ...]


def operators() -> list[Any]:
    """NNSmith's operators for torch, each narrowed to the types that torch takes; none complex.

    Without complex numbers, as in NNSmith's models for ONNX: no runtime has kernels for them.
    """
    from nnsmith.abstract.dtype import DTYPE_GEN_COMPLEX
    from nnsmith.error import InternalError
    from nnsmith.materialize.torch import TorchModelCPU
    from nnsmith.narrow_spec import infer_topset_from_scratch

    found = []
    for kind in TorchModelCPU.operators():
        try:
            known = infer_topset_from_scratch(TorchModelCPU, None, [kind]).get(kind.name())
        except InternalError:  # its solver drew an example that NNSmith itself does not take
            continue
        if known is None or kind.limit_domain:
            continue
        real = [
            [types for types in of if not set(types) & set(DTYPE_GEN_COMPLEX)]
            for of in (known.in_dtypes, known.out_dtypes)
        ]
        if all(real):
            kind.in_dtypes, kind.out_dtypes = real
            found.append(kind)
    return found


def draw(kinds: list[Any], number: int) -> Sample:
    """The graph of a seed, with inputs that NNSmith found to give finite numbers if it could.

    NNSmith seeds what it draws the operators with, and neither the weights nor the inputs.
    """
    from nnsmith.graph_gen import model_gen
    from nnsmith.materialize.torch import TorchModelCPU

    seed(number)
    drawn = model_gen(
        kinds, seed=number, method="symbolic-cinit", max_nodes=OPERATORS,
        max_elem_per_tensor=ELEMENTS, timeout_ms=MILLISECONDS,
    )  # fmt: skip
    model = TorchModelCPU.from_gir(drawn.make_concrete())
    model.refine_weights()
    values = model.make_oracle().input
    net = model.native_model.eval()
    inputs = tuple(torch.from_numpy(values[name]) for name in net.input_map)
    dtypes = {v.dtype.torch() for v in net.ir.vars.values()}
    coarsest = max(dtypes & set(TOLERANCES), key=lambda d: TOLERANCES[d], default=torch.float32)
    return Sample("graph", number, coarsest, Graph(net).eval(), inputs, ())


def row(kinds: list[Any], number: int) -> GraphResult:
    """Draw, build, run and compare one graph."""
    try:
        sample = draw(kinds, number)
    except Exception as error:  # neither NNSmith's solver nor torch's allocator is on trial
        return GraphResult(number, "not drawn", type(error).__name__, str(error), ())
    assert isinstance(sample.module, Graph)
    found: SampleOutcome = outcome(sample)
    does_not_run = found.kind == "wrong" and "does not run" in found.reason
    names = (step[0].__class__.__name__ for step in sample.module.steps)
    kind = "run" if does_not_run else found.kind
    return GraphResult(number, kind, found.reason, found.detail, tuple(names))


def rows(kinds: list[Any], numbers: Iterable[int], jobs: int) -> Iterator[GraphResult]:
    """The rows, each of a process of its own.

    NNSmith's solver remembers: what it draws for a seed depends on what it drew before.
    """
    calls = (ForkedCall(partial(row, kinds, n), LONGEST, n) for n in numbers)
    for ended in forked(calls, jobs):
        if ended.how == "returned":
            yield ended.value
        else:
            yield GraphResult(
                ended.about, "traceback", f"the process {ended.how}", ended.value or "", ()
            )


def seeds_of(text: str) -> Iterator[int]:
    """``0-4,9`` as 0, 1, 2, 3, 4, 9."""
    for part in text.split(","):
        bounds = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())
        if bounds is None:
            raise typer.BadParameter(f"'{part}' is neither a seed nor two with a dash")
        first, last = bounds.groups()
        yield from range(int(first), int(last or first) + 1)


def figures(counts: Mapping[str, int]) -> list[Figure]:
    """What is claimed of graphs, from how many of them ended in which way."""
    share = counts.get("ok", 0) / max(1, sum(counts.values()))
    wrong = counts.get("wrong", 0) + counts.get("run", 0)
    return [
        Figure("graphs built, run and right, share of all", share, at_least=LEAST_BUILT),
        Figure("graphs with wrong numbers, or that do not run", wrong, at_most=0),
        Figure("graphs that end in a traceback", counts.get("traceback", 0), at_most=0),
    ]


def main(
    seeds: Annotated[str, typer.Option(help="Such as 0-199 or 3,17.")] = "0-199",
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    record: Annotated[Path | None, typer.Option("--json", help="Where to write the rows.")] = None,
    results: Annotated[Path | None, typer.Option(help="Folder for the record.")] = None,
) -> None:
    """Build a random graph for each seed, run the file, and compare it with torch."""
    warnings.filterwarnings("ignore")
    try:
        kinds = operators()
    except ImportError as error:
        raise typer.BadParameter(f"{error}: pip install -e '.[fuzz]'") from error
    torch.set_num_threads(1)  # a fork has no other threads
    found = []
    for last in rows(kinds, seeds_of(seeds), jobs):
        found.append(last)
        said = f" {last.reason}: {last.detail[:300]}" if last.reason else ""
        console.print(f"{last.seed} {last.kind}{said}")
    found.sort(key=lambda r: r.seed)
    if record is not None:
        write_whole(record, json.dumps([asdict(r) for r in found], indent=1) + "\n")
    counts = Counter(r.kind for r in found)
    claimed = figures(counts)
    show(claimed, "random graphs")
    total = ", ".join(f"{count} {kind}" for kind, count in counts.most_common())
    console.print(f"{len(found)} graphs: {total}")
    if results is not None:
        not_ok = [asdict(r) for r in found if r.kind != "ok"]
        measured = {"seeds": seeds, "outcomes": dict(counts), "not_ok": not_ok}
        save("random_graphs", environment(), claimed, measured, results)
    if counts["wrong"] or counts["traceback"] or counts["run"]:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
