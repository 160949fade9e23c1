"""One update of the weights: losses, gradients of all processes, AdamW."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch

from strop.compiler.rewriting.context import Batch
from strop.compiler.util.errors import UsageError
from strop.passes.train.feed import Numbered
from strop.passes.train.history import Means
from strop.passes.train.optimizer import optimizer_of
from strop.passes.train.policy import Policy
from strop.passes.train.processes import Team

Loss = Callable[[Batch], tuple[torch.Tensor, Mapping[str, torch.Tensor]]]
"""The loss of a batch, a scalar, and its parts by name."""
_NOWHERE = -1


class NotANumber(Exception):
    """A loss or a gradient is NaN or infinite; the weights were not updated.

    Attributes:
        place: of the batch in the user's data.
    """

    def __init__(self, what: str, place: int) -> None:
        super().__init__(what)
        self.place = place


class Updater:
    """Weights, their optimizer, and the processes that share the batches of an update."""

    def __init__(
        self, parameters: Mapping[str, torch.Tensor], loss: Loss, policy: Policy, what: str
    ) -> None:
        self.parameters = dict(parameters)
        self.optimizer = optimizer_of(self.parameters, policy)
        self.team = Team(policy.accumulate)
        self._loss, self._policy, self._what = loss, policy, what

    def update(self, group: Sequence[Numbered], lr: float) -> tuple[float, dict[str, float]]:
        """Update the weights once; returns the mean loss of the group and its parts.

        Raises:
            NotANumber: a loss or a gradient is none.
        """
        self.optimizer.zero_grad(set_to_none=True)
        sums = self._backward(self.team.mine(group), len(group))
        gradients = self._gradients()
        self.team.add([*sums.values(), *gradients])
        norm = torch.nn.utils.get_total_norm(gradients)
        if not norm.isfinite():
            raise NotANumber(f"the norm of the gradients is {float(norm)}", group[0][0])
        if self._policy.clip:
            torch.nn.utils.clip_grads_with_norm_(self.parameters.values(), self._policy.clip, norm)
        for settings in self.optimizer.param_groups:
            settings["lr"] = lr
        self.optimizer.step()
        parts = {name: float(value) / len(group) for name, value in sums.items()}
        return parts.pop(""), parts

    @torch.no_grad()
    def measure(self, batches: Sequence[Numbered]) -> Means:
        """The losses of batches; each process computes all of them.

        Raises:
            NotANumber: one is none.
        """
        means = Means()
        for place, batch in batches:
            parts = {name: float(value) for name, value in self._parts(place, batch).items()}
            if not all(map(math.isfinite, parts.values())):
                raise NotANumber(_said(parts), place)
            means.add(parts.pop(""), parts)
        return means

    def _backward(self, mine: Sequence[Numbered], of: int) -> dict[str, torch.Tensor]:
        """Add up gradients of the mean over ``of`` batches; returns the sums of losses.

        Raises:
            NotANumber: a loss of any process is none.
        """
        sums: dict[str, torch.Tensor] = {}
        bad, said = _NOWHERE, "a loss is no number"
        for place, batch in mine:
            parts = self._parts(place, batch)
            if not all(value.isfinite() for value in parts.values()):
                bad, said = place, _said({n: float(v.detach()) for n, v in parts.items()})
                break
            (parts[""] / of).backward()
            for name, value in parts.items():
                sums[name] = sums.get(name, torch.zeros(())) + value.detach()
        bad = int(self.team.largest(bad))
        if bad != _NOWHERE:
            raise NotANumber(said, bad)
        return sums

    def _parts(self, place: int, batch: Batch) -> dict[str, torch.Tensor]:
        """The loss of a batch under "", and its parts.

        Raises:
            UsageError: something is wrong with the batch, or with the user's loss of it.
        """
        try:
            with torch.autocast("cpu", torch.bfloat16, enabled=self._policy.bf16):
                loss, parts = self._loss(batch)
        except UsageError as error:
            raise UsageError(f"{self._what}[{place}]: {error}") from error
        return {**parts, "": loss}

    def _gradients(self) -> list[torch.Tensor]:
        """The gradient of every weight: zeros where the loss does not depend on it."""
        for parameter in self.parameters.values():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        return [p.grad for p in self.parameters.values() if p.grad is not None]


def _said(parts: Mapping[str, float]) -> str:
    """Which of the losses is no number, in words."""
    wrong = [name for name, value in parts.items() if not math.isfinite(value)]
    if "" in wrong:
        return f"the loss is {parts['']}"
    return f"the part '{wrong[0]}' of the loss is {parts[wrong[0]]}"
