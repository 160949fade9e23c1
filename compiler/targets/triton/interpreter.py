"""The process that interprets a plan for ``interpreted.py``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from strop.compiler.targets.served import ASKED, ServedDecoder
from strop.compiler.targets.triton.bound import BoundLaunch
from strop.compiler.targets.triton.decoder import PlanDecoder
from strop.compiler.targets.triton.session import PlanSession, open_plan
from strop.compiler.util.array_pipe import receive, send
from strop.compiler.util.errors import RuntimeRefusedError
from strop.kernels.sources import kernels_hash


def serve(pipe: Connection) -> None:
    """Open the plan that the first message names, then run it as asked.

    An answer holds ``refused``, the reason, where there is one.
    """
    os.environ["TRITON_INTERPRET"] = "1"  # Triton reads it when it is imported
    session: PlanSession | None = None
    decoder: ServedDecoder | None = None
    while True:
        message, feeds = receive(pipe)
        try:
            if session is None or decoder is None:
                session = interpreting(Path(message["folder"]))
                decoder = _decoding(session)
                send(pipe, {"inputs": list(session.inputs), "outputs": list(session.outputs)})
            elif message.get("values"):
                send(pipe, {}, session.values(feeds))
            elif message["do"] in ASKED:
                send(pipe, {}, decoder.answer(message, feeds))
            else:
                send(pipe, {}, session.run(feeds, message["what"]))
        except RuntimeRefusedError as error:
            send(pipe, {"refused": str(error)})


def _decoding(session: PlanSession) -> ServedDecoder:
    return ServedDecoder(lambda names, start, _: PlanDecoder(session, names, start))


def interpreting(folder: Path) -> PlanSession:
    """The plan in a folder; Triton must be, or become, an interpreter in this process.

    Raises:
        RuntimeRefusedError: the files are damaged, or of other kernels than those here.
    """
    plan, weights = open_plan(folder)
    if plan.kernels != kernels_hash():
        raise RuntimeRefusedError(
            "without a GPU the kernels of this strop are interpreted, and the artifact was built "
            "with others: run it on a GPU, or by the strop that built it, or build it again"
        )
    return PlanSession(plan, weights, Interpreter())


class Interpreter:
    """Runs launches by Triton's interpreter, which is held to the tensors of each launch."""

    def __init__(self) -> None:
        self.device = torch.device("cpu")

    def launch(self, launch: BoundLaunch, arguments: Sequence[Any]) -> None:
        """Run a launch."""
        from strop.compiler.targets.triton.confined import confined
        from strop.kernels.registry import kernel, names

        variant = launch.variant
        if variant.kernel not in names():
            raise RuntimeRefusedError(f"there is no kernel '{variant.kernel}'")
        function = kernel(variant.kernel).function
        given = {**dict(zip(variant.types, arguments)), **variant.constants}
        if set(given) != set(function.arg_names):
            raise RuntimeRefusedError(f"kernel '{variant.kernel}' takes other arguments")
        with confined([a for a in arguments if isinstance(a, torch.Tensor)]):
            function[launch.grid](
                **given, num_warps=variant.num_warps, num_stages=variant.num_stages
            )
