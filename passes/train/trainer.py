"""The one trainer of all passes that train: a loss, the tensors that it may change, and batches."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

from strop.compiler.rewriting.context import Batches, Context, mixed, seed_all, seeded
from strop.compiler.util.errors import UsageError
from strop.compiler.util.interrupts import Interrupted
from strop.passes.train.checkpoint import Checkpoints, Progress
from strop.passes.train.feed import Feed
from strop.passes.train.history import Entry, Means
from strop.passes.train.optimizer import restore, state_of
from strop.passes.train.policy import Policy
from strop.passes.train.status import Status
from strop.passes.train.update import Loss, NotANumber, Updater

# A checkpoint is written at every validation, and in between where that takes longer than this.
_SECONDS_BETWEEN = 60.0


@dataclass(frozen=True)
class Trained:
    """What training gave.

    Attributes:
        tensors: the weights with the best validation loss, or the last ones where nothing is held
            out.
        history: what was measured, a line at each validation; for JSON.
        updates: how many were made.
        best_at: the update after which the weights were those that are returned.
        ended: what ended it: a limit of the policy, "patience", or "not a number".
        notes: what the user should know, in sentences.
    """

    tensors: dict[str, torch.Tensor]
    history: list[dict[str, Any]]
    updates: int
    best_at: int
    ended: str
    notes: tuple[str, ...] = ()


def train(
    parameters: Mapping[str, torch.Tensor],
    loss: Loss,
    batches: Batches,
    policy: Policy,
    context: Context,
    what: str = "train",
) -> Trained:
    """Minimise a loss over some tensors, with AdamW.

    Where ``context.kept`` holds a checkpoint of the same training, it goes on from there, and gives
    the same result to the bit as one that was not interrupted (unless it ends by the clock).

    Args:
        parameters: leaf tensors by name; changed in place.
        loss: of one batch, over these tensors; its gradient must reach them.
        batches: can be iterated any number of times; shuffled in every epoch if a sequence.
        policy: when to end, and what each step does.
        context: where checkpoints are kept, and who is told of progress.
        what: the data is, as the user calls it.

    Raises:
        UsageError: the data is not as it must be, or the first loss is no number.
    """
    with seeded(policy.seed), torch.enable_grad():
        run = _Training(Updater(parameters, loss, policy, what), batches, policy, context, what)
        try:
            return run.run()
        except (Interrupted, KeyboardInterrupt) as error:
            error.add_note(run.kept())
            raise


class _Training:
    """One training under way."""

    def __init__(
        self, updater: Updater, batches: Batches, policy: Policy, context: Context, what: str
    ) -> None:
        self.updater, self.policy, self.context, self.what = updater, policy, context, what
        self.feed = Feed(batches, policy, what)
        self.per_epoch = max(self.feed.length(), 1) if policy.epochs else 1
        self.checkpoints = Checkpoints(context.kept) if context.kept else None
        self.status = Status(context.progress)
        self.progress = Progress()
        self.best: dict[str, torch.Tensor] = {}
        self.saved_at: int | None = None
        self.saved_when = time.monotonic()

    def run(self) -> Trained:
        """Train to the end, from the last checkpoint if there is one."""
        notes = []
        try:
            if not self._resume():
                self._check()
            ended = self._train()
            if self.progress.history[-1].update < self.progress.updates:
                self._check()
        except NotANumber as error:
            notes.append(self._told(error))
            ended = "not a number"
        done = self.progress
        history = [entry.record() for entry in done.history]
        return Trained(self.best, history, done.updates, done.best_at, ended, tuple(notes))

    def kept(self) -> str:
        """What is kept of a training that was interrupted, in a sentence."""
        made = f"training was interrupted after {self.progress.updates} updates"
        if self.saved_at is None:
            return f"{made}; nothing of it is kept"
        return (
            f"{made}; the checkpoint of update {self.saved_at} is kept: run the same command "
            "again to go on from there"
        )

    def _train(self) -> str:
        """Update until a limit is reached; returns which."""
        done = self.progress
        items = self.feed.endless(done.epoch, done.taken)
        while True:
            ended = self._ended()
            if ended is not None:
                return ended
            began = time.perf_counter()
            group = list(islice(items, self.policy.accumulate))
            seed_all(mixed(self.policy.seed, "update", done.updates))
            (done.epoch, done.taken), lr = group[-1][0], self._lr()
            done.means.add(*self.updater.update([item for _, item in group], lr))
            done.updates += 1
            done.lr = lr
            self._clock(began)
            if done.updates % self.policy.check_every == 0:
                self._check()
            elif time.monotonic() - self.saved_when > _SECONDS_BETWEEN:
                self._save()

    # When it ends -------------------------------------------------------------------------------

    def _shares(self, updates: int) -> Mapping[str, float]:
        done = self.progress
        passes = done.epoch + done.taken / self.per_epoch
        return self.policy.done(updates, passes, done.seconds)

    def _ended(self) -> str | None:
        """The limit that is reached."""
        reached = [
            name for name, share in self._shares(self.progress.updates).items() if share >= 1
        ]
        if reached:
            return reached[0]
        tired = 0 < self.policy.patience <= self.progress.worse
        return "patience" if tired else None

    def _lr(self) -> float:
        return self.policy.lr_at(max(self._shares(self.progress.updates + 1).values()))

    def _clock(self, began: float) -> None:
        """Count the time of an update, and tell of it."""
        done = self.progress
        spent = done.seconds + time.perf_counter() - began
        # All processes end together, by the clock of the first.
        done.seconds = self.updater.team.from_first(spent) if self.policy.minutes else spent
        share = max(self._shares(done.updates).values())
        self.status.update(done.updates, share, done.means.loss())

    # Validation and checkpoints -----------------------------------------------------------------

    def _check(self) -> None:
        """Measure on what is held out, keep the weights if they are the best, and save."""
        began = time.perf_counter()
        done = self.progress
        with seeded(self.policy.seed):
            found = self.updater.measure(self.feed.held_out)
        loss = found.loss()
        means, done.means = done.means, Means()
        done.history.append(
            Entry(done.updates, done.lr, means.loss(), means.mean_parts(), loss, found.mean_parts())
        )
        if loss is None or done.best is None or loss < done.best:
            done.best, done.best_at, done.worse = loss, done.updates, 0
            self.best = {n: p.detach().clone() for n, p in self.updater.parameters.items()}
        else:
            done.worse += 1
        self._clock(began)
        self._save()

    def _save(self) -> None:
        """Write a checkpoint; one process does it for all."""
        self.saved_when = time.monotonic()
        if self.checkpoints is None:
            return
        if self.updater.team.rank == 0:
            state = state_of(self.updater.optimizer, self.updater.parameters)
            try:
                self.checkpoints.save(self.progress, state, self.best)
            except OSError as error:
                self.checkpoints = None
                self.context.say(f"training goes on without further checkpoints: {error}")
                return
        self.saved_at = self.progress.updates

    def _resume(self) -> bool:
        """Go back to the last checkpoint; False if there is none."""
        try:
            found = self.checkpoints.load() if self.checkpoints else None
        except UsageError as error:
            self.context.say(f"training begins anew: {error}")
            found = None
        self.updater.team.wait()  # nobody writes before everybody has read
        if found is None:
            return False
        self.progress, state, self.best = found
        restore(self.updater.optimizer, self.updater.parameters, state)
        self.saved_at = self.progress.updates
        self.context.progress(f"training: on from the checkpoint of update {self.saved_at}")
        return True

    def _told(self, error: NotANumber) -> str:
        """What became of a loss that is no number.

        Raises:
            UsageError: it is the first one.
        """
        place = f"{self.what}[{error.place}]"
        if not self.progress.updates:
            raise UsageError(f"{error} on {place} before the first update; look at that batch")
        return (
            f"{error} on {place} after {self.progress.updates} updates; training stopped there, "
            f"and the weights after {self.progress.best_at} updates are kept"
        )
