"""The check in a process of its own: a runtime that crashes, hangs or takes all memory is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import Pipe
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Strop, Write, leftovers
from torch import nn

from strop.compiler import Model, build
from strop.compiler.targets import isolation
from strop.compiler.targets.isolation import open_isolated
from strop.compiler.targets.target import get_target
from strop.compiler.util.array_pipe import receive, send
from strop.compiler.util.child import Child, ending
from strop.compiler.util.errors import RuntimeEndedError, RuntimeRefusedError, UsageError

CPU = get_target("cpu")
# A runtime that is found before the real one. It has one input, x, and doubles it, badly.
FAKE = """
    import os, sys, time
    from types import SimpleNamespace as Named
    import numpy as np

    class InferenceSession:
        def __init__(self, path, providers):
            {opening}

        def get_inputs(self):
            return [Named(name="x")]

        def get_outputs(self):
            return [Named(name="output")]

        def run(self, names, feeds):
            x = feeds["x"]
            {running}
            return [x * 2]
"""
LARGE = "if len(x) == 6: "


class Double(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2


def model(**more: Any) -> Model:
    return Model(Double().eval(), {"x": torch.ones(3, 4)}, {"x": {0: ("rows", 1, 6)}}, **more)


Fake = Callable[..., Path]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """``fake(opening=..., running=...)``: processes started from now on find this runtime."""

    def put(opening: str = "pass", running: str = "pass") -> Path:
        package = tmp_path / "fake" / "onnxruntime"
        package.mkdir(parents=True)
        text = dedent(FAKE).format(opening=opening, running=running)
        (package / "__init__.py").write_text(text)
        monkeypatch.setenv("PYTHONPATH", str(package.parent))
        return package.parent

    return put


@pytest.fixture
def children() -> Iterator[None]:
    """What a test starts is gone behind it."""
    before = _children()
    yield
    assert _children() <= before


def _children() -> set[str]:
    tasks = Path("/proc/self/task").glob("*/children")
    return {pid for task in tasks for pid in task.read_text().split()}


ENDINGS = {
    "os.abort()": "was ended by SIGABRT",
    "os.kill(os.getpid(), 11)": "was ended by SIGSEGV",
    "os.kill(os.getpid(), 9)": r"was ended by SIGKILL \(out of memory, perhaps\)",
    "os._exit(3)": "exited with code 3",
    "print('no kernel', file=sys.stderr, flush=True); os.abort()": "its last output: no kernel$",
    "np.ones(1 << 50)": "Unable to allocate",
    "time.sleep(60)": "within 1.5 s, and was ended",
}


@pytest.mark.usefixtures("children")
@pytest.mark.parametrize("action", ENDINGS)
def test_a_runtime_that_ends_is_told_with_its_case_and_the_old_artifact_stays(
    action: str, fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "artifacts" / "o"
    build(model(), out)
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    fake(running=LARGE + action)
    monkeypatch.setattr(isolation, "PATIENCE", 1.5)
    with pytest.raises(RuntimeRefusedError, match=ENDINGS[action]) as refusal:
        build(model(), out)
    assert "case 'largest: rows=6'" in str(refusal.value)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    assert leftovers(out.parent) == []


@pytest.mark.usefixtures("children")
@pytest.mark.parametrize("action", ["os.abort()", "np.ones(1 << 50)"])
def test_a_runtime_that_ends_while_it_loads_is_told(
    action: str, fake: Fake, tmp_path: Path
) -> None:
    fake(opening=action)
    with pytest.raises(RuntimeRefusedError, match="load"):
        build(model(), tmp_path / "o")
    assert not (tmp_path / "o").exists()


def test_the_command_line_ends_with_5(
    fake: Fake, strop: Strop, write: Write, tmp_path: Path
) -> None:
    fake(running="os.abort()")
    source = write(Path(__file__).read_text(), "model")
    said = strop("build", source, "-o", tmp_path / "o")
    assert said.code == 5
    assert "the runtime did not run the model (case 'calibration[0]')" in said.err


def test_memory_is_limited_to_what_there_is(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(running="np.empty(1 << 28)")
    monkeypatch.setattr(isolation, "available_memory", lambda: 1 << 30)
    with pytest.raises(RuntimeRefusedError, match="Unable to allocate"):
        build(model(), tmp_path / "o")
    monkeypatch.setattr(isolation, "available_memory", lambda: None)
    build(model(), tmp_path / "o")


def test_a_runtime_may_take_as_long_as_the_original_lets_expect(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake(running="time.sleep(0.5)")
    monkeypatch.setattr(isolation, "PATIENCE", 5.0)
    with open_isolated(tmp_path, CPU) as session:
        monkeypatch.setattr(isolation, "PATIENCE", 0.1)
        found = session.run({"x": np.ones(2)}, "a case", seconds=0.1)
        np.testing.assert_array_equal(found["output"], [2, 2])
        for _ in range(2):  # it is gone, and says so again
            with pytest.raises(RuntimeEndedError, match=r"\(a case\) within 0.1 s"):
                session.run({"x": np.ones(2)}, "a case")


@pytest.mark.usefixtures("children")
def test_the_owners_measure_runs_the_file_there(fake: Fake, tmp_path: Path) -> None:
    fake()
    calls: list[Any] = []

    def measure(run: Any) -> dict[str, float]:
        calls.append([run(x=torch.ones(n, 4))[0] for n in (1, 2)])
        return {"sum": float(calls[-1][1].sum())}

    built = build(model(evaluate=measure), tmp_path / "o")
    assert built.manifest["metrics"] == {"original": {"sum": 16.0}, "artifact": {"sum": 16.0}}
    assert [len(found) for found in calls] == [2, 2]


@pytest.mark.parametrize("swallows", [False, True])
def test_a_runtime_that_ends_in_the_owners_measure_is_told(
    swallows: bool, fake: Fake, tmp_path: Path
) -> None:
    fake(running="if len(x) == 5: os.abort()")

    def measure(run: Any) -> dict[str, float]:
        try:
            run(x=torch.ones(5, 4))
        except RuntimeEndedError:
            if not swallows:
                raise
        return {"sum": 1.0}

    with pytest.raises(RuntimeEndedError, match="SIGABRT"):
        build(model(evaluate=measure, calibration=[{"x": torch.ones(2, 4)}]), tmp_path / "o")


def test_inputs_of_the_measure_that_the_runtime_refuses_are_the_owners_mistake(
    tmp_path: Path,
) -> None:
    def measure(run: Any) -> dict[str, float]:
        return {"sum": float(run(x=torch.ones(2, 4, dtype=torch.float64))[0].sum())}

    with pytest.raises(UsageError, match="evaluate raised RuntimeRefusedError"):
        build(model(evaluate=measure), tmp_path / "o")


def test_threads_of_the_owners_measure_take_turns(fake: Fake, tmp_path: Path) -> None:
    fake(running="time.sleep(0.01)")
    with open_isolated(tmp_path, CPU) as session:
        found: dict[int, Any] = {}

        def ask(n: int) -> None:
            found[n] = session.run({"x": np.full(3, n)})["output"].tolist()

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == {n: [2 * n] * 3 for n in range(8)}


ARRAYS = {
    "floats": np.arange(6, dtype=np.float32).reshape(2, 3),
    "transposed": np.arange(6.0).reshape(2, 3).T,
    "halves": np.ones((2, 2), np.float16),
    "flags": np.array([True, False]),
    "number": np.array(3),
    "empty": np.zeros((0, 4), np.int8),
    "large": np.arange((1 << 20) + 1),
}


def test_arrays_go_through_a_pipe_as_they_are() -> None:
    near, far = Pipe()
    sender = threading.Thread(target=send, args=(far, {"a": [1, "é"]}, ARRAYS))
    sender.start()
    message, arrays = receive(near)
    sender.join()
    assert message == {"a": [1, "é"]}
    assert list(arrays) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert (arrays[name].dtype, arrays[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(arrays[name], array)


def test_an_ending_is_told_with_the_last_line_that_is_not_empty() -> None:
    assert ending(None, "") == "hung up and did not end"
    assert ending(3, "") == "exited with code 3"
    assert ending(-6, "one\n two \n\n") == "was ended by SIGABRT; its last output: two"
    assert ending(-9, "x" * 300).endswith("; its last output: " + "x" * 200)


def test_a_process_imports_nothing_heavy_and_not_the_users_modules_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise ImportError('not this one')")
    (tmp_path / "serves.py").write_text(
        "import sys\n"
        "def modules(pipe):\n"
        "    pipe.send_bytes(' '.join(sys.modules).encode())\n"
        "    pipe.recv_bytes()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    child = Child("serves:modules", None)
    try:
        assert child.pipe.poll(30)
        modules = child.pipe.recv_bytes().decode().split()
    finally:
        child.end()
    assert not {"torch", "onnx", "onnx_ir", "pydantic", "onnxruntime"} & set(modules)


@pytest.mark.usefixtures("interrupts_heeded")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_signal_during_the_check_ends_the_build_and_what_it_started(
    number: signal.Signals, fake: Fake, small: str, tmp_path: Path
) -> None:
    told = tmp_path / "pid"
    folder = fake(running=f"open({str(told)!r}, 'w').write(str(os.getpid())); time.sleep(60)")
    path = Path(small.rpartition(":")[0])
    path.write_text(f"import os\nos.environ['PYTHONPATH'] = {str(folder)!r}\n" + path.read_text())
    out = tmp_path / "artifacts" / "o"
    command = [sys.executable, "-m", "strop.compiler.cli", "build", small, "-o", str(out)]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment) as process:
        assert _comes_true(lambda: told.exists() and told.read_text() != "")
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    killed = number == signal.SIGKILL
    assert process.returncode == (-number if killed else 128 + number), said
    assert b"Traceback" not in said
    assert _comes_true(lambda: not Path(f"/proc/{told.read_text()}").exists())
    assert not out.exists()
    assert len(leftovers(out.parent)) == (1 if killed else 0)


def _comes_true(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + 60
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()
