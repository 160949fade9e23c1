"""Engines in processes of their own: what they answer, and what is left when they go wrong.

Torch is not imported here, since the processes import this file.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from strop.bench.harness.bout import Bout
from strop.bench.harness.canary import Best, Canary, Patience, canary
from strop.bench.harness.engines import Engine, Runner
from strop.bench.harness.subject import Feeds
from strop.bench.harness.workers import workers
from strop.bench.processes.spawned import EngineError, isolated
from strop.bench.records.record import Plan
from strop.compiler.util.errors import UsageError
from strop.compiler.util.numerics import Array

FEEDS = {"one": {"x": np.ones(4, np.float32)}, "two": {"x": np.zeros(2, np.float32)}}


@dataclass(frozen=True)
class Fake(Engine):
    """Doubles its input; ``trap`` is how it ends, and ``after`` how many runs from now."""

    trap: str = ""
    after: int = 0
    runtime = "json"

    def load(self) -> Runner:
        if self.trap == "refuse":
            raise ValueError("no such kernel\nand a long trace")
        return FakeRunner(self.trap, self.after)


class FakeRunner(Runner):
    def __init__(self, trap: str, after: int) -> None:
        self.trap, self.left = trap, after

    def run(self, feeds: Feeds) -> list[Array]:
        self.left -= 1
        if self.left < 0 and self.trap:
            spring(self.trap)
        time.sleep(0.001)
        return [2 * feeds["x"]]


def plan(rounds: int) -> Plan:
    return Plan(threads=[1], bouts=1, rounds=rounds, turn_seconds=0.005)


def quiet() -> Canary:
    """One that is always as well as can be."""
    return Canary(lambda runs: [0.001] * runs, Best(), Patience(0))


def spring(trap: str) -> None:
    """End badly, in one of the ways there are."""
    print("the last words", flush=True)  # noqa: T201  (into the log of the process)
    if trap == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif trap == "exit":
        os._exit(7)
    elif trap == "hang":
        time.sleep(60)
    elif trap == "raise":
        raise ValueError("no such kernel\nand a long trace")
    elif trap == "usage":
        raise UsageError("the factory is wrong")


def trapped(trap: str) -> str:
    """What is called in a process of its own."""
    spring(trap)
    return "fine"


def test_a_function_is_called_in_a_process_of_its_own() -> None:
    assert isolated(os.getpid, timeout=30) != os.getpid()
    assert isolated(trapped, "", timeout=30) == "fine"


@pytest.mark.parametrize(
    ("trap", "reason"),
    [
        ("segfault", "its process was ended by SIGSEGV; its last output: the last words"),
        ("exit", "its process exited with code 7; its last output: the last words"),
        ("hang", "gave no answer within 3 s"),
        ("raise", "ValueError: no such kernel$"),
    ],
)
def test_whatever_ends_a_process_becomes_a_sentence(trap: str, reason: str) -> None:
    with pytest.raises(EngineError, match=reason):
        isolated(trapped, trap, timeout=3)


def test_errors_of_strop_come_through_as_they_are() -> None:
    with pytest.raises(UsageError, match="the factory is wrong"):
        isolated(trapped, "usage", timeout=30)


def test_no_log_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    isolated(trapped, "", timeout=30)
    with pytest.raises(EngineError):
        isolated(trapped, "segfault", timeout=30)
    assert not list(tmp_path.iterdir())


def test_engines_are_timed_and_answer_from_inputs_they_were_given_once() -> None:
    engines = [Fake("a", 1), Fake("b", 1)]
    with workers(engines, FEEDS, timeout=30) as (running, refused):
        np.testing.assert_array_equal(running["a"].outputs("one")[0], [2, 2, 2, 2])
        ticks: list[int] = []
        bout = Bout(running, ["one", "two"], plan(3), quiet(), lambda: ticks.append(1))
        samples = bout.run()
        assert running["b"].peak_memory() > 10e6
        assert running["b"].load_ms >= 0
    assert not refused
    assert not bout.failed
    assert len(ticks) == 3 * 2
    assert all(len(samples[c][n]) == 3 for c in FEEDS for n in "ab")
    assert min(samples["one"]["a"]) >= 1.0


@pytest.mark.parametrize("after", [2, 20], ids=["at once", "in the middle"])
def test_an_engine_that_crashes_costs_its_row_and_not_the_bout(after: int) -> None:
    engines = [Fake("good", 1), Fake("bad", 1, "segfault", after)]
    with workers(engines, FEEDS, timeout=30) as (running, _):
        bout = Bout(running, ["one", "two"], plan(4), quiet())
        samples = bout.run()
    assert list(bout.failed) == ["bad"]
    assert "SIGSEGV" in bout.failed["bad"]
    assert {c: {n: len(t) for n, t in of.items()} for c, of in samples.items()} == {
        "one": {"good": 4},
        "two": {"good": 4},
    }


def test_an_engine_that_hangs_is_given_up() -> None:
    start = time.perf_counter()
    engines = [Fake("bad", 1, "hang"), Fake("good", 1)]
    with workers(engines, FEEDS, timeout=3) as (running, _):
        bout = Bout(running, ["one"], plan(2), quiet())
        samples = bout.run()
    assert bout.failed == {"bad": "does not run: gave no answer within 3 s"}
    assert list(samples["one"]) == ["good"]
    assert time.perf_counter() - start < 30


def test_an_engine_that_cannot_load_says_why_and_the_others_start() -> None:
    engines = [Fake("bad", 1, "refuse"), Fake("good", 1)]
    with workers(engines, FEEDS, timeout=30) as (running, refused):
        assert list(running) == ["good"]
    assert refused == {"bad": "does not load: ValueError: no such kernel"}


def looks(*milliseconds: float) -> Callable[[int], list[float]]:
    """A canary that takes these times, look by look, and the last one for ever."""
    left = list(milliseconds)
    return lambda runs: [(left.pop(0) if len(left) > 1 else left[0]) / 1000] * runs


def test_a_disturbed_round_is_repeated_as_long_as_patience_lasts() -> None:
    # Before and after each round: one calm, one disturbed after it, then calm for good.
    watch = Canary(looks(1, 1, 1, 2, 1), Best(), Patience(10))
    with workers([Fake("a", 1)], FEEDS, timeout=30) as (running, _):
        bout = Bout(running, ["one"], plan(3), watch)
        samples = bout.run()
    assert bout.looks == {"one": [1, 2, 1, 1]}
    assert len(samples["one"]["a"]) == 4
    assert watch.patience.left < 10


def test_a_round_begins_when_the_machine_is_calm() -> None:
    watch = Canary(looks(1, 5, 5, 1.1), Best(), Patience(10))
    assert watch.look() == 1
    assert watch.settle() == pytest.approx(1.1)


def test_patience_ends() -> None:
    best = Best()
    best.see(1)
    watch = Canary(looks(5), best, Patience(0.3))
    start = time.perf_counter()
    with workers([Fake("a", 1)], FEEDS, timeout=30) as (running, _):
        bout = Bout(running, ["one"], plan(2), watch)
        bout.run()
    assert bout.looks == {"one": [5, 5]}
    assert time.perf_counter() - start < 20


def test_patience_ends_within_a_repeated_round_too() -> None:
    best = Best()
    best.see(1)
    watch = Canary(looks(5), best, Patience(0.6))
    with watch.patience.spent():
        assert watch.settle() == 5
        assert watch.settle() == 5
    assert watch.patience.left <= 0


def test_the_canary_runs_in_the_runtime_and_its_best_is_kept() -> None:
    best = Best()
    with canary(1, best, patience=0) as watch:
        assert 0 < watch.look() < 1000
    assert best.milliseconds < 1000


@pytest.fixture
def leftovers() -> Iterator[Any]:
    """Processes of engines that still live."""
    import multiprocessing

    before = set(multiprocessing.active_children())
    yield lambda: set(multiprocessing.active_children()) - before


def test_no_process_outlives_the_block(leftovers: Any) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        workers([Fake("a", 1), Fake("b", 1, "hang")], FEEDS, timeout=30),
    ):
        raise KeyboardInterrupt
    assert not leftovers()
