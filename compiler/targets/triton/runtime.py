"""Launch plans as a ``Runtime``: on CUDA by the compiled kernels, else by the interpreter."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from strop.compiler.targets.decoding import Decoder, Names, Start
from strop.compiler.targets.runtime import Runtime, Session, StandIn, Trace
from strop.compiler.targets.target import MAIN, PLAN_FILE, Target
from strop.compiler.util.errors import RuntimeRefusedError
from strop.compiler.util.numerics import Array


class TritonRuntime:
    """Opens and runs ``plan.json`` with the weights and kernels beside it, which is one program."""

    def versions(self) -> dict[str, str]:
        """The version of Triton."""
        return {"triton": version("triton")}

    def stand_in(self, target: Target) -> StandIn | None:
        """Triton's interpreter, where there is no CUDA device."""
        import torch

        if torch.cuda.is_available():
            return None
        from strop.compiler.targets.triton.interpreted import seconds

        return StandIn("there is no CUDA device", "Triton's interpreter", seconds)

    def open(self, folder: Path, target: Target, program: str = MAIN) -> Session:
        """A session on the GPU; where there is none, the interpreter's, which says so."""
        import torch

        if torch.cuda.is_available():
            from strop.compiler.targets.triton.cuda import open_on_cuda

            return open_on_cuda(folder)
        from strop.compiler.targets.triton.interpreted import InterpretedSession

        return InterpretedSession(folder, target)

    def decoder(self, session: Session, names: Names, start: Start, shared: bool) -> Decoder:
        """A decoder whose caches stay on the device, or in the interpreter's process.

        ``shared`` says nothing here: plans make longer caches anew.
        """
        from strop.compiler.targets.triton.decoder import PlanDecoder
        from strop.compiler.targets.triton.interpreted import InterpretedSession
        from strop.compiler.targets.triton.session import PlanSession

        if isinstance(session, InterpretedSession):
            return session.decoder(names, start, shared)

        assert isinstance(session, PlanSession)
        return PlanDecoder(session, names, start)

    def values(
        self, folder: Path, feeds: Mapping[str, Array], program: str = MAIN
    ) -> dict[str, Array]:
        """Every value that a step makes, by name."""
        import torch

        if torch.cuda.is_available():
            from strop.compiler.targets.triton.cuda import open_on_cuda

            return open_on_cuda(folder).values(feeds)
        from strop.compiler.targets.target import get_target
        from strop.compiler.targets.triton.interpreted import InterpretedSession
        from strop.compiler.targets.triton.plan import read_plan

        target = get_target(read_plan(folder / PLAN_FILE).target)
        return InterpretedSession(folder, target).values(feeds)

    def text(self, folder: Path, program: str = MAIN) -> str:
        """One step a line: ``%norm = norm(%x, ...)``."""
        from strop.compiler.targets.triton.plan import read_plan
        from strop.compiler.targets.triton.text import plan_text

        return plan_text(read_plan(folder / PLAN_FILE))

    def trace(
        self,
        folder: Path,
        target: Target,
        feeds: Mapping[str, Array],
        runs: int,
        program: str = MAIN,
    ) -> Trace:
        """Not possible without a GPU: what the interpreter takes says nothing of kernels."""
        raise RuntimeRefusedError(
            "a launch plan is profiled on its GPU, with the profiler of torch or of NVIDIA; "
            "strop has none for it"
        )


RUNTIME: Runtime = TritonRuntime()
