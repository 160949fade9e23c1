"""What ``torch.export`` assumed about the dims while it traced, and where in the source."""

from __future__ import annotations

import itertools
import math
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

import sympy
import torch
from torch import fx, nn
from torch._guards import detect_fake_mode
from torch.utils import _pytree as pytree

from strop.compiler.frontend.inputs import Signature
from strop.compiler.ir.contract import Dim
from strop.compiler.ir.printer import source_line

MOST_CORNERS = 24
_EVERY_SIZE_UP_TO = 40
_UNBOUNDED = 4096
_NO_END = 2**40


@dataclass(frozen=True)
class Corner:
    """Sizes of some dims at which an assumption does not hold, and its place."""

    sizes: dict[str, int]
    place: str


@dataclass
class Watch:
    """Looks at a module's inputs while it is traced, to know which symbol stands for which dim.

    Attributes:
        signature: how the module is called.
        env: torch's record of symbols and assumptions.
        symbols: a symbol of each dim.
        names: the dim of each symbol; axes that share a dim may have symbols of their own.
    """

    signature: Signature
    env: Any = None
    symbols: dict[str, Any] = field(default_factory=dict)
    names: dict[Any, str] = field(default_factory=dict)

    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """A forward pre-hook."""
        mode = detect_fake_mode(pytree.tree_leaves((args, kwargs)))
        if mode is None or self.env is not None:
            return
        given = dict(zip(self.signature.names, args)) if self.signature.positional else kwargs
        self.read(given, mode.shape_env)

    def read(self, given: Mapping[str, torch.Tensor], env: Any) -> None:
        """Take down the symbols in the sizes of traced inputs."""
        self.env = env
        for name, axes in self.signature.axes.items():
            for axis, dim in axes.items():
                size = given[name].shape[axis]
                if isinstance(size, torch.SymInt):
                    self.symbols.setdefault(dim, size.node.expr)
                    self.names[size.node.expr] = dim

    def fixed(self) -> dict[str, tuple[Any, str]]:
        """Dims that the model ties to a number or to each other: what to, and where."""
        if self.env is None:
            return {}
        found = {}
        names = {s: sympy.Symbol(d) for s, d in self.names.items()}
        for dim, symbol in self.symbols.items():
            meant = self._meant(symbol)
            covered = self.env.var_to_range.get(meant)
            value = meant.xreplace(names)
            if value != sympy.Symbol(dim):
                found[dim] = (value, _place(self.env.replacements_slocs.get(symbol)))
            elif covered is not None and covered.is_singleton():
                found[dim] = (covered.lower, _place(self.env.var_to_range_sloc[meant].lower))
        return found

    def narrowed(self) -> dict[str, Dim]:
        """Dims of which the model, as traced, covers only a part."""
        if self.env is None:
            return {}
        found = {}
        for name, symbol in self.symbols.items():
            dim, covered = self.signature.dims[name], self.env.var_to_range.get(self._meant(symbol))
            if covered is None:
                continue
            # Torch counts from 2, whatever was declared, and ends at the largest integer.
            low = int(covered.lower) if covered.lower > 2 else dim.min
            ends = [int(covered.upper)] if covered.upper < _NO_END else []
            high = min([*ends, *([dim.max] if dim.max is not None else [])], default=None)
            if (low, high) != (dim.min, dim.max):
                found[name] = Dim(name, max(low, dim.min), high)
        return found

    def _meant(self, symbol: Any) -> Any:
        """What torch computes with in a symbol's place: that of an equal axis, or a number."""
        return self.env.replacements.get(symbol, symbol)

    def place(self, name: str) -> str:
        """Where the range of a dim was narrowed."""
        found = self.env.var_to_range_sloc.get(self._meant(self.symbols.get(name)))
        return (_place(found.lower) or _place(found.upper)) if found else ""

    def corners(self, graph: fx.Graph) -> list[Corner]:
        """Sizes to try: the smallest for each assumption that can fail."""
        if self.env is None:
            return []
        dims = {sympy.Symbol(name, integer=True): dim for name, dim in self.signature.dims.items()}
        known = {s: sympy.Symbol(name, integer=True) for s, name in self.names.items()}
        corners: dict[str, Corner] = {}
        for expr, place in _assumptions(self.env, graph):
            # Axes that share a dim have symbols of their own: only now is their equality trivial.
            named = expr.xreplace(known)
            free = sorted(named.free_symbols, key=str)
            if free and all(s in dims for s in free):
                for sizes in _failing(named, {s: dims[s] for s in free}):
                    corners.setdefault(str(sorted(sizes.items())), Corner(sizes, place))
        return list(corners.values())[:MOST_CORNERS]


def _place(location: Any) -> str:
    """`` at model.py:31``, if torch kept a place outside itself."""
    for frame in (getattr(location, "maybe_user_loc", None), location and location.framework_loc):
        if isinstance(frame, traceback.FrameSummary) and "/torch/" not in frame.filename:
            return f" at {PurePath(frame.filename).name}:{frame.lineno}"
    return ""


def _assumptions(env: Any, graph: fx.Graph) -> Iterator[tuple[Any, str]]:
    asserts = graph.find_nodes(op="call_function", target=torch.ops.aten._assert_scalar.default)
    places = {_condition(node): source_line(node) for node in asserts}
    for guard in env.guards:
        yield guard.expr, _place(guard.sloc)
    for group in env.deferred_runtime_asserts.values():
        for one in group:
            place = places.get(str(one.expr))
            yield one.expr, f" at {place}" if place else ""


def _condition(node: fx.Node) -> str:
    value = node.args[0].meta["val"] if isinstance(node.args[0], fx.Node) else node.args[0]
    return str(value.node.expr) if isinstance(value, torch.SymBool) else str(value)


def _failing(expr: Any, dims: dict[Any, Dim]) -> list[dict[str, int]]:
    """The two smallest sets of sizes at which an expression is false."""
    found = [
        sizes
        for sizes in itertools.product(*(_samples(d, len(dims), expr) for d in dims.values()))
        if _fails(expr, dict(zip(dims, map(sympy.Integer, sizes))))
    ]
    smallest = sorted(found, key=math.prod)[:2]
    return [{d.name: n for d, n in zip(dims.values(), sizes)} for sizes in smallest]


def _fails(expr: Any, sizes: Mapping[Any, Any]) -> bool:
    """Whether an assumption is false; one that divides by zero at these sizes is no better."""
    try:
        return bool(expr.xreplace(sizes) == sympy.false)
    except ZeroDivisionError:
        return True


def _samples(dim: Dim, together: int, expr: Any) -> Iterable[int]:
    """All sizes of a small dim; of a large one the ends, and numbers round powers of two and round
    those in the expression."""
    high = dim.max if dim.max is not None else _UNBOUNDED
    if together == 1 and high - dim.min <= _EVERY_SIZE_UP_TO:
        return range(dim.min, high + 1)
    powers = [2**i + d for i in range(1, 13) for d in (-1, 0, 1)]
    named = {abs(int(n)) + d for n in expr.atoms(sympy.Integer) for d in (-1, 0, 1)}
    some = {dim.min, dim.min + 1, high - 1, high, *range(3, 17), *powers}
    kept = sorted(n for n in some | named if dim.min <= n <= high)
    few = {*kept[:10], *kept[-2:], *(n for n in named if dim.min <= n <= high)}
    return kept if together == 1 else sorted(few)
