"""What passes share that look at channels on the user's data, and may be left out without data."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch.fx.node import Node

from strop.compiler.ir.program import Program
from strop.compiler.rewriting.context import Context, Need, Needs
from strop.compiler.rewriting.learning import Learned, LearningPass
from strop.compiler.util.errors import UsageError
from strop.passes.quantize.calibration import observe
from strop.passes.quantize.channels import Channels
from strop.passes.quantize.selection import Selecting


@dataclass(frozen=True)
class CalibratedPass(Selecting, LearningPass):
    """A pass that learns from the channels of what linear layers read.

    Attributes:
        batches: how many batches of data to look at.
        without_data: what to do where the model gives no data: "refuse", or "leave-out" this pass,
            with a note.
        saves: what the pass is for, as the note says it.
    """

    saves: ClassVar[str]

    batches: int = 32
    without_data: Literal["refuse", "leave-out"] = "refuse"

    def __post_init__(self) -> None:
        """Refuse options outside of their ranges.

        Raises:
            UsageError: one is.
        """
        if self.batches < 1:
            raise UsageError(f"batches is {self.batches}; it must be 1 or more")

    def required(self) -> Needs:
        return (("calibration", "train"),) if self.without_data == "refuse" else ()

    def reads(self) -> Sequence[Need]:
        return ("calibration", "train")

    def learn(self, program: Program, context: Context) -> Learned:
        self.selection.require_matches(program)
        if context.calibration is None and context.train is None:
            note = f"pass '{self.name}' was left out: the model gives no calibration data"
            return Learned(
                notes=(f"{note}, by which it {self.saves}; give Model(calibration=...)",)
            )
        return self.learn_from_data(program, context)

    @abstractmethod
    def learn_from_data(self, program: Program, context: Context) -> Learned:
        """The same where there is calibration or training data."""

    def channels_of(
        self, values: Sequence[Node], rows: int, program: Program, context: Context
    ) -> dict[Node, Channels]:
        """The channels of values on the data, with a sample of so many rows of each.

        Raises:
            UsageError: there are no rows, or the program does not run on one.
        """
        seen = {value: Channels(rows, context.seed) for value in values}
        if not observe(program, seen.items(), context, self.batches):
            raise UsageError(f"pass '{self.name}': the calibration data has no rows")
        return seen
