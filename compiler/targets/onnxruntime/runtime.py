"""ONNX Runtime as a ``Runtime``; it is imported when files are opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from strop.compiler.targets.decoding import Decoder, Names, Start
from strop.compiler.targets.runtime import Runtime, Session, StandIn, Trace
from strop.compiler.targets.target import MAIN, OnnxTarget, Target, onnx_file
from strop.compiler.util.errors import RuntimeRefusedError
from strop.compiler.util.numerics import Array

_CPU = "ONNX Runtime's CPU provider (in float32 where it has no float16 kernels)"


class OnnxSession:
    """A default session on a file."""

    def __init__(self, session: Any, path: Path | None = None) -> None:
        """Keep it; ``path`` is that of the file, beside which others may be opened."""
        self.session, self._path = session, path
        self._beside: dict[str, Any] = {}
        self.inputs: Sequence[str] = [i.name for i in session.get_inputs()]
        self.outputs: Sequence[str] = [o.name for o in session.get_outputs()]

    def run(self, feeds: Mapping[str, Array], what: str = "") -> dict[str, Array]:
        """Run once; outputs by name."""
        try:
            found = self.session.run(None, {n: feeds[n] for n in self.inputs})
        except Exception as error:  # the runtime's exceptions have no family
            place = f" ({what})" if what else ""
            raise RuntimeRefusedError(
                f"ONNX Runtime does not run the model{place}: {error}"
            ) from error
        return dict(zip(self.outputs, found))

    def beside(self, program: str) -> Any:
        """A session on another file of the folder, opened once, with the same providers."""
        if program not in self._beside:
            assert self._path is not None
            path = self._path.with_name(onnx_file(program))
            self._beside[program] = _opened(path, self.session.get_providers())
        return self._beside[program]


def _opened(path: Path, providers: Sequence[str]) -> Any:
    import onnxruntime as ort

    try:
        return ort.InferenceSession(str(path), providers=list(providers))
    except Exception as error:  # the runtime's exceptions have no family
        raise RuntimeRefusedError(f"ONNX Runtime does not load the model: {error}") from error


class OnnxRuntime:
    """Opens and runs the ONNX file of a program and its external data."""

    def versions(self) -> dict[str, str]:
        """The version of ONNX Runtime."""
        import onnxruntime as ort

        return {"onnxruntime": ort.__version__}

    def stand_in(self, target: Target) -> StandIn | None:
        """The CPU provider, where that of the target does not start."""
        assert isinstance(target, OnnxTarget)
        first, *others = target.providers
        if not others:  # the CPU's alone
            return None
        from strop.compiler.targets.onnxruntime.providers import started

        if first in started(target.providers):
            return None
        return StandIn(f"{first} found no device", _CPU, lambda folder, feeds: 0.0)

    def open(self, folder: Path, target: Target, program: str = MAIN) -> OnnxSession:
        """A session with default options on those of the target's providers that start."""
        from strop.compiler.targets.onnxruntime.providers import started

        assert isinstance(target, OnnxTarget)
        path = folder / target.file_of(program)
        return OnnxSession(_opened(path, started(target.providers)), path)

    def decoder(self, session: Session, names: Names, start: Start, shared: bool) -> Decoder:
        """A decoder whose caches stay in the runtime's memory."""
        from strop.compiler.targets.onnxruntime.bound import bound_decoder

        assert isinstance(session, OnnxSession)
        many = partial(session.beside, names.prefill) if names.prefill else None
        return bound_decoder(session.session, names, start, shared, many)

    def values(
        self, folder: Path, feeds: Mapping[str, Array], program: str = MAIN
    ) -> dict[str, Array]:
        """Every tensor that the file computes, by name."""
        from strop.compiler.targets.onnxruntime.values import file_values

        return file_values(folder / onnx_file(program), feeds)

    def text(self, folder: Path, program: str = MAIN) -> str:
        """One node a line: ``%linear = MatMul(%input, %weight)``."""
        from strop.compiler.targets.onnxruntime.values import file_text

        return file_text(folder / onnx_file(program))

    def trace(
        self,
        folder: Path,
        target: Target,
        feeds: Mapping[str, Array],
        runs: int,
        program: str = MAIN,
    ) -> Trace:
        """The runtime's own profile of every node."""
        from strop.compiler.targets.onnxruntime.trace import trace
        from strop.compiler.targets.onnxruntime.values import read_model

        assert isinstance(target, OnnxTarget)
        path = folder / target.file_of(program)
        read_model(path)
        return trace(path, target, feeds, runs)


RUNTIME: Runtime = OnnxRuntime()
