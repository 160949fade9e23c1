"""An artifact opened in its runtime."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from strop.compiler.artifact.feeds import require_inputs
from strop.compiler.artifact.folder import Artifact, read_intact
from strop.compiler.artifact.generating import opened_for_texts
from strop.compiler.generate.generator import Token, generate
from strop.compiler.generate.prepared import Opened, Prompts
from strop.compiler.generate.settings import Settings
from strop.compiler.targets.runtime import Session, runtime_of
from strop.compiler.util.errors import RuntimeRefusedError, UsageError

if TYPE_CHECKING:
    import numpy as np


class LoadedProgram:
    """One program: call it with keyword arrays, get a tuple of arrays."""

    def __init__(self, artifact: Artifact, name: str) -> None:
        runtime, target = runtime_of(artifact.target), artifact.target
        self.session: Session = runtime.open(artifact.path, target, name)
        self._specs = artifact.program(name)["contract"]["inputs"]
        self.declared = [spec["name"] for spec in self._specs]

    def __call__(self, **arrays: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], ...]:
        """Run once.

        Raises:
            UsageError: inputs are missing or unknown, or have another dtype or shape.
        """
        require_inputs(arrays, self._specs)
        return tuple(self.session.run(arrays).values())


class Loaded:
    """An artifact opened in its runtime; where it holds one program, it is called as that is.

    Attributes:
        artifact: what was opened.
        programs: its programs, by name: ``loaded.programs["decoder"](**arrays)``.
    """

    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact
        _require_device(artifact)
        self.programs = {name: LoadedProgram(artifact, name) for name in artifact.programs}

    @property
    def declared(self) -> list[str]:
        """The names of the inputs, where there is one program."""
        return self._alone().declared

    def __call__(self, **arrays: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], ...]:
        """Run the only program once.

        Raises:
            UsageError: inputs are missing or unknown, or there are several programs.
        """
        return self._alone()(**arrays)

    def generate(
        self,
        prompts: Prompts,
        *,
        max_new: int | None = None,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = 0,
        stop: Sequence[str] = (),
        beams: int = 1,
        length_penalty: float = 1.0,
    ) -> Iterator[Token]:
        """Go on with texts; tokens come as they are made. ``Settings`` says what options mean.

        Args:
            prompts: one or more, as text or as token ids; or what an encoder takes, by name.

        Raises:
            UsageError: the artifact makes no texts, or a prompt or an option is wrong.
            RuntimeRefusedError: the runtime does not run it, or its scores are no numbers.
        """
        settings = Settings(
            max_new, temperature, top_k, top_p, seed, tuple(stop), beams, length_penalty
        )
        return generate(self._opened_for_texts, prompts, settings)

    @cached_property
    def _opened_for_texts(self) -> Opened:
        sessions = {name: program.session for name, program in self.programs.items()}
        return opened_for_texts(self.artifact, sessions)

    def _alone(self) -> LoadedProgram:
        first, *others = self.programs
        if others:
            raise UsageError(
                f"{self.artifact.path} holds {len(self.programs)} programs: "
                f"{', '.join(self.programs)}; call one of them: "
                f"load(...).programs['{first}'](**arrays)"
            )
        return self.programs[first]


def _require_device(artifact: Artifact) -> None:
    target = artifact.target
    stand_in = runtime_of(target).stand_in(target)
    if stand_in is not None and not target.runs_on_stand_in:
        files = " and ".join(str(artifact.path_of(name)) for name in artifact.programs)
        raise RuntimeRefusedError(
            f"{artifact.path} is built for {target.name}; {stand_in.why}, and {stand_in.name} "
            f"would run it. Build it for this machine (--target cpu), or open {files} in a "
            "session of your own"
        )


def load(path: str | os.PathLike[str]) -> Loaded:
    """Open an artifact as a callable.

    Raises:
        UsageError: the folder is no artifact, or was changed since it was built.
        RuntimeRefusedError: the runtime does not take its files, or the target's device is not
            there.
    """
    return Loaded(read_intact(path))
