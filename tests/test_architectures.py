"""The command that tries the types of transformers: its list, its record, and each hard kind."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from typer import BadParameter

from strop.bench.processes.spawned import EngineError
from strop.bench.sweeps.architectures import __main__ as architectures
from strop.bench.sweeps.architectures import runs as architecture_runs
from strop.bench.sweeps.architectures.__main__ import PeerChoice, main
from strop.bench.sweeps.architectures.record import by_outcome, figures, not_built
from strop.bench.sweeps.architectures.runs import (
    ArchitectureOutcome,
    build_it,
    convert_it,
    measure,
    outcome,
)
from strop.bench.sweeps.architectures.types import ARCHITECTURES, model_of
from strop.compiler import Model
from strop.compiler.util.errors import BudgetError, RuntimeRefusedError, StropError, UsageError

OK = {"kind": "ok", "reason": "", "seconds": 1.0}
OFF = {"kind": "wrong", "reason": "off by 3", "seconds": 1.0}
MEASURED = {
    "bert": {"strop": OK},
    "vit": {"strop": OFF, "torch.onnx": OK},
    "t5": {"strop": OFF, "torch.onnx": OFF},
    "clip": {"strop": OFF},
}


def test_the_list_is_broad_and_known_to_transformers() -> None:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    assert len(ARCHITECTURES) >= 150
    assert set(ARCHITECTURES) <= set(CONFIG_MAPPING)


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (BudgetError("off by 3"), "wrong", "off by 3"),
        (RuntimeRefusedError("does not run"), "wrong", "does not run"),
        (UsageError("no\nsuch  dim"), "refused", "no such dim"),
        (ValueError("\x1b[31mtwo\x1b[0m\nlines"), "failed", "ValueError: two lines"),
    ],
)
def test_what_is_raised_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, error: Exception, kind: str, reason: str
) -> None:
    def fails(name: str) -> None:
        raise error

    monkeypatch.setattr(architecture_runs, "model_of", fails)
    found = outcome("bert", "strop")
    assert (found.kind, found.reason) == (kind, reason)


class _Fragile:
    """Stands for a process that is gone after one question."""

    def ask(self, name: str, who: str) -> ArchitectureOutcome:
        if name == "vit":
            raise EngineError("its process was ended by SIGSEGV")
        return ArchitectureOutcome("ok")


def test_the_type_after_one_that_ends_the_process_gets_a_new_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    processes = []

    @contextmanager
    def started(serve: Any, limit: float) -> Iterator[_Fragile]:
        processes.append(limit)
        yield _Fragile()

    monkeypatch.setattr(architecture_runs, "started", started)
    found = dict(measure(["bert", "vit", "t5"], "strop", 5.0))
    assert [o.kind for o in found.values()] == ["ok", "failed", "ok"]
    assert processes == [5.0, 5.0]


def test_figures_count_what_the_peer_converts_and_what_was_not_tried() -> None:
    assert [f.value for f in figures(MEASURED)] == [4, 1, 1, 1]
    assert [f.hit for f in figures(MEASURED)] == [True, True, False, False]
    rows = {tuple(r.cells) for r in by_outcome(MEASURED).rows}
    assert ("wrong", "ok", "1") in rows and ("ok", "not tried", "1") in rows
    assert [r.cells[0] for r in not_built(MEASURED).rows] == ["vit", "t5", "clip"]


class _Fake:
    """Outcomes by type and who, in place of builds; remembers what was asked for."""

    def __init__(self, **kinds: str) -> None:
        self.kinds = kinds
        self.asked: list[tuple[str, str]] = []

    def __call__(
        self, names: Sequence[str], who: str, limit: float
    ) -> Iterator[tuple[str, ArchitectureOutcome]]:
        for name in names:
            self.asked.append((name, who))
            kind: Any = self.kinds[name] if who == "strop" else "ok"
            if kind == "stop":
                raise KeyboardInterrupt
            yield name, ArchitectureOutcome(kind)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(architectures, "environment", dict)


def on_record(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "architectures.json").read_text())["measured"]
    return found


@pytest.mark.usefixtures("quick")
def test_a_stop_loses_nothing_and_the_rest_is_done_later(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(architectures, "measure", _Fake(bert="ok", vit="stop"))
    with pytest.raises(KeyboardInterrupt):
        main(["bert", "vit"], PeerChoice.none, results=tmp_path)
    assert list(on_record(tmp_path)) == ["bert"]
    later = _Fake(vit="ok")
    monkeypatch.setattr(architectures, "measure", later)
    main(["bert", "vit"], PeerChoice.none, missing=True, results=tmp_path)
    assert later.asked == [("vit", "strop")]
    assert set(on_record(tmp_path)) == {"bert", "vit"}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("peer", "converted"),
    [(PeerChoice.none, []), (PeerChoice.failures, ["vit"]), (PeerChoice.all, ["bert", "vit"])],
)
def test_the_peer_is_asked_for_those_that_are_wanted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, peer: PeerChoice, converted: list[str]
) -> None:
    fake = _Fake(bert="ok", vit="wrong")
    monkeypatch.setattr(architectures, "measure", fake)
    main(["bert", "vit"], peer, results=tmp_path)
    assert [name for name, who in fake.asked if who == "torch.onnx"] == converted


def test_a_name_that_is_not_of_the_list_is_refused() -> None:
    with pytest.raises(BadParameter, match="sorcery"):
        main(["sorcery"])


class Steps(nn.Module):
    """A loop over time, which an export fixes at the example's number of steps."""

    def forward(self, x: Tensor) -> Tensor:
        state = torch.zeros_like(x[:, 0])
        for step in range(x.shape[1]):
            state = torch.tanh(state + x[:, step])
        return state


@pytest.mark.slow
def test_a_file_of_the_peers_that_fits_one_size_only_is_no_conversion() -> None:
    x = torch.randn(2, 6, 3)
    with pytest.raises(StropError):
        convert_it(Model(Steps().eval(), {"x": x}, {"x": {1: ("time", 2, 9)}}))
    convert_it(Model(Steps().eval(), {"x": x}, {"x": {0: ("batch", 1, 9)}}))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["mixtral", "qwen2_moe", "qwen3_moe", "deepseek_v2", "deepseek_v3", "falcon", "fnet",
             "convbert", "jetmoe"]
)  # fmt: skip
def test_experts_complex_rotary_and_transforms(name: str) -> None:
    build_it(model_of(name))
