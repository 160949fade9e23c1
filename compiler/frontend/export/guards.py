"""What ``torch.export`` assumed about the dims while it traced, and where in the source."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

import sympy
import torch
from torch import fx, nn
from torch._guards import detect_fake_mode
from torch.utils import _pytree as pytree

from strop.compiler.frontend.dims import Extent
from strop.compiler.frontend.inputs import Signature
from strop.compiler.ir.contract import Dim
from strop.compiler.ir.printer import source_line
from strop.compiler.ir.sampled_sizes import failing_sizes

MOST_CORNERS = 24
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
        unseen: whether sizes of 0 and 1 were not looked at: no assumption tells of them then.
        env: torch's record of symbols and assumptions.
        symbols: a symbol of each dim.
        names: the dim of each symbol; axes that share a dim may have symbols of their own.
    """

    signature: Signature
    unseen: bool = False
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
        sums: list[tuple[Any, Extent]] = []
        parts: dict[str, Any] = {}
        for name, axis, extent in self.signature.extents():
            size = given[name].shape[axis]
            expr = size.node.expr if isinstance(size, torch.SymInt) else sympy.Integer(size)
            if len(extent) > 1:
                sums.append((expr, extent))
                continue
            parts.setdefault(extent[0], expr)
            if expr.is_Symbol:
                self.symbols.setdefault(extent[0], expr)
                self.names[expr] = extent[0]
        if sums:
            # Torch's own replacements do not reach into sums: axes of one dim are one symbol first.
            same = {symbol: parts[dim] for symbol, dim in self.names.items()}
            total = {size: sum(parts[dim] for dim in extent) for size, extent in sums}
            _replace(env, same | total)

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
        small = _small_sizes(graph) if self.unseen else ()
        for expr, place in (*_assumptions(self.env, graph), *small):
            # Axes that share a dim have symbols of their own: only now is their equality trivial.
            named = expr.xreplace(known)
            free = sorted(named.free_symbols, key=str)
            if free and all(s in dims for s in free):
                for sizes in failing_sizes(named, {s: dims[s] for s in free}):
                    corners.setdefault(str(sorted(sizes.items())), Corner(sizes, place))
        return list(corners.values())[:MOST_CORNERS]


def _replace(env: Any, meant: Mapping[Any, Any]) -> None:
    """Let torch compute with other expressions in the place of symbols.

    By itself ``torch.export`` does not put a sum of two symbols in the place of a third.
    """
    for symbol, expr in meant.items():
        if symbol.is_Symbol and symbol != expr:
            env.replacements[symbol] = expr
    # What torch keeps of expressions is computed anew.
    env._replacements_version_counter += 1
    env._update_version_counter()


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


def _small_sizes(graph: fx.Graph) -> Iterator[tuple[Any, str]]:
    """That no size is 0 or 1, as a graph has it in which those were not looked at."""
    places: dict[Any, str] = {}
    for node in graph.nodes:
        for value in pytree.tree_leaves(node.meta.get("val")):
            for size in value.shape if isinstance(value, torch.Tensor) else ():
                if isinstance(size, torch.SymInt):
                    places.setdefault(size.node.expr, source_line(node))
    for expr, place in places.items():
        for small in (0, 1):
            yield sympy.Ne(expr, small), f" at {place}" if place else ""


def _condition(node: fx.Node) -> str:
    value = node.args[0].meta["val"] if isinstance(node.args[0], fx.Node) else node.args[0]
    return str(value.node.expr) if isinstance(value, torch.SymBool) else str(value)
