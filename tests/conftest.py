"""What several tests share: the command line, in this process and in its own, and a small model."""

from __future__ import annotations

import gc
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import pytest
import torch
from hypothesis import settings

from strop.compiler.cli import main as cli

# Kernels are run by Triton's interpreter where there is no GPU. It reads this when it is imported.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# How long an example takes says more about what else the machine does than about the example.
settings.register_profile("strop", deadline=None)
settings.load_profile("strop")

SMALL = """
    import torch
    from strop.compiler import Model

    class Small(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.up = torch.nn.Linear(16, 32)
            self.down = torch.nn.Linear(32, 16)

        def forward(self, x):
            return torch.softmax(self.down(torch.nn.functional.gelu(self.up(x))), -1)

    def make():
        torch.manual_seed(0)
        return Model(Small().eval(), {"x": torch.randn(3, 16)}, {"x": {0: ("batch", 1, 8)}})
"""


@dataclass(frozen=True)
class Result:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str


Strop = Callable[..., Result]
Write = Callable[..., str]
Full = Callable[[int], AbstractContextManager[None]]


@pytest.fixture(autouse=True)
def own_state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What strop remembers of builds, and what passes learn, stays within the tests."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
    monkeypatch.setenv("STROP_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(autouse=True, scope="module")
def earlier_objects_left_alone() -> None:
    """Collections walk over what a file of tests made, and not over all that was there before.

    Every build ends with a full one, and the modules and caches of torch, transformers and
    earlier files are a million objects.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def interrupts_heeded() -> Iterator[None]:
    """Where tests run in the background, signals are ignored, and builds would inherit that."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    for number in before:
        own = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, own)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def full() -> Full:
    """``with full(bytes): ...``: no file can become larger, as on a disk that is full."""

    @contextmanager
    def limited(most: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        heard = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, heard)

    return limited


@pytest.fixture
def rows_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither torch's decompositions nor ``torch.onnx`` stand in for a row of the lowering."""
    from strop.compiler.lower.onnx import candidates
    from strop.compiler.lower.onnx.refusal import NotLowered

    def refuse(*_: object) -> None:
        raise NotLowered("only rows are tried here")

    monkeypatch.setattr(candidates, "_emit_decomposed", refuse)
    monkeypatch.setattr(candidates, "emit_by_torchlib", refuse)


@pytest.fixture
def strop(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Strop:
    """``strop(...)`` runs the command line in this process."""

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["strop", *map(str, arguments)])
        heard = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        handlers = {number: signal.getsignal(number) for number in heard}
        try:
            with pytest.raises(SystemExit) as end:
                cli.main()
                sys.exit(0)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        said = capsys.readouterr()
        return Result(int(end.value.code or 0), said.out, said.err)

    return run


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """``write(source)`` puts a factory into a file and returns ``FILE.py:make``."""
    count = 0

    def put(source: str, name: str = "make") -> str:
        nonlocal count
        count += 1
        path = tmp_path / f"model_{count}.py"
        path.write_text(dedent(source))
        return f"{path}:{name}"

    return put


@pytest.fixture
def small(write: Write) -> str:
    """The source of a model that builds in a second."""
    return write(SMALL)


def run_strop(*arguments: object, **environment: str) -> Result:
    """Run the command line in a process of its own."""
    return run_python("-m", "strop.compiler.cli", *map(str, arguments), **environment)


def run_python(*arguments: str, **environment: str) -> Result:
    """Run Python in a process of its own; a killed one has a negative code."""
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        timeout=300,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def leftovers(folder: Path) -> list[str]:
    """Workspaces of builds that still stand in a folder."""
    return sorted(p.name for p in folder.iterdir() if p.name.startswith("."))


@pytest.fixture
def interpreter_casts() -> Iterator[None]:
    """Bfloat16 and e4m3 are right in Triton's interpreter, as far as ``exact_casts`` says."""
    # Triton is loaded for tests of kernels alone.
    from exact_casts import exact_casts

    with exact_casts():
        yield
