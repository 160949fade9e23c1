"""Two programs side by side: their text, and every value that both compute, worst first."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from strop.compiler.artifact.folder import Artifact, read_intact
from strop.compiler.debug.apart import arrays_apart, load_apart, weight_bytes
from strop.compiler.debug.feeds import feeds_for
from strop.compiler.driver.departure import under_ir_names
from strop.compiler.ir.printer import describe, is_size, node_text, program_text
from strop.compiler.ir.program import Program
from strop.compiler.ir.running import Inputs, in_contract
from strop.compiler.ir.snapshots.reader import load_inputs
from strop.compiler.ir.stored import as_given
from strop.compiler.ir.values import values
from strop.compiler.targets.runtime import runtime_of
from strop.compiler.util.arrays import to_array
from strop.compiler.util.errors import UsageError, did_you_mean
from strop.compiler.util.files.reading import is_there
from strop.compiler.util.numerics import Array, Drift, drift


@dataclass(frozen=True)
class Shared:
    """A value that both have: how it is described in the later one, and how far it moved.

    ``drift`` is None where the shapes differ.
    """

    name: str
    text: str
    drift: Drift | None


@dataclass(frozen=True)
class Difference:
    """What differs between two programs.

    Attributes:
        text: a unified diff of the two texts, with weights and values by name.
        shared: values that both compute, worst first.
        only_before: names of values that only the first computes.
        only_after: names of values that only the second computes.
    """

    text: str
    shared: tuple[Shared, ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]

    def only(self, name: str) -> Difference:
        """Without every other value."""
        name = name.removeprefix("%")
        return Difference(
            "\n".join(line for line in self.text.splitlines() if f"%{name} :" in line),
            tuple(s for s in self.shared if s.name == name),
            tuple(n for n in self.only_before if n == name),
            tuple(n for n in self.only_after if n == name),
        )


def diff_snapshots(before: Path, after: Path) -> Difference:
    """Compare two snapshots of one model, on the inputs beside the first.

    Raises:
        UsageError: one is none or damaged, or they take other inputs.
    """
    first, second = load_apart(before), load_apart(after)
    taken = [[as_given(spec) for spec in p.contract.inputs] for p in (first, second)]
    _require_one_model(before, taken[0], after, taken[1])
    return diff(first, second, load_inputs(before.parent, first))


def _require_one_model(before: Path, first: object, after: Path, second: object) -> None:
    if first != second:
        raise UsageError(
            f"{before} and {after} take other inputs: they are of two models, or keep caches in "
            "two dtypes"
        )


def _inputs(built: Artifact, program: str) -> list[tuple[str, str, list[int | str]]]:
    """Name, dtype and sizes of each input of a program."""
    specs = built.program(program)["contract"]["inputs"]
    return [(spec["name"], spec["dtype"], spec["shape"]) for spec in specs]


def diff_artifacts(before: Path, after: Path, source: str = "", program: str = "") -> Difference:
    """Compare the files of a program in two artifacts, without the runtime's own fusions.

    Raises:
        UsageError: one is no artifact or damaged, or they take other inputs.
    """
    first, second = read_intact(before), read_intact(after)
    _require_one_model(before, _inputs(first, program), after, _inputs(second, program))
    feeds = feeds_for(first, source, {}, program)
    text = text_diff(_file_text(first, program), _file_text(second, program))
    old, new = (_file_values(a, feeds.arrays, program) for a in (first, second))
    return compare_values(old, new, {}, f"{text}\nvalues on {feeds.origin}".strip())


def diff_lowered(snapshot: Path, artifact: Path, name: str = "") -> Difference:
    """Compare a program with the file that it was lowered to: what the lowering did to a value."""
    program = load_apart(snapshot)
    inputs = load_inputs(snapshot.parent, program)
    built = read_intact(artifact)
    known = [(s.name, s.dtype, list(s.shape)) for s in program.contract.inputs]
    _require_one_model(snapshot, known, artifact, _inputs(built, name))
    old = _values(program, inputs)
    taken = in_contract(inputs, program.contract)
    found = _file_values(built, {n: to_array(t) for n, t in taken.items()}, name)
    new = under_ir_names(found, program)
    described = {n.name: describe(n) for n in program.calls()}
    text = text_diff(program_text(program), _file_text(built, name))
    return compare_values(old, new, described, text)


def diff(before: Program, after: Program, inputs: Inputs) -> Difference:
    """Compare two programs of one model on one set of inputs.

    A value keeps its name as long as no pass changes it, and no name is given twice: equal names
    are the same value of the model.
    """
    return compare_values(
        _values(before, inputs),
        _values(after, inputs),
        {n.name: describe(n) for n in after.calls()},
        text_diff(program_text(before), program_text(after)),
    )


def _values(program: Program, inputs: Inputs) -> dict[str, Array]:
    return arrays_apart(lambda: values(program, inputs), weight_bytes(program))


def _file_text(built: Artifact, program: str) -> str:
    return runtime_of(built.target).text(built.path, built.choose(program))


def _file_values(built: Artifact, feeds: Mapping[str, Array], program: str) -> dict[str, Array]:
    runtime, chosen = runtime_of(built.target), built.choose(program)
    return arrays_apart(lambda: runtime.values(built.path, feeds, chosen), built.size)


def compare_values(
    old: Mapping[str, Array], new: Mapping[str, Array], described: Mapping[str, str], text: str
) -> Difference:
    """Compare values by name."""
    shared = [
        Shared(n, described.get(n, f"%{n}"), _drift(old[n], new[n], n)) for n in new if n in old
    ]
    return Difference(
        text,
        tuple(sorted(shared, key=_badness)),
        tuple(n for n in old if n not in new),
        tuple(n for n in new if n not in old),
    )


def _drift(old: Array, new: Array, name: str) -> Drift | None:
    return drift({name: new}, {name: old}) if old.shape == new.shape else None


def _badness(shared: Shared) -> float:
    """Signal to noise: other shapes first, then the noisiest; equal values last."""
    apart = shared.drift
    if apart is None or not apart.finite:
        return -math.inf
    if apart.cosine is None and apart.agreement < 1:  # no floats: what differs is the noise
        return -10 * math.log10(1 - apart.agreement)
    return math.inf if apart.sqnr_db is None else apart.sqnr_db


def text_diff(before: str, after: str) -> str:
    """A unified diff without context or file names."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm="")
    return "\n".join(line for line in lines if line[:3] not in ("---", "+++") and line[:2] != "@@")


