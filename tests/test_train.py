"""The trainer: what it minimises, when it ends, what it holds out, and how it goes on."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Full, run_python
from torch import Tensor

from strop.compiler.rewriting.context import Context
from strop.compiler.util.errors import UsageError
from strop.compiler.util.interrupts import Interrupted
from strop.passes.train import Loss, Policy, Trained, train
from strop.passes.train.checkpoint import STATE
from strop.passes.train.feed import Feed
from strop.passes.train.status import duration

Weights = dict[str, Tensor]
TRUTH = torch.tensor([[1.0, -2.0, 0.5]])
SHORT = Policy(steps=40, lr=0.05, check_every=10, weight_decay=0.0)


def weights() -> Weights:
    generator = torch.Generator().manual_seed(3)
    return {
        "w": torch.randn(1, 3, generator=generator).requires_grad_(),
        "b": torch.zeros(1).requires_grad_(),
    }


def batches(count: int = 20) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(5)
    inputs = [torch.randn(4, 3, generator=generator) for _ in range(count)]
    return [{"x": x, "y": x @ TRUTH.T + 0.3} for x in inputs]


def squares(tensors: Weights) -> Loss:
    def loss(batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        error = batch["x"] @ tensors["w"].T + tensors["b"] - batch["y"]
        return error.square().mean(), {"absolute": error.abs().mean()}

    return loss


def fit(policy: Policy = SHORT, data: Any = None, context: Context | None = None) -> Trained:
    tensors = weights()
    given = batches() if data is None else data
    return train(tensors, squares(tensors), given, policy, context or Context())


def same(one: Trained, other: Trained) -> None:
    assert one.history == other.history and one.ended == other.ended
    assert (one.updates, one.best_at) == (other.updates, other.best_at)
    assert one.tensors.keys() == other.tensors.keys()
    for name, tensor in one.tensors.items():
        assert torch.equal(tensor, other.tensors[name]), name


# What it does ---------------------------------------------------------------------------------


def test_it_learns_what_the_loss_asks_for_and_records_it() -> None:
    got = fit(replace(SHORT, steps=300, check_every=100))
    assert (got.tensors["w"] - TRUTH).abs().max() < 1e-2
    assert [line["update"] for line in got.history] == [0, 100, 200, 300]
    first, last = got.history[0], got.history[-1]
    assert first["loss"] is None and first["validation"] > 1 > 1e-3 > last["validation"]
    assert last["loss"] < 1e-3 and last["parts"].keys() == {"absolute"}
    assert (got.updates, got.best_at, got.ended, got.notes) == (300, 300, "steps", ())


class InOrder:
    """Batches that are no sequence, and so are not shuffled."""

    def __init__(self, given: list[dict[str, Tensor]]) -> None:
        self.given = given

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return iter(self.given)


def test_steps_are_those_of_adamw_on_the_mean_of_their_batches() -> None:
    policy = Policy(steps=2, lr=0.1, warmup=0.0, schedule="constant", accumulate=2, clip=0.5,
                    held_out=0.0, weight_decay=0.1)  # fmt: skip
    data = batches(4)
    # The gradients of the second step are below the clip, and would not be if they were added up.
    data[2:] = [{name: tensor / 8 for name, tensor in batch.items()} for batch in data[2:]]
    got = fit(policy, InOrder(data))
    tensors = weights()
    loss = squares(tensors)
    decay = {"params": tensors["w"], "weight_decay": 0.1}
    optimizer = torch.optim.AdamW([decay, {"params": tensors["b"], "weight_decay": 0.0}], lr=0.1)
    losses, parts, norms = [], [], []
    for step in (data[:2], data[2:]):
        found = [loss(batch) for batch in step]
        optimizer.zero_grad()
        (sum(f[0] for f in found) / 2).backward()  # type: ignore[union-attr]
        norms.append(float(torch.nn.utils.clip_grad_norm_(list(tensors.values()), 0.5)))
        optimizer.step()
        losses += [f[0].item() for f in found]
        parts += [f[1]["absolute"].item() for f in found]
    assert norms[0] > 0.5 > norms[1] > 0.25
    for name, tensor in tensors.items():
        torch.testing.assert_close(got.tensors[name], tensor.detach(), rtol=0, atol=1e-6)
    last = got.history[-1]
    assert last["loss"] == pytest.approx(sum(losses) / 4, rel=1e-5)
    assert last["parts"]["absolute"] == pytest.approx(sum(parts) / 4, rel=1e-5)


def test_the_learning_rate_rises_and_falls() -> None:
    policy = Policy(lr=2.0, warmup=0.1)
    wanted = {0.0: 0.0, 0.05: 1.0, 0.1: 2.0, 0.55: 1.0, 1.0: 0.0, 1.5: 0.0}
    for share, lr in wanted.items():
        assert policy.lr_at(share) == pytest.approx(lr, abs=1e-12)
    assert policy.lr_at(0.325) == pytest.approx(1 + math.cos(math.pi / 4))
    linear = replace(policy, schedule="linear")
    assert linear.lr_at(0.325) == pytest.approx(1.5)
    assert replace(policy, schedule="constant").lr_at(0.9) == 2.0
    assert fit(replace(SHORT, check_every=40)).history[-1]["lr"] == 0.0


def test_biases_do_not_decay() -> None:
    policy = replace(SHORT, steps=1, warmup=0, schedule="constant", weight_decay=1.0, held_out=0)

    def nothing(tensors: Weights) -> Trained:
        loss: Loss = lambda batch: (0 * sum(t.sum() for t in tensors.values()), {})  # noqa: E731
        return train(tensors, loss, batches(), policy, Context())

    got = nothing({"w": torch.ones(2, 2).requires_grad_(), "b": torch.ones(2).requires_grad_()})
    torch.testing.assert_close(got.tensors["w"], torch.full((2, 2), 0.95))
    assert got.tensors["b"].tolist() == [1, 1]


def test_autocast_reaches_the_loss() -> None:
    seen: list[torch.dtype] = []

    def loss(batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        found = torch.nn.functional.linear(batch["x"], tensors["w"])
        seen.append(found.dtype)
        return found.float().square().mean(), {}

    for bf16, dtype in ((False, torch.float32), (True, torch.bfloat16)):
        tensors = weights()
        got = train(tensors, loss, batches(3), Policy(steps=1, bf16=bf16), Context())
        assert set(seen) == {dtype} and got.tensors["w"].dtype == torch.float32
        seen.clear()


# When it ends ---------------------------------------------------------------------------------


def test_an_epoch_is_one_pass_in_an_order_of_its_own() -> None:
    seen: list[int] = []

    class Watched(list[Any]):
        def __getitem__(self, place: Any) -> Any:
            seen.append(place)
            return super().__getitem__(place)

    got = fit(replace(SHORT, steps=0, epochs=2), Watched(batches(20)))
    assert (got.updates, got.ended) == (36, "epochs")
    assert seen[:2] == [9, 19]  # held out
    first, second = seen[2:20], seen[20:38]
    assert sorted(first) == sorted(second) == [i for i in range(20) if i not in (9, 19)]
    assert first != sorted(first) and first != second
    seen.clear()
    fit(replace(SHORT, steps=0, epochs=1, seed=1), Watched(batches(20)))
    assert seen[2:20] != first


def test_an_iterable_keeps_its_order_and_updates_may_cross_its_ends() -> None:
    class Endless:
        def __iter__(self) -> Iterator[dict[str, Tensor]]:
            for number, batch in enumerate(batches(5)):
                seen.append(number)
                yield batch

    seen: list[int] = []
    got = fit(Policy(steps=3, accumulate=4, held_out=0.0), Endless())
    assert seen == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1] and got.updates == 3
    seen.clear()
    assert fit(Policy(steps=0, epochs=1, held_out=0.2, check_every=1), Endless()).updates == 4
    assert fit(Policy(steps=0, epochs=0.5, held_out=0.2), Endless()).updates == 2


def test_the_clock_ends_training_and_moves_the_learning_rate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ticks = iter(range(10_000))
    monkeypatch.setattr("strop.passes.train.trainer.time.perf_counter", lambda: next(ticks))
    got = fit(Policy(steps=0, minutes=0.5, check_every=10))
    assert got.ended == "minutes"
    assert 25 <= got.updates <= 30
    assert got.history[-1]["lr"] < 0.1 * got.history[1]["lr"]


def test_without_a_better_validation_it_ends_and_the_best_weights_are_kept() -> None:
    data = batches()
    for place in (9, 19):
        data[place] = data[place] | {"y": data[place]["x"] @ weights()["w"].detach().T}
    got = fit(Policy(steps=1000, check_every=5, patience=3, lr=0.05), data)
    assert (got.ended, got.updates, got.best_at) == ("patience", 15, 0)
    for name, tensor in weights().items():
        assert torch.equal(got.tensors[name], tensor)


def test_where_nothing_is_held_out_the_last_weights_are_kept() -> None:
    got = fit(replace(SHORT, held_out=0.0, steps=35))
    assert got.best_at == 35 and got.history[-1]["validation"] is None


def test_no_more_is_held_out_than_needed() -> None:
    feed = Feed([{}] * 1000, Policy(), "train")
    assert [place for place, _ in feed.held_out] == list(range(9, 320, 10))
    assert feed.length() == 968
    trained = {place for _, (place, _) in islice(feed.endless(0, 0), 968)}
    assert trained == set(range(1000)) - set(range(9, 320, 10))
    for policy in (Policy(held_out=0.0), Policy(most_held_out=0)):
        assert Feed([{}] * 50, policy, "train").held_out == []
    assert len(Feed(InOrder([{}] * 50), Policy(most_held_out=3), "train").held_out) == 3


# Bad settings and bad data --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"steps": 0}, "training has no end: set steps, epochs or minutes above 0"),
        ({"steps": -1}, "steps is -1; it must be 0 or above"),
        ({"lr": 0.0}, "lr is 0.0; it must be above 0"),
        ({"lr": math.nan}, "lr is nan; it must be above 0"),
        ({"warmup": 1.0}, "warmup is 1.0; it must be at least 0 and below 1"),
        ({"held_out": 0.6}, "held_out is 0.6; it must be between 0 and 0.5"),
        ({"accumulate": 0}, "accumulate is 0; it must be above 0"),
        ({"minutes": -0.5}, "minutes is -0.5; it must be 0 or above"),
    ],
)
def test_settings_out_of_range_are_told(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        Policy(**settings)


def test_data_that_runs_dry_is_told() -> None:
    class Once:
        def __init__(self) -> None:
            self.left = iter(batches(3))

        def __iter__(self) -> Iterator[dict[str, Tensor]]:
            yield from self.left

    with pytest.raises(UsageError, match=r"train gives no batch to train on in pass 2 over it"):
        fit(replace(SHORT, held_out=0.0), Once())
    with pytest.raises(UsageError, match="train gives no batch to train on in pass 1"):
        fit(Policy(steps=0, epochs=1), [])
    with pytest.raises(UsageError, match="train is generator, which is exhausted after one pass"):
        fit(SHORT, (batch for batch in batches()))


def broken_at(*places: int, value: float = math.nan) -> list[dict[str, Tensor]]:
    data = batches()
    for place in places:
        data[place] = data[place] | {"y": data[place]["y"] * value}
    return data


def test_a_loss_that_is_no_number_ends_training_and_names_the_batch() -> None:
    got = fit(replace(SHORT, steps=1000, check_every=3), broken_at(7))
    assert got.ended == "not a number" and got.updates < 18
    assert got.best_at == got.updates // 3 * 3
    assert got.notes == (
        f"the loss is nan on train[7] after {got.updates} updates; training stopped there, and "
        f"the weights after {got.best_at} updates are kept",
    )
    assert all(tensor.isfinite().all() for tensor in got.tensors.values())


@pytest.mark.parametrize("place", [9, 0])
def test_a_first_loss_that_is_no_number_is_an_error(place: int) -> None:
    with pytest.raises(UsageError, match=rf"the loss is inf on train\[{place}\] before the first"):
        fit(SHORT, broken_at(*([9] if place else range(9)), value=math.inf)[: 10 if place else 1])


def test_a_gradient_and_a_part_that_are_no_number_end_it_too() -> None:
    tensors = weights()

    def steep(batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        zero = (tensors["w"] * 0).abs().sum()
        return zero.sqrt() + 1, {}

    with pytest.raises(UsageError, match=r"the norm of the gradients is nan on train\[\d+\]"):
        train(tensors, steep, batches(), SHORT, Context())

    def odd(batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        return tensors["w"].sum(), {"hidden": torch.tensor(math.nan)}

    with pytest.raises(UsageError, match="the part 'hidden' of the loss is nan"):
        train(tensors, odd, batches(), SHORT, Context())


# Several processes ----------------------------------------------------------------------------

TOGETHER = """
import json, os, sys
from pathlib import Path

