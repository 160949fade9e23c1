"""Check how the written artifact generates, and write what other runtimes need for it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch

from strop.compiler.artifact.folder import GENAI_CONFIG, write_json
from strop.compiler.artifact.genai import genai_config
from strop.compiler.check.generated import Generated, check_texts, hold_generation
from strop.compiler.driver.job import Job
from strop.compiler.driver.part import Ready
from strop.compiler.frontend.texts import Texts
from strop.compiler.generate.prepared import Arrays, Encoder, roles
from strop.compiler.ir.contract import Contract
from strop.compiler.ir.running import in_contract
from strop.compiler.targets.decoding import Decoder, Start, names_of
from strop.compiler.targets.isolation import open_isolated
from strop.compiler.targets.target import OnnxTarget
from strop.compiler.util.arrays import to_array


@dataclass(frozen=True)
class Caches:
    """How the files of a decoder take its caches.

    Attributes:
        shared_buffers: whether past and present of a cache may be one buffer.
        prefill: the second file of the decoder, as in ``Names``.
    """

    shared_buffers: bool
    prefill: str


def check_generation(
    folder: Path, job: Job, parts: Sequence[Ready], texts: Texts, caches: Caches
) -> Generated:
    """Lead the written decoder along the original's texts, in a process of its own.

    Args:
        folder: the files of the target.
        job: the budget, the target and the clock.
        parts: the programs.
        texts: of the original.
        caches: how the files take them.

    Raises:
        RuntimeRefusedError: the runtime does not run the programs.
        BudgetError: the artifact generates other texts than its budget allows.
    """
    called = texts.generation
    inputs = {p.name: [i.name for i in p.optimized.program.contract.inputs] for p in parts}
    decoder, encoder = roles(called, inputs)
    empty = _empty(texts, next(p for p in parts if p.name == decoder).optimized.program.contract)
    with job.stages.stage("check"), ExitStack() as stack:
        sessions = {
            part.name: stack.enter_context(open_isolated(folder, job.target, part.name))
            for part in parts
        }

        def open_decoder(source: Arrays, fixed: Arrays) -> Decoder:
            if encoder is not None:
                fixed = Encoder(inputs[encoder], sessions[encoder].run).fixed(called, source)
            start = Start(empty, fixed)
            names = names_of(called, caches.prefill)
            return sessions[decoder].decoder(names, start, caches.shared_buffers)

        found = check_texts(texts, open_decoder)
    hold_generation(found, job.recipe.budget)
    return found


def _empty(texts: Texts, contract: Contract) -> Arrays:
    """One row of each cache without places, in the dtype in which a program keeps it."""
    given = {name: torch.from_numpy(array) for name, array in texts.empty.items()}
    return {name: to_array(tensor) for name, tensor in in_contract(given, contract).items()}


def write_settings(folder: Path, job: Job, parts: Sequence[Ready], caches: Caches) -> list[str]:
    """Write what onnxruntime-genai reads beside a decoder, where it can run it; names of files."""
    if job.several or job.generation is None or not isinstance(job.target, OnnxTarget):
        return []
    (part,) = parts
    contract, file = part.optimized.program.contract, job.target.file_of(part.name)
    prefill = job.target.file_of(caches.prefill) if caches.prefill else ""
    settings = genai_config(job.generation, caches.shared_buffers, contract, file, prefill)
    if settings is None:
        return []
    write_json(folder / GENAI_CONFIG, settings)
    return [GENAI_CONFIG]
