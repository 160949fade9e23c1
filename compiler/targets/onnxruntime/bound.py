"""A decoder in ONNX Runtime whose caches stay where the runtime put them, from call to call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort

from strop.compiler.targets.decoding import Names, Start
from strop.compiler.util.errors import RuntimeRefusedError
from strop.compiler.util.numerics import Array

# Places that a buffer has at least: a smaller one would grow at once.
LEAST = 64
CUDA = "CUDAExecutionProvider"
# New tokens behind others from which the second file of a program is taken: from 24 on it is not
# slower. A prompt is given to it whatever its length, as onnxruntime-genai does, so that both make
# the same tokens: a prompt of 7 takes 56 ms and not 29 (SmolLM2-135M, 2 cores).
MANY = 32
# New tokens of one row in a call. Attention over parts computes less of what is hidden, and its
# scores stay in the processor's cache: a prompt of 1,024 takes 0.6 times as long as in one call.
PART = 256
# Types of scores other than float32.
SCORES = {"tensor(float16)": np.float16, "tensor(double)": np.float64}


class Caches(Protocol):
    """The caches of a batch, as inputs and outputs of the next call.

    Attributes:
        in_place: whether a call adds to them, and copies nothing.
    """

    in_place: bool

    def bind(self, binding: Any, rows: int, total: int) -> None:
        """Bind what the next call reads and writes: so many rows, so many places afterwards."""
        ...

    def keep(self, binding: Any, total: int) -> None:
        """Take what a call has written, for the next one."""
        ...

    def choose(self, rows: Sequence[int]) -> None:
        """Go on with copies of these rows."""
        ...


class _Bound:
    """A session, and what is bound to it from call to call."""

    def __init__(self, session: Any, scores: str) -> None:
        """Keep a session whose output ``scores`` holds the scores."""
        self.session, self.binding = session, session.io_binding()
        self.scores = next(o for o in session.get_outputs() if o.name == scores)
        self._read = {i.name for i in session.get_inputs()}

    def bind(self, arrays: Mapping[str, Array]) -> None:
        """Bind the memory of those arrays that are read; a device gets a copy of it."""
        for name, array in arrays.items():
            if name in self._read:
                at = array.ctypes.data
                self.binding.bind_input(name, "cpu", 0, array.dtype, array.shape, at)


class BoundDecoder:
    """Binds inputs and outputs once where it can; scores come into a buffer that stays.

    What a call costs beside the runtime's own time grows neither with the model's size nor with
    the length of the text, where caches are shared buffers.
    """

    def __init__(
        self,
        session: Any,
        names: Names,
        caches: Caches,
        fixed: Mapping[str, Array],
        open_many: Callable[[], Any] | None = None,
    ) -> None:
        """Start with empty caches.

        Args:
            session: ONNX Runtime's.
            names: of its inputs and outputs.
            caches: how they are kept.
            fixed: inputs that are the same in every call, [rows, ...].
            open_many: gives a session on the same program that is faster at many new tokens.
        """
        self._names, self._caches, self._open_many = names, caches, open_many
        self._fixed = {name: np.ascontiguousarray(array) for name, array in fixed.items()}
        self._scores = np.empty((0, 1, 0), np.float32)
        self._few = _Bound(session, names.logits)
        self._many: _Bound | None = None
        self._few.bind(self._fixed)

    def step(self, ids: Array, mask: Array) -> Array:
        """One call; see ``Decoder.step``. A long prompt of one row is given in parts.

        Raises:
            RuntimeRefusedError: the runtime does not run it.
        """
        rows, seq = ids.shape
        past = mask.shape[1] - seq
        on = self._bound_for(many=past == 0 or seq >= MANY)
        part = PART if rows == 1 and self._caches.in_place else max(seq, 1)
        for end in [*range(part, seq, part), seq]:
            start = (end - 1) // part * part
            self._call(on, ids[:, start:end], mask[:, : past + end])
        return self._scores[:, -1].astype(np.float32, copy=False)

    def repeat(self, times: int) -> None:
        """Repeat caches and fixed inputs."""
        rows = np.repeat(np.arange(len(self._scores)), times)
        self._caches.choose(rows.tolist())
        self._fixed = {name: array.repeat(times, 0) for name, array in self._fixed.items()}
        for bound in (self._few, self._many):
            if bound is not None:
                bound.bind(self._fixed)

    def reorder(self, rows: Sequence[int]) -> None:
        """Choose rows of the caches."""
        if list(rows) != list(range(len(rows))):
            self._caches.choose(rows)

    def _call(self, on: _Bound, ids: Array, mask: Array) -> None:
        rows, total = mask.shape
        given = {self._names.ids: ids, self._names.mask: mask}
        # Named until the call is over: the runtime reads their memory.
        held = {name: np.ascontiguousarray(array, np.int64) for name, array in given.items()}
        try:
            self._caches.bind(on.binding, rows, total)
            on.bind(held)
            self._bind_scores(on, rows)
            on.session.run_with_iobinding(on.binding)
            self._caches.keep(on.binding, total)
        except Exception as error:  # the runtime's exceptions have no family
            raise RuntimeRefusedError(
                f"ONNX Runtime does not run the decoder with {rows} texts of {total} tokens: "
                f"{error}"
            ) from error

    def _bound_for(self, many: bool) -> _Bound:
        """The session for few or many new tokens; the second is opened when it is first needed."""
        if self._open_many is None or not many:
            return self._few
        if self._many is None:
            self._many = _Bound(self._open_many(), self._names.logits)
            self._many.bind(self._fixed)
        return self._many

    def _bind_scores(self, on: _Bound, rows: int) -> None:
        output = on.scores
        dtype = SCORES.get(output.type, np.float32)
        if len(self._scores) != rows:
            self._scores = np.empty((rows, 1, output.shape[-1]), dtype)
        at = self._scores.ctypes.data
        on.binding.bind_output(output.name, "cpu", 0, dtype, self._scores.shape, at)


class SharedBuffers:
    """Past and present of each cache are one buffer, to which the model adds in place."""

    in_place = True

    def __init__(self, names: Names, empty: Mapping[str, Array], device: str) -> None:
        """Start without buffers.

        Args:
            names: of its inputs and outputs, and the most places that a buffer needs.
            empty: for each cache one row of it without places, [1, heads, 0, size].
            device: "cpu" or "cuda", where the buffers lie.
        """
        self._names, self._empty, self._device = names, empty, device
        self._buffers: dict[str, Any] = {}
        self._bound_to: set[int] = set()
        self._rows = self._capacity = self._filled = 0

    def bind(self, binding: Any, rows: int, total: int) -> None:
        """Make room; where the buffers stay, they are bound already."""
        if rows != self._rows or total > self._capacity:
            self._rows, self._capacity = rows, self._room_for(total)
            self._buffers = {past: self._grown(past) for past in self._names.caches}
            self._bound_to = set()
        if id(binding) in self._bound_to:
            return
        self._bound_to.add(id(binding))
        for past, present in self._names.caches.items():
            binding.bind_ortvalue_input(past, self._buffers[past])
            binding.bind_ortvalue_output(present, self._buffers[past])

    def keep(self, binding: Any, total: int) -> None:
        """Note how far the buffers are filled."""
        self._filled = total

    def choose(self, rows: Sequence[int]) -> None:
        """Choose rows of what is filled; with as many rows, in place."""
        for name, buffer in self._buffers.items():
            used = buffer.numpy()[:, :, : self._filled][list(rows)]
            if len(rows) == self._rows and self._device == "cpu":
                buffer.numpy()[:, :, : self._filled] = used
            else:
                self._buffers[name] = self._made(name, used)
                self._bound_to = set()

    def _room_for(self, total: int) -> int:
        capacity = max(self._capacity, LEAST)
        while capacity < total:
            capacity *= 2
        return max(min(capacity, self._names.context), total)

    def _grown(self, name: str) -> Any:
        """A buffer of the present size that holds what the old one does."""
        old = self._buffers.get(name)
        if old is None:
            return self._made(name, self._empty[name].repeat(self._rows, 0))
        return self._made(name, old.numpy()[:, :, : self._filled])

    def _made(self, name: str, filled: Array) -> Any:
        """A buffer that begins with some places; the others are zero."""
        _, heads, _, size = self._empty[name].shape
        whole = np.zeros((len(filled), heads, self._capacity, size), filled.dtype)
        whole[:, :, : filled.shape[2]] = filled
        return ort.OrtValue.ortvalue_from_numpy(whole, self._device)


class GrowingCaches:
    """What a call gives is what the next one reads: the runtime makes it anew."""

    in_place = False

    def __init__(self, names: Names, empty: Mapping[str, Array], device: str) -> None:
        """Start with empty caches; arguments are those of ``SharedBuffers``."""
        self._names, self._empty, self._device = names, empty, device
        self._values: dict[str, Any] = {}

    def bind(self, binding: Any, rows: int, total: int) -> None:
        """The last call's outputs as inputs, and outputs of the runtime's own."""
        for past, present in self._names.caches.items():
            if past not in self._values:
                none = self._empty[past].repeat(rows, 0)
                self._values[past] = ort.OrtValue.ortvalue_from_numpy(none, self._device)
            binding.bind_ortvalue_input(past, self._values[past])
            binding.bind_output(present, self._device)

    def keep(self, binding: Any, total: int) -> None:
        """Take the outputs; they come in the order in which they were first bound."""
        self._values = dict(zip(self._names.caches, binding.get_outputs()))

    def choose(self, rows: Sequence[int]) -> None:
        """Choose rows."""
        for name, value in self._values.items():
            chosen = np.ascontiguousarray(value.numpy()[list(rows)])
            self._values[name] = ort.OrtValue.ortvalue_from_numpy(chosen, self._device)


def bound_decoder(
    session: Any,
    names: Names,
    start: Start,
    shared: bool,
    open_many: Callable[[], Any] | None = None,
) -> BoundDecoder:
    """A decoder on an open session of ONNX Runtime.

    Args:
        session: ONNX Runtime's.
        names: of its inputs and outputs.
        start: its inputs before the first call.
        shared: whether past and present of a cache may be one buffer.
        open_many: gives a session on the same program that is faster at many new tokens.
    """
    device = "cuda" if CUDA in session.get_providers() else "cpu"
    kind = SharedBuffers if shared else GrowingCaches
    caches = kind(names, start.empty, device)
    return BoundDecoder(session, names, caches, start.fixed, open_many)
