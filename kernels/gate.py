"""The static gate: what a compiled kernel must hold to before it is shipped.

::

    checked = compile_and_check(variants, SM90)     # compiles, reads and holds to the limits
    checked[0].binary.cubin, checked[0].reading.registers

No GPU is needed: all of it is read from the machine code.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from strop.kernels.architecture import Architecture
from strop.kernels.binary import Binary
from strop.kernels.compiler import CompileError, Compilers, succeeded
from strop.kernels.inspect import Reading, read
from strop.kernels.occupancy import Occupancy, occupancy
from strop.kernels.stored import Store, keep, recall
from strop.kernels.variant import Variant


@dataclass(frozen=True)
class Checked:
    """A compiled variant with what was read of it."""

    architecture: Architecture
    variant: Variant
    binary: Binary
    reading: Reading

    @property
    def occupancy(self) -> Occupancy:
        """How many of its blocks a multiprocessor holds."""
        reading = self.reading
        return occupancy(
            self.architecture, self.binary.warps, reading.registers, reading.shared_memory
        )


@dataclass(frozen=True)
class Violation:
    """A limit that a compiled variant breaks.

    Attributes:
        limit: which, in words.
        value: what it has.
        allowed: what it may have.
    """

    architecture: str
    variant: Variant
    limit: str
    value: str
    allowed: str

    def __str__(self) -> str:
        constants = ", ".join(f"{name}={value}" for name, value in self.variant.constants)
        return (
            f"kernel {self.variant.kernel} ({constants}, {self.variant.num_warps} warps, "
            f"{self.variant.num_stages} stages; {self.variant.signature}) for {self.architecture}: "
            f"{self.limit}: {self.value}, allowed: {self.allowed}"
        )


class GateError(Exception):
    """Compiled kernels break limits; the message is a sentence for each.

    Attributes:
        violations: all of them.
    """

    def __init__(self, violations: Sequence[Violation]) -> None:
        super().__init__("\n".join(map(str, violations)))
        self.violations = violations


def compile_and_check(variants: Sequence[Variant], architecture: Architecture) -> list[Checked]:
    """Compile variants, read their machine code, and hold it to the limits.

    Raises:
        CompileError: a variant cannot be compiled.
        GateError: a compiled variant breaks a limit; all violations are told.
    """
    checked = compile_and_read(variants, architecture)
    hold_to_limits(checked)
    return checked


def compile_and_read(variants: Sequence[Variant], architecture: Architecture) -> list[Checked]:
    """Compile variants and read their machine code, whatever it is.

    Raises:
        CompileError: some cannot be compiled; all are told.
    """
    return succeeded(try_and_read(variants, architecture))


def try_and_read(
    variants: Sequence[Variant], architecture: Architecture
) -> list[Checked | CompileError]:
    """As ``compile_and_read``, with the error in the place of what cannot be compiled."""
    with Readers(architecture) as readers:
        return readers.try_and_read(variants)


class Readers:
    """Compiles and reads variants for an architecture, by processes that end with the block.

    Args:
        architecture: what is compiled for.
        store: where what was compiled and read before is kept, if anywhere.
    """

    def __init__(self, architecture: Architecture, store: Store | None = None) -> None:
        self.architecture, self._store = architecture, store
        self._compilers = Compilers()

    def __enter__(self) -> Readers:
        return self

    def __exit__(self, *error: object) -> None:
        self._compilers.__exit__(*error)

    def try_and_read(self, variants: Sequence[Variant]) -> list[Checked | CompileError]:
        """What becomes of variants, in their order."""
        known = {one: self._recalled(one) for one in variants}
        missing = [one for one, found in known.items() if found is None]
        made = dict(zip(missing, self._made(missing)))
        return [known[one] or made[one] for one in variants]

    def _recalled(self, variant: Variant) -> Checked | None:
        if self._store is None:
            return None
        found = recall(self._store, variant, self.architecture)
        return None if found is None else Checked(self.architecture, variant, *found)

    def _made(self, variants: Sequence[Variant]) -> list[Checked | CompileError]:
        def one(pair: tuple[Variant, Binary | CompileError]) -> Checked | CompileError:
            variant, binary = pair
            if isinstance(binary, CompileError):
                return binary
            return Checked(self.architecture, variant, binary, read(binary))

        binaries = self._compilers.try_variants(variants, self.architecture)
        with ThreadPoolExecutor() as pool:
            made = list(pool.map(one, zip(variants, binaries)))
        for checked in made:
            if self._store is not None and isinstance(checked, Checked):
                keep(
                    self._store,
                    checked.variant,
                    self.architecture,
                    checked.binary,
                    checked.reading,
                )
        return made


def hold_to_limits(checked: Iterable[Checked]) -> None:
    """Refuse kernels that spill, ask for too much shared memory, or multiply on no tensor core.

    Raises:
        GateError: one breaks a limit; all violations are told.
    """
    found = [violation for one in checked for violation in violations(one)]
    if found:
        raise GateError(found)


def violations(checked: Checked) -> list[Violation]:
    """The limits that a compiled variant breaks."""
    reading, architecture = checked.reading, checked.architecture
    found: list[tuple[str, str, str]] = []
    if reading.spills or reading.stack:
        value = f"{reading.spills} instructions, {reading.stack} bytes of stack"
        found.append(("registers that are spilled to memory", value, "none"))
    most = architecture.block_shared_memory
    if reading.shared_memory > most:
        value, allowed = f"{reading.shared_memory} bytes", f"{most} bytes"
        found.append(("shared memory of a block", value, allowed))
    dots = len(checked.binary.dots)
    if dots and not reading.tensor_core:
        value = f"none for {dots} products of matrices"
        found.append(("tensor-core instructions", value, "at least one"))
    return [Violation(architecture.name, checked.variant, *facts) for facts in found]