import torch

from strop.compiler.rewriting.context import Context
from strop.passes.train import Policy, train

torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.GELU(), torch.nn.Linear(8, 1))
batches = [{"x": torch.randn(4, 3)} for _ in range(24)]
breaks = sys.argv[2:] == ["break"]

def loss(batch):
    wanted = batch["x"].sin().sum(1, keepdim=True)
    if breaks and torch.equal(batch["x"], batches[5]["x"]):
        wanted = wanted * float("nan")
    error = (net(batch["x"]) - wanted).square().mean()
    return error, {"half": error / 2}

tensors = dict(net.named_parameters())
policy = Policy(steps=30, lr=0.01, accumulate=4, check_every=10)
kept = Path(sys.argv[1])
got = train(tensors, loss, batches, policy, Context(kept=kept))
values = {"history": got.history, "ended": got.ended, "notes": got.notes,
          "sum": sum(t.double().sum().item() for t in got.tensors.values())}
(kept / f"result_{os.environ.get('RANK', 'alone')}.json").write_text(json.dumps(values))
"""


def results(tmp_path: Path, *more: str) -> dict[str, Any]:
    """What one process gives, and what each of two that torchrun starts gives."""
    script = tmp_path / "together.py"
    script.write_text(TOGETHER)
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    found = {}
    for name, starter in (("one", ()), ("two", torchrun)):
        kept = tmp_path / name
        kept.mkdir()
        done = run_python(*starter, str(script), str(kept), *more)
        assert done.code == 0, done.err
        for file in kept.glob("result_*.json"):
            found[file.stem] = json.loads(file.read_text())
    return found


def numbers(history: Any) -> list[float]:
    """All numbers of a history, in order."""
    values = history.values() if isinstance(history, dict) else history
    if isinstance(history, (int, float)):
        return [float(history)]
    return [] if history is None else [number for value in values for number in numbers(value)]


@pytest.mark.slow
def test_two_processes_train_as_one_does_on_the_same_batches(tmp_path: Path) -> None:
    found = results(tmp_path)
    alone = found["result_alone"]
    assert len(numbers(alone["history"])) > 20
    for name in ("result_0", "result_1"):
        assert numbers(found[name]["history"]) == pytest.approx(
            numbers(alone["history"]), rel=1e-4, abs=1e-4
        )
        assert found[name]["sum"] == pytest.approx(alone["sum"], abs=1e-4)
    assert found["result_0"] == found["result_1"]


@pytest.mark.slow
def test_of_two_processes_both_stop_at_a_loss_that_is_no_number(tmp_path: Path) -> None:
    found = results(tmp_path, "break")
    assert {one["ended"] for one in found.values()} == {"not a number"}
    assert all("on train[5] after" in one["notes"][0] for one in found.values())


def test_processes_that_cannot_share_an_update_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="2 processes cannot share updates of 3 batches: set accu"):
        fit(replace(SHORT, accumulate=3))


# Going on -------------------------------------------------------------------------------------


class Killed(BaseException):
    """Ends a training at once, as a kill does."""


def noisy(tensors: Weights, stop_at: int, end: type[BaseException] = Killed) -> Loss:
    """A loss that draws from every source of random numbers, and ends the process at a call."""
    calls = 0

    def loss(batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        nonlocal calls
        calls += 1
        if calls == stop_at:
            raise end
        noise = torch.randn(4, 1) * random.random() * np.random.rand()
        error = batch["x"] @ tensors["w"].T + tensors["b"] - batch["y"] + noise
        return error.square().mean(), {"noise": noise.abs().mean()}

    return loss


class Drawn:
    """Batches that are drawn anew in every pass, with torch's own random numbers."""

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        scale = torch.rand(())
        for batch in batches(7):
            yield {"x": batch["x"] * scale + torch.randn(4, 3), "y": batch["y"]}


