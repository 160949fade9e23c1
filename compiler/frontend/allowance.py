"""How much a case may take, by estimate, before anything runs.

The numbers are the same on every machine, so that equal builds check equal sizes.
"""

from __future__ import annotations

from dataclasses import dataclass

from strop.compiler.ir.cost import Cost

# A nominal machine: about two cores of a server, in float32, in eager torch.
MULTIPLY_ADDS_PER_SECOND = 5e10
BYTES_PER_SECOND = 5e9


@dataclass(frozen=True)
class Allowance:
    """The most that one run, or several together, may take.

    Attributes:
        seconds: on the nominal machine.
        bytes: alive at once in one run, its outputs counted twice: they are copied.
        kept: bytes of outputs, which stay until the file was compared with them.
    """

    seconds: float
    bytes: int
    kept: int

    def admits(self, cost: Cost) -> bool:
        """Whether a run fits."""
        return (
            seconds(cost) <= self.seconds
            and cost.peak + cost.outputs <= self.bytes
            and cost.outputs <= self.kept
        )


def seconds(cost: Cost) -> float:
    """Seconds of one run on the nominal machine."""
    return cost.multiply_adds / MULTIPLY_ADDS_PER_SECOND + cost.moved / BYTES_PER_SECOND


# One dim at its largest size, all others at their smallest: where a bound of that dim is wrong.
ONE_DIM = Allowance(seconds=6.0, bytes=1 << 30, kept=320 << 20)
# Several dims at large sizes; and all calibration inputs after the first, together.
TOGETHER = Allowance(seconds=0.75, bytes=512 << 20, kept=96 << 20)