def history(before: Program, after: Program, name: str) -> str:
    """One value with its inputs and users, in both programs, as text.

    Raises:
        UsageError: neither program has it.
    """
    name = name.removeprefix("%")
    parts = {"before": _surroundings(before, name), "after": _surroundings(after, name)}
    if not any(parts.values()):
        known = [n.name for p in (before, after) for n in p.calls()]
        raise UsageError(f"neither has %{name}{did_you_mean(name, known)}")
    return "\n".join(f"{title}:\n{text or '  it is not there'}" for title, text in parts.items())


def _surroundings(program: Program, name: str) -> str:
    node = next((n for n in program.graph.nodes if n.name == name), None)
    if node is None:
        return ""
    near = {*node.all_input_nodes, node, *node.users}
    shown = [n for n in program.calls() if n in near and not is_size(n)]
    return "\n".join(f"  {node_text(n, program.symbols)}" for n in shown)


def snapshot_of(path: Path) -> Path:
    """The snapshot that a path names: the ``.json`` itself, or the ``.txt`` beside it.

    Raises:
        UsageError: it is neither.
    """
    file = path.with_suffix(".json") if path.name else path
    if not is_there(file):
        raise UsageError(f"{path} is not an IR snapshot: --dump-ir writes them, as 003_pass.json")
    return file
