"""The outcome of one operator sample: built and right, wrong, refused, or not comparable."""

from __future__ import annotations

import re
import tempfile
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from strop.bench.sweeps.operators.differences import as_near, difference, results_in_float64
from strop.bench.sweeps.operators.samples import Sample, seed
from strop.compiler import Model, build
from strop.compiler.util.arrays import to_array
from strop.compiler.util.errors import StropError, VerifyError

Kind = Literal["ok", "wrong", "refused", "traceback", "not comparable"]


@dataclass(frozen=True)
class SampleOutcome:
    """The outcome of a sample, and the reason if it is not ok.

    Attributes:
        kind: "wrong" also where the file does not run on inputs that torch takes.
        reason: the class of reasons by which outcomes are counted.
        detail: the message.
    """

    kind: Kind
    reason: str = ""
    detail: str = ""


class NotComparable(Exception):
    """What torch gives for a sample cannot be compared; carries the rule."""


def outcome(sample: Sample) -> SampleOutcome:
    """Build a sample, run the file on its inputs and on others, and compare with torch."""
    try:
        expected = [(inputs, reference(sample.module, inputs)) for inputs in _inputs(sample)]
    except NotComparable as rule:
        return SampleOutcome("not comparable", str(rule))
    with tempfile.TemporaryDirectory(prefix="strop-operators-") as folder:
        out = Path(folder) / "artifact"
        try:
            model = Model(sample.module, tuple(t.clone() for t in sample.inputs))
            build(model, out, "cpu-fp32", instruments="off")
        except StropError as error:
            kind: Kind = "traceback" if isinstance(error, VerifyError) else "refused"
            return SampleOutcome(kind, reason_class(error), str(error))
        except Exception as error:  # whatever else is raised is a bug, and is counted as one
            last = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{Path(last.filename).name}:{last.lineno}"
            return SampleOutcome("traceback", type(error).__name__, f"{place}: {error}")
        return _compared(out / "model.onnx", sample, expected)


def _inputs(sample: Sample) -> list[tuple[Tensor, ...]]:
    """The sample's own inputs, and those of the others that torch itself takes."""
    taken = [sample.inputs]
    for inputs in sample.others:
        try:
            reference(sample.module, inputs)
        except Exception:  # made-up values need not be valid: torch says whether they are
            continue
        taken.append(inputs)
    return taken


def reference(module: nn.Module, inputs: Sequence[Tensor]) -> list[Tensor]:
    """The tensors that torch gives.

    Raises:
        NotComparable: they are random, undefined, none, or not dense; or torch refuses.
    """
    if any(t.layout != torch.strided or t.is_quantized or t.is_nested for t in inputs):
        raise NotComparable("takes a tensor that is not dense")
    try:
        first, second = (_run(module, inputs, number) for number in (0, 1))
    except NotComparable:
        raise
    except Exception as error:  # whatever torch raises where it does not take a sample
        raise NotComparable("torch itself does not run it here") from error
    if not first:
        raise NotComparable("gives no tensor")
    if any(t.layout != torch.strided for t in first):
        raise NotComparable("gives a tensor that is not dense")
    if not all(_same(a, b) for a, b in zip(first, second)):
        raise NotComparable("gives uninitialised memory")
    return first


aten = torch.ops.aten
_UNINITIALISED = (
    aten.empty, aten.empty_like, aten.empty_permuted, aten.empty_strided, aten.new_empty,
    aten.new_empty_strided,
)  # fmt: skip


class _Repeatable(TorchDispatchMode):
    """Raises where an operator draws random numbers; torch says in a tag which ones do.

    Memory that nothing has written to is filled with another number at every run, so that results
    that depend on it differ.
    """

    def __init__(self, number: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.number = number

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise NotComparable("draws random numbers")
        made = func(*args, **(kwargs or {}))
        return made.fill_(self.number) if func.overloadpacket in _UNINITIALISED else made


def _run(module: nn.Module, inputs: Sequence[Tensor], number: int) -> list[Tensor]:
    seed(number)
    with torch.no_grad(), _Repeatable(number):
        leaves = pytree.tree_leaves(module(*(t.clone() for t in inputs)))
    tensors = [t for t in leaves if isinstance(t, Tensor)]
    return [t.detach().clone().resolve_conj().resolve_neg() for t in tensors]


def _same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and np.array_equal(to_array(a), to_array(b), equal_nan=True)


def reason_class(error: StropError) -> str:
    """The exit code and the kind of message, without what differs from sample to sample."""
    text = str(error)
    for pattern, kind in KINDS:
        if found := re.search(pattern, text):
            return f"exit {error.exit_code}: {kind.format(*found.groups())}"
    return f"exit {error.exit_code}: {text.splitlines()[0][:60]}"


# The first that is found in a message names its class.
KINDS = (
    (r"complex", "complex numbers"),
    (
        r"a number that depends on the data|data-dependent|depends on the data",
        "sizes or values that only the data know",
    ),
    (r"no lowering for", "no lowering"),
    (r"could not capture", "torch.export does not capture it"),
    (r"writes to '", "writes to its input"),
    (r"NOT_IMPLEMENTED[^(]*\((\w+)\)", "the runtime has no kernel"),
    (r"does not load", "the runtime does not load the file"),
    (r"does not run", "the runtime does not run the file"),
    (r"is off by|equal elements|has cosine", "the check found other numbers"),
    (r"has shape", "the check found another shape"),
)


def _compared(
    path: Path, sample: Sample, expected: Sequence[tuple[Sequence[Tensor], list[Tensor]]]
) -> SampleOutcome:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [f"input_{i}" for i in range(len(sample.inputs))]
    used = {i.name for i in session.get_inputs()}
    found = SampleOutcome("ok")
    for number, (inputs, wanted) in enumerate(expected):
        feeds = {n: to_array(t) for n, t in zip(names, inputs) if n in used}
        try:
            got = session.run(None, feeds)
        except Exception as error:  # the runtime's exceptions have no family
            return SampleOutcome("wrong", "the file does not run", f"inputs {number}: {error}")
        for index, (a, b) in enumerate(zip(got, wanted, strict=True)):
            if differs := difference(a, b, sample.dtype):
                said = f"inputs {number}, output {index}: {differs[1]}"
                if not _as_near(a, b, index, sample.module, inputs):
                    return SampleOutcome("wrong", differs[0], said)
                found = SampleOutcome(
                    "ok", "as near to float64 as torch, which rounds elsewhere", said
                )
    return found


def _as_near(
    got: Any, wanted: Tensor, index: int, module: nn.Module, inputs: Sequence[Tensor]
) -> bool:
    try:
        exact = results_in_float64(module, inputs)
    except Exception:  # torch does not take every call in float64; then its own result counts
        return False
    return as_near(got, wanted, exact[index])