@pytest.mark.parametrize("data", [batches, Drawn], ids=["sequence", "iterable"])
@pytest.mark.parametrize("stop_at", [1, 9, 31, 62, 77])
def test_a_killed_training_goes_on_with_the_same_result(
    data: Callable[[], Any], stop_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = replace(SHORT, accumulate=2, held_out=0.3, check_every=7)

    def run(context: Context, stop: int = 0) -> Trained:
        tensors = weights()
        return train(tensors, noisy(tensors, stop), data(), policy, context)

    whole = run(Context())
    # As if every update took longer than checkpoints are apart.
    monkeypatch.setattr("strop.passes.train.trainer._SECONDS_BETWEEN", -1.0)
    kept = Context(kept=tmp_path)
    with pytest.raises(Killed):
        run(kept, stop_at)
    assert (tmp_path / STATE).exists() == (stop_at > 6)
    said: list[str] = []
    same(run(replace(kept, progress=said.append)), whole)
    assert said[0].startswith("training: on from the checkpoint") == (stop_at > 6)
    assert len(list(tmp_path.glob("best-*"))) == 1


@pytest.mark.parametrize("signal", [Interrupted, KeyboardInterrupt])
def test_an_interrupted_training_says_how_to_go_on(
    signal: type[BaseException], tmp_path: Path
) -> None:
    def notes(context: Context, stop_at: int) -> list[str]:
        tensors = weights()
        with pytest.raises(signal) as caught:
            train(tensors, noisy(tensors, stop_at, signal), batches(), SHORT, context)
        return list(caught.value.__notes__)

    assert notes(Context(kept=tmp_path), 1) == [
        "training was interrupted after 0 updates; nothing of it is kept"
    ]
    # 2 held out are measured first, and after 10 updates.
    assert notes(Context(kept=tmp_path), 18) == [
        "training was interrupted after 13 updates; the checkpoint of update 10 is kept: run the "
        "same command again to go on from there"
    ]
    assert notes(Context(), 18) == [
        "training was interrupted after 13 updates; nothing of it is kept"
    ]


def test_a_full_disk_costs_the_checkpoints_and_not_the_training(tmp_path: Path, full: Full) -> None:
    def run(context: Context) -> Trained:
        tensors = weights()
        return train(tensors, noisy(tensors, 0), batches(), SHORT, context)

    told: list[str] = []
    with full(300):
        found = run(Context(kept=tmp_path, say=told.append))
    same(found, run(Context()))
    assert len(told) == 1 and "goes on without further checkpoints: Error" in told[0]
    assert not list(tmp_path.glob("*.new"))


@pytest.mark.parametrize("damage", ["state", "best", "header"])
def test_a_damaged_checkpoint_is_told_and_training_begins_anew(damage: str, tmp_path: Path) -> None:
    context = Context(kept=tmp_path)
    tensors = weights()
    with pytest.raises(Killed):
        train(tensors, noisy(tensors, 30), batches(), SHORT, context)
    (best,) = tmp_path.glob("best-*")
    if damage == "header":
        (tmp_path / STATE).write_bytes(best.read_bytes())
    else:
        path = tmp_path / STATE if damage == "state" else best
        path.write_bytes(path.read_bytes()[:-8])
    said: list[str] = []
    same(fit(context=replace(context, say=said.append)), fit())
    assert len(said) == 1 and said[0].startswith("training begins anew: the checkpoint")


def test_progress_tells_how_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(0, 10**6, 3))
    monkeypatch.setattr("strop.passes.train.status.time.monotonic", lambda: next(ticks))
    monkeypatch.setattr("strop.passes.train.trainer._SECONDS_BETWEEN", math.inf)
    said: list[str] = []
    fit(context=Context(progress=said.append))
    assert said[0] == "training: update 0, 0%"
    assert re.fullmatch(r"training: update 20, 50%, loss [\d.]+, \d+ (s|min) left", said[21])


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-1, "0 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (5399, "90 min"),
        (5400, "1.5 h"),
        (36000, "10.0 h"),
    ],
)
def test_times_read_as_people_say_them(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_of_several_processes_the_first_one_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    fit(replace(SHORT, accumulate=2), context=Context(kept=tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_random_numbers_of_the_caller_go_on_as_they_were() -> None:
    torch.manual_seed(1)
    wanted = torch.rand(3)
    torch.manual_seed(1)
    fit(data=Drawn())
    assert torch.equal(torch.rand(3), wanted)
