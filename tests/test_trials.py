"""Trials of training: what their arms share, on a task of seconds."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
import typer
from torch import Tensor, nn
from torch.nn import functional as F

from strop.bench.models import fashion
from strop.bench.models.mobilenet import MobileNetV2
from strop.bench.models.small_vision import ResNet, ViT
from strop.bench.trials.arms import (
    after,
    at_best_rates,
    chosen,
    dense,
    drawn,
    fine_tuned,
    from_scratch,
)
from strop.bench.trials.sample import Sample, for_each_seed, samples
from strop.bench.trials.task import Task, outputs_of
from strop.compiler.ir.cost import CostModel
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.context import Batch
from strop.passes.distill.recover import Recover
from strop.passes.prune.prune import Prune
from strop.passes.train import Policy

SHORT = Policy(steps=150, lr=2e-2, held_out=0)
RECOVER = Recover(steps=100, lr=1e-2, held_out=0)


class Net(nn.Module):
    """Points in the plane to two classes, with a norm that has statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.norm, self.out = nn.Linear(2, 64), nn.BatchNorm1d(64), nn.Linear(64, 2)

    def forward(self, points: Tensor) -> dict[str, Tensor]:
        return {"logits": self.out(F.relu(self.norm(self.up(points))))}


def ring(count: int, seed: int) -> list[Batch]:
    """Points, and whether they lie in a ring."""
    generator = torch.Generator().manual_seed(seed)
    found: list[Batch] = []
    for _ in range(count):
        points = torch.randn(32, 2, generator=generator)
        found.append({"points": points, "label": (points.norm(dim=1) > 1.2).long()})
    return found


