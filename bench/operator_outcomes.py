"""What becomes of one operator sample: built and right, wrong, refused, or not comparable."""

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

from strop.bench.operator_samples import Sample, seed
from strop.compiler import Model, build
from strop.compiler.errors import StropError, VerifyError
from strop.compiler.inputs import to_array

Kind = Literal["ok", "wrong", "refused", "traceback", "not comparable"]
# Relative and absolute, the latter in units of the largest finite magnitude expected, if above 1.
TOLERANCES = {
    torch.float64: (1e-5, 1e-7),
    torch.float32: (1e-4, 1e-5),
    torch.float16: (5e-3, 5e-3),
    torch.bfloat16: (4e-2, 4e-2),
}


@dataclass(frozen=True)
class Outcome:
    """What became of a sample, and why if it is not ok.

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


def outcome(sample: Sample) -> Outcome:
    """Build a sample, run the file on its inputs and on others, and compare with torch."""
    try:
        expected = [(inputs, reference(sample.module, inputs)) for inputs in _inputs(sample)]
    except NotComparable as rule:
        return Outcome("not comparable", str(rule))
    with tempfile.TemporaryDirectory(prefix="strop-operators-") as folder:
        out = Path(folder) / "artifact"
        try:
            model = Model(sample.module, tuple(t.clone() for t in sample.inputs))
            build(model, out, "cpu-fp32", instruments="off")
        except StropError as error:
            kind: Kind = "traceback" if isinstance(error, VerifyError) else "refused"
            return Outcome(kind, reason_class(error), str(error))
        except Exception as error:  # whatever else is raised is a bug, and is counted as one
            last = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{Path(last.filename).name}:{last.lineno}"
            return Outcome("traceback", type(error).__name__, f"{place}: {error}")
        return _compared(out / "model.onnx", expected, sample.dtype)


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

    Memory that nothing has written to is filled with another number at every run: what it shows
    up in differs, whatever the memory happened to hold.
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
    path: Path, expected: Sequence[tuple[Sequence[Tensor], list[Tensor]]], through: torch.dtype
) -> Outcome:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [f"input_{i}" for i in range(len(expected[0][0]))]
    used = {i.name for i in session.get_inputs()}
    for number, (inputs, wanted) in enumerate(expected):
        feeds = {n: to_array(t) for n, t in zip(names, inputs) if n in used}
        try:
            got = session.run(None, feeds)
        except Exception as error:  # the runtime's exceptions have no family
            return Outcome("wrong", "the file does not run", f"inputs {number}: {error}")
        for index, (a, b) in enumerate(zip(got, wanted, strict=True)):
            if found := difference(a, b, through):
                return Outcome("wrong", found[0], f"inputs {number}, output {index}: {found[1]}")
    return Outcome("ok")


def difference(
    got: Any, wanted: Tensor, through: torch.dtype = torch.float64
) -> tuple[str, str] | None:
    """What differs, and how; None where nothing does beyond the tolerance of the dtype.

    ``through`` is the dtype that was computed in on the way: a float of 32 bits that comes from
    one of 16 is no more exact than that.
    """
    want = to_array(wanted)  # a file gives bfloat16 as float32
    if got.dtype != want.dtype:
        return "another dtype", f"{got.dtype}, not {want.dtype}"
    if got.shape != want.shape:
        return "another shape", f"{got.shape}, not {want.shape}"
    if wanted.dtype not in TOLERANCES:
        wrong = got != want
        return ("other values", _example(got, want, wrong)) if wrong.any() else None
    a, b = got.astype(np.float64), want.astype(np.float64)
    finite = np.isfinite(a) & np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return "NaN or infinity elsewhere", _example(
            a, b, ~((a == b) | (finite & np.isfinite(a)) | (np.isnan(a) & np.isnan(b)))
        )
    exact = TOLERANCES.get(through, TOLERANCES[wanted.dtype])
    rtol, atol = max(exact, TOLERANCES[wanted.dtype])
    scale = max(1.0, float(np.abs(b[finite]).max(initial=0.0)))
    with np.errstate(invalid="ignore"):
        wrong = finite & ~(np.abs(a - b) <= rtol * np.abs(b) + atol * scale)
    return ("other values", _example(a, b, wrong)) if wrong.any() else None


def _example(got: Any, want: Any, wrong: Any) -> str:
    place = tuple(int(i) for i in np.argwhere(wrong)[0]) if wrong.ndim else ()
    return f"{got[place]} at {place}, not {want[place]} ({int(wrong.sum())} of {wrong.size})"
