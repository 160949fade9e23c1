"""Accuracy that small image classifiers keep at half and a quarter of their multiply-adds.

``python -m strop.bench.measures.pruned_vision [--network vit] [--seeds 3]`` trains a residual
network and a vision transformer on Fashion-MNIST, prunes each, and trains the smaller ones by
distillation and on labels alone, with equal steps on the same images: a part of those that the
dense ones learned from. The learning rate of both is chosen from the same candidates on validation
images; all figures are of test images. Each kind of network has a record of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from functools import partial
from typing import Annotated, Any

import torch
import typer

from strop.bench.models.fashion import ROWS, SOURCE, task_or_exit
from strop.bench.models.small_vision import ResNet, ViT
from strop.bench.records.figures import RESULTS, Figure, ResultsFolder, console, show_and_save
from strop.bench.records.machine import environment
from strop.bench.trials.arms import after, at_best_rates, dense, fine_tuned
from strop.bench.trials.sample import Sample, Seeds, for_each_seed, samples
from strop.bench.trials.task import Task
from strop.compiler.ir.program import Program
from strop.passes.distill.recover import Recover
from strop.passes.prune.prune import Prune
from strop.passes.train import Policy

IMAGES, SEEN_AGAIN = 50_000, 5_000
# What is pruned away, and how many points of accuracy that may cost.
SHARES = {"2x": (0.5, 1.0), "4x": (0.75, 3.0)}
RATES = (1e-3, 3e-3, 6e-3)
IMPORTANCE: tuple[str, ...] = ("random", "l2", "activation", "taylor")
SHORT = 50
DISTILLED = Recover(steps=500, soft=1, hard=0.3, hidden=0, temperature=4, held_out=0)
ARMS = {"distilled": DISTILLED, "fine-tuned": fine_tuned(DISTILLED)}


@dataclass(frozen=True)
class Network:
    """A kind of classifier.

    Attributes:
        name: in the record.
        make: draws one.
        kinds: of groups that are pruned.
        training: of the dense one; how it computes holds for recovery too.
    """

    name: str
    make: Callable[[], torch.nn.Module]
    kinds: tuple[str, ...]
    training: Policy


class Kind(StrEnum):
    """Kinds of classifiers, as the command names them."""

    RESNET = "resnet"
    VIT = "vit"


DENSE = Policy(steps=1000, weight_decay=0.05, held_out=0)
NETWORKS = {
    Kind.RESNET: Network("ResNet", ResNet, ("channels",), replace(DENSE, lr=5e-3, bf16=True)),
    Kind.VIT: Network("ViT", partial(ViT, layers=3), ("ffn", "heads"), replace(DENSE, lr=2e-3)),
}


@dataclass(frozen=True)
class Trial:
    """One kind of classifier, and what all its runs share.

    Attributes:
        network: the classifier.
        whole: the images that dense classifiers learn from.
        part: those that pruned ones see again.
    """

    network: Network
    whole: Task
    part: Task

    def pruning(self, share: float, importance: str = "activation") -> Prune:
        """The pass that takes a share of the multiply-adds away."""
        return Prune(
            share, of="multiply-adds", kinds=self.network.kinds, importance=importance, round_to=4
        )

    def recovery(self, arm: Recover, seed: int) -> Recover:
        """The pass of an arm for one seed."""
        return replace(arm, seed=seed, bf16=self.network.training.bf16)

    def dense(self, seed: int) -> Program:
        """A dense classifier."""
        return dense(self.network.make, self.whole, replace(self.network.training, seed=seed))

    def searched(
        self, program: Program, seed: int
    ) -> tuple[dict[str, Recover], dict[str, dict[str, float]]]:
        """Each arm at its best learning rate, and what all of them gave on validation images."""
        context = self.part.context(program, seed)
        smaller = after([self.pruning(SHARES["4x"][0])], program, context)
        arms = {name: self.recovery(arm, seed) for name, arm in ARMS.items()}
        return at_best_rates(arms, RATES, smaller, self.part, context)

    def run(self, program: Program, arms: Mapping[str, Recover], seed: int) -> dict[str, float]:
        """The accuracy of all that is made of a dense one, on test images in percent."""
        context = self.part.context(program, seed)
        found = {"dense": self._accuracy(program)}
        for name, (share, _) in SHARES.items():
            smaller = after([self.pruning(share)], program, context)
            for arm, recovery in arms.items():
                recovered = after([self.recovery(recovery, seed)], smaller, context)
                found[f"{name}, {arm}"] = self._accuracy(recovered)
        for importance in IMPORTANCE:
            smaller = after([self.pruning(SHARES["2x"][0], importance)], program, context)
            short = self.recovery(replace(arms["distilled"], steps=SHORT), seed)
            found[f"{importance}, pruned"] = self._accuracy(smaller)
            found[f"{importance}, recovered"] = self._accuracy(after([short], smaller, context))
        return found

    def _accuracy(self, program: Program) -> float:
        return self.whole.metric(program, self.whole.test)


def figures(name: str, found: Mapping[str, Sample]) -> list[Figure]:
    """What is claimed of one kind of classifier."""
    made = [found["dense"].figure(f"{name}: accuracy of the dense one, percent")]
    for times, (_, most) in SHARES.items():
        distilled, tuned = found[f"{times}, distilled"], found[f"{times}, fine-tuned"]
        fewer = f"{name}, {times} fewer multiply-adds, distilled: points"
        made += [
            found["dense"].minus(distilled).figure(f"{fewer} below the dense one", at_most=most),
            distilled.minus(tuned).figure(f"{fewer} above fine-tuning on labels", at_least=0),
        ]
    return made + by_importance(name, found)


def by_importance(name: str, found: Mapping[str, Sample]) -> list[Figure]:
    """Whether looking at data beats looking at weights, and that beats chance."""
    made = []
    for stage, when in (("pruned", "right after pruning"), ("recovered", f"{SHORT} steps later")):
        weights, chance = found[f"l2, {stage}"], found[f"random, {stage}"]
        of = f"{name}, 2x, {when}: points that"
        made += [
            found[f"activation, {stage}"]
            .minus(weights)
            .figure(f"{of} activation is above l2", at_least=0),
            found[f"taylor, {stage}"].minus(weights).figure(f"{of} Taylor is above l2"),
            weights.minus(chance).figure(f"{of} l2 is above random", at_least=0),
        ]
    return made


def tried(network: Network, whole: Task, seeds: Sequence[int]) -> tuple[list[Figure], Any]:
    """The figures of one kind of classifier, and everything that was measured."""
    part = replace(whole, train=whole.train[: SEEN_AGAIN // ROWS])
    trial = Trial(network, whole, part)
    dense_ones = for_each_seed(f"dense {network.name}", trial.dense, seeds)
    programs = dict(zip(seeds, dense_ones))
    with console.status(f"{network.name}: choosing learning rates"):
        arms, search = trial.searched(programs[seeds[0]], seeds[0])
    runs = for_each_seed(network.name, lambda seed: trial.run(programs[seed], arms, seed), seeds)
    found = samples(runs)
    measured = {
        "data": SOURCE,
        "images": {"dense": IMAGES, "pruned": SEEN_AGAIN},
        "options": {name: arm.options() for name, arm in arms.items()},
        "validation": search,
        "test": {name: asdict(sample) for name, sample in found.items()},
    }
    return figures(network.name, found), measured


def main(
    network: Annotated[list[Kind] | None, typer.Option(help="Try these only.")] = None,
    seeds: Seeds = 3,
    results: ResultsFolder = RESULTS,
) -> None:
    """Try each kind of classifier, and write its record."""
    whole = task_or_exit(IMAGES)
    for kind in network or NETWORKS:
        made, measured = tried(NETWORKS[kind], whole, range(seeds))
        machine = environment(torch.get_num_threads())
        title = f"{NETWORKS[kind].name} on Fashion-MNIST, pruned and recovered"
        show_and_save(f"pruned_{kind}", title, machine, made, measured, results)


if __name__ == "__main__":
    typer.run(main)