def loss(outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
    return F.cross_entropy(outputs["logits"], batch["label"])


def wrong(program: Program, batches: Sequence[Batch]) -> float:
    """The share of points in the wrong class."""
    classes = [outputs_of(program, {"points": b["points"]})["logits"].argmax(1) for b in batches]
    return float((torch.cat(classes) != torch.cat([b["label"] for b in batches])).float().mean())


TASK = Task(ring(16, 0), ring(4, 1), ring(8, 2), loss, wrong, False, {"points": {0: "batch"}})


@pytest.fixture(scope="module")
def program() -> Program:
    return dense(Net, TASK, SHORT)


def test_a_trial_is_made_once_for_each_seed_in_order() -> None:
    drawn_by: list[int] = []

    def trial(seed: int) -> int:
        drawn_by.append(seed)
        return 10 * seed

    assert for_each_seed("a trial", trial, [3, 1]) == [30, 10]
    assert drawn_by == [3, 1]


def test_a_dense_model_learns_its_task_and_its_statistics(program: Program) -> None:
    assert wrong(program, TASK.test) < 0.12
    assert [spec.name for spec in program.contract.outputs] == ["logits"]
    mean = program.weights["norm.running_mean"]
    assert float(mean.abs().max()) > 0


def test_a_dense_model_depends_on_its_seed_alone(program: Program) -> None:
    again, other = dense(Net, TASK, SHORT), dense(Net, TASK, replace(SHORT, seed=1))
    assert torch.equal(again.weights["up.weight"], program.weights["up.weight"])
    assert not torch.equal(other.weights["up.weight"], program.weights["up.weight"])


def test_both_arms_recover_and_fine_tuning_looks_at_labels_alone(program: Program) -> None:
    context = TASK.context(program, 0)
    smaller = after([Prune(share=0.75, importance="random", round_to=4)], program, context)
    recovered = [after([one], smaller, context) for one in (RECOVER, fine_tuned(RECOVER))]
    assert all(wrong(one, TASK.test) < wrong(smaller, TASK.test) for one in recovered)
    no_teacher = replace(context, teacher=TASK.captured(drawn(Net, 5)))
    alike, other = (after([one], smaller, no_teacher) for one in (fine_tuned(RECOVER), RECOVER))
    assert torch.equal(alike.weights["out.weight"], recovered[1].weights["out.weight"])
    assert not torch.equal(other.weights["out.weight"], recovered[0].weights["out.weight"])


def test_from_scratch_has_the_size_of_the_smaller_one_and_none_of_its_weights(
    program: Program,
) -> None:
    smaller = after([Prune(share=0.5, importance="l2")], program, TASK.context(program, 0))
    untrained = TASK.captured(drawn(Net, 7))
    fresh = from_scratch(smaller, untrained)
    kept = torch.tensor(smaller.origins["up.weight"].kept[0])
    assert torch.equal(fresh.weights["up.weight"], untrained.weights["up.weight"][kept])
    for name, weight in smaller.parameters.items():
        assert fresh.weights[name].shape == weight.shape
    assert not torch.equal(fresh.weights["up.weight"], smaller.weights["up.weight"])


def test_settings_are_chosen_on_validation_data(program: Program) -> None:
    context = TASK.context(program, 0)
    smaller = after([Prune(share=0.75, importance="random", round_to=4)], program, context)
    candidates = {"slow": replace(RECOVER, lr=1e-7), "fast": RECOVER}
    best, found = chosen(candidates, smaller, TASK, context)
    fast = after([RECOVER], smaller, context)
    assert (best, found["fast"]) == ("fast", wrong(fast, TASK.validation))
    assert replace(TASK, larger_is_better=True).best(found) == "slow"


def test_a_sample_has_a_mean_and_a_spread_of_differences() -> None:
    one, other = Sample.of([1.0, 3.0]), Sample.of([0.0, 2.0])
    assert (one.mean, one.deviation) == (2.0, pytest.approx(2**0.5))
    assert one.minus(other) == Sample((1.0, 1.0), 1.0, 0.0)
    assert Sample.of([2.0]).deviation == 0.0
    with pytest.raises(ValueError):
        one.minus(Sample.of([1.0]))


def test_arms_are_searched_over_the_same_learning_rates(program: Program) -> None:
    context = TASK.context(program, 0)
    smaller = after([Prune(share=0.75, importance="random", round_to=4)], program, context)
    arms = {"distilled": RECOVER, "tuned": fine_tuned(RECOVER)}
    best, found = at_best_rates(arms, (1e-7, 1e-2), smaller, TASK, context)
    assert {name: list(rates) for name, rates in found.items()} == dict.fromkeys(
        arms, ["1e-07", "0.01"]
    )
    assert {name: (one.lr, one.hard) for name, one in best.items()} == {
        "distilled": (1e-2, 0),
        "tuned": (1e-2, 1),
    }


def test_runs_become_a_sample_for_each_measurement_and_a_figure_with_its_spread() -> None:
    found = samples([{"a": 1.0, "b": 0.0}, {"a": 3.0, "b": 1.0}])
    figure = found["a"].figure("points", at_least=0)
    assert (found["b"].values, figure.value, figure.hit) == ((0.0, 1.0), 2.0, True)
    assert figure.what == "points (mean of 2 seeds, ± 1.4)"


def idx(folder: Path, name: str, shape: tuple[int, ...], values: bytes) -> None:
    """A file as Fashion-MNIST has them: a header of 4 bytes and 4 for each axis, and bytes."""
    header = b"\0\0\x08" + bytes([len(shape)]) + b"".join(n.to_bytes(4) for n in shape)
    (folder / name).write_bytes(gzip.compress(header + values))


def test_images_are_read_with_their_classes_and_scaled(tmp_path: Path) -> None:
    pixels = bytes([0] * 784 + [255] * 784)
    idx(tmp_path, "train-images-idx3-ubyte.gz", (2, 28, 28), pixels)
    idx(tmp_path, "train-labels-idx1-ubyte.gz", (2,), bytes([7, 3]))
    images, labels = fashion.images("train", tmp_path)
    assert (images.shape, labels.tolist()) == ((2, 1, 28, 28), [7, 3])
    black, white = images.flatten(1).unbind()
    assert torch.allclose(black, torch.tensor(-0.286 / 0.353))
    assert torch.allclose(white, torch.tensor(0.714 / 0.353))


def test_without_the_images_a_command_says_how_to_get_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(fashion, "FOLDER", tmp_path)
    with pytest.raises(typer.Exit) as ended:
        fashion.task_or_exit(100)
    assert ended.value.exit_code == 2
    assert "sudo apt-get install dataset-fashion-mnist" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("make", "kinds"),
    [(ResNet, ("channels",)), (partial(ViT, layers=1), ("ffn", "heads"))],
)
def test_classifiers_are_pruned_to_half_of_their_multiply_adds(
    make: Callable[[], nn.Module], kinds: tuple[str, ...]
) -> None:
    batch = {"pixels": torch.randn(3, 1, 28, 28), "label": torch.tensor([0, 1, 2])}
    task = replace(TASK, train=[batch], dynamic={"pixels": {0: "batch"}})
    program = task.captured(drawn(make, 0))
    cut = Prune(share=0.5, of="multiply-adds", kinds=kinds, importance="l2", round_to=4)
    smaller = after([cut], program, task.context(program, 0))
    sizes = {"batch": 3}
    whole, left = (CostModel(p).at(sizes).multiply_adds for p in (program, smaller))
    assert 0.3 < left / whole <= 0.5
    assert outputs_of(smaller, task.inputs(batch))["logits"].shape == (3, 10)


def test_mobilenet_has_the_parameters_of_the_papers_network() -> None:
    def parameters(module: nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    # 3.5 million for images of three channels; here they have one.
    assert parameters(MobileNetV2(classes=1000)) == 3_504_872 - 2 * 32 * 9
    narrow = MobileNetV2(0.35)
    assert parameters(narrow) == 408_650
    assert narrow.eval()(torch.zeros(2, 1, 28, 28))["logits"].shape == (2, 10)
