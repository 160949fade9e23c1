"""The peers: what the user would otherwise ship, how to make it, and what it needs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from strop.bench.harness import exports
from strop.bench.harness.engines import Compile, Eager, Engine, OnnxFile, OpenVino
from strop.bench.processes.spawned import EngineError, isolated
from strop.compiler.util.errors import StropError, UsageError, did_you_mean

Step = Callable[[str, Path, str], None]
Make = Callable[[str, int, "Preparations"], Engine]


@dataclass(frozen=True)
class Peer:
    """One way to run the original model.

    Attributes:
        engine: from its name, the threads, and what its steps prepared.
        steps: what to prepare, in order.
        packages: modules that must be installed.
        install: the command that installs them.
    """

    engine: Make
    steps: tuple[Step, ...] = ()
    packages: tuple[str, ...] = ()
    install: str = ""

    def lacks(self) -> str | None:
        """What is not installed, and how to install it; None if everything is there."""
        gone = [name for name in self.packages if not _importable(name)]
        if gone:
            return f"{', '.join(gone)} not installed: {self.install}"
        if self.engine is _compile and not shutil.which(os.environ.get("CXX", "g++")):
            return "torch.compile needs a C++ compiler: apt install g++, or set CXX"
        return None


def _importable(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # the package around it is missing
        return False


def _eager(name: str, threads: int, made: Preparations) -> Engine:
    return Eager(name, threads, made.source, made.program)


def _compile(name: str, threads: int, made: Preparations) -> Engine:
    return Compile(name, threads, made.source, made.program)


def _onnx(file: str) -> Make:
    return lambda name, threads, made: OnnxFile(name, threads, made.folder / file)


def _openvino(file: str) -> Make:
    return lambda name, threads, made: OpenVino(name, threads, made.folder / file)


_HF = (("transformers.exporters",), "pip install -U 'strop[hf]'")
_OPENVINO = (("openvino",), "pip install 'strop[openvino]'")
_NNCF = (("openvino", "nncf"), "pip install 'strop[nncf]'")
PEERS: dict[str, Peer] = {
    "eager": Peer(_eager),
    "compile": Peer(_compile),
    "ort": Peer(_onnx(exports.EXPORTED), (exports.export_onnx,)),
    "ort-optimizer": Peer(_onnx(exports.OPTIMIZED), (exports.export_onnx, exports.optimize)),
    "ort-dynamic": Peer(_onnx(exports.QUANTIZED), (exports.export_onnx, exports.quantize)),
    "ort-static": Peer(_onnx(exports.STATIC), (exports.export_onnx, exports.quantize_static)),
    "hf": Peer(_onnx(exports.HF), (exports.export_hf,), *_HF),
    "hf-dynamic": Peer(_onnx(exports.HF_QUANTIZED), (exports.quantize_hf,), *_HF),
    "openvino": Peer(_openvino(exports.OPENVINO), (exports.convert_openvino,), *_OPENVINO),
    "openvino-nncf": Peer(
        _openvino(exports.NNCF), (exports.convert_openvino, exports.quantize_openvino), *_NNCF
    ),
}
# The peers where none is named; the first is the baseline.
DEFAULT = ("eager", "ort")


def check_names(names: Sequence[str], known: Collection[str]) -> None:
    """Refuse names that are no peers.

    Raises:
        UsageError: there is no such peer.
    """
    for name in names:
        if name not in known:
            raise UsageError(f"--against: no engine '{name}'{did_you_mean(name, list(known))}")


class Preparations:
    """Prepares peers in a folder; a step that several need is done once."""

    def __init__(
        self, peers: Mapping[str, Peer], source: str, program: str, folder: Path, timeout: float
    ) -> None:
        self._peers = peers
        self.source = source
        self.program = program
        self.folder = folder
        self._timeout = timeout
        self._outcomes: dict[Step, str | None] = {}

    def prepare(self, name: str) -> str | None:
        """Prepare one peer; returns why that does not work, or None."""
        for step in self._peers[name].steps:
            if step not in self._outcomes:
                self._outcomes[step] = self._do(step)
            if self._outcomes[step]:
                return self._outcomes[step]
        return None

    def engine(self, name: str, threads: int) -> Engine:
        """The engine of a prepared peer."""
        return self._peers[name].engine(name, threads, self)

    def _do(self, step: Step) -> str | None:
        try:
            isolated(step, self.source, self.folder, self.program, timeout=self._timeout)
        except (EngineError, StropError) as error:
            return f"{step.__name__.replace('_', ' ')}: {error}"
        return None
