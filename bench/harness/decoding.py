"""Engines that make text token by token, each in a process of its own, and what a token takes."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from strop.bench.processes.memory import own_peak
from strop.bench.processes.spawned import Process

Tokens = Sequence[int]


@dataclass(frozen=True)
class Text:
    """Tokens that an engine made, most likely ones, and when.

    Attributes:
        tokens: the new ones.
        first: milliseconds from the prompt to the first of them.
        others: milliseconds from each to the next.
    """

    tokens: Tokens
    first: float
    others: Sequence[float]


class Writer(ABC):
    """A loaded engine."""

    @abstractmethod
    def tokens(self, prompt: Tokens, count: int) -> Iterator[int]:
        """At most so many tokens after a prompt, each the most likely one."""


@dataclass(frozen=True)
class Decoding(ABC):
    """What to load, and what to call it; travels to the process.

    Attributes:
        name: for tables.
        folder: its files.
    """

    name: str
    folder: Path

    @property
    @abstractmethod
    def runtime(self) -> str:
        """The package to import before the engine is loaded."""

    @abstractmethod
    def load(self) -> Writer:
        """Load the engine into this process."""


@dataclass(frozen=True)
class Artifact(Decoding):
    """An artifact of strop's, run by strop's own loop."""

    runtime = "onnxruntime"

    def load(self) -> Writer:
        """Open it."""
        return _Loaded(self.folder)


@dataclass(frozen=True)
class Genai(Decoding):
    """A folder that onnxruntime-genai runs."""

    runtime = "onnxruntime_genai"

    def load(self) -> Writer:
        """Open it."""
        return _Genai(self.folder)


@dataclass(frozen=True)
class Transformers(Decoding):
    """A checkpoint in eager torch, with transformers' own cache."""

    runtime = "transformers"

    def load(self) -> Writer:
        """Load the module."""
        return _Eager(self.folder)


class _Loaded(Writer):
    def __init__(self, folder: Path) -> None:
        from strop.compiler import load

        self.artifact = load(folder)

    def tokens(self, prompt: Tokens, count: int) -> Iterator[int]:
        for token in self.artifact.generate(list(prompt), max_new=count):
            yield token.id


class _Genai(Writer):
    def __init__(self, folder: Path) -> None:
        import onnxruntime_genai as genai

        self.genai: Any = genai
        self.model = genai.Model(str(folder))

    def tokens(self, prompt: Tokens, count: int) -> Iterator[int]:
        import numpy as np

        params = self.genai.GeneratorParams(self.model)
        params.set_search_options(max_length=len(prompt) + count, do_sample=False)
        generator = self.genai.Generator(self.model, params)
        generator.append_tokens(np.array(prompt, np.int32))
        while not generator.is_done():
            generator.generate_next_token()
            yield int(generator.get_next_tokens()[0])


class _Eager(Writer):
    def __init__(self, folder: Path) -> None:
        import transformers

        transformers.utils.logging.disable_progress_bar()
        kind: Any = transformers.AutoModelForCausalLM
        self.module = kind.from_pretrained(folder, local_files_only=True).eval()
        eos = self.module.generation_config.eos_token_id
        self.eos = set(eos if isinstance(eos, list) else [eos])

    def tokens(self, prompt: Tokens, count: int) -> Iterator[int]:
        import torch

        ids, cache = torch.tensor([list(prompt)]), None
        with torch.inference_mode():
            for _ in range(count):
                # Of the prompt, too, the vocabulary is scored for the last place only.
                found = self.module(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
                ids, cache = found.logits[:, -1].argmax(1, keepdim=True), found.past_key_values
                yield int(ids)
                if int(ids) in self.eos:
                    return


class DecodingWorker:
    """One engine's process, as its parent sees it."""

    def __init__(self, engine: Decoding, timeout: float = 600.0) -> None:
        self.engine = engine
        self._process = Process(partial(_serve, engine), timeout)

    def text(self, prompt: Tokens, count: int) -> Text:
        """At most so many tokens after a prompt.

        Raises:
            EngineError: the engine does not load or run.
        """
        tokens, first, others = self._process.ask(list(prompt), count)
        return Text(tokens, first, others)

    def peak_memory(self) -> int:
        """The most memory that the process has had so far, in bytes, its runtime included."""
        result: int = self._process.ask([], 0)
        return result

    def stop(self) -> None:
        """End the process."""
        self._process.stop()


def _serve(engine: Decoding, pipe: Connection) -> None:
    """In the child: load, then answer until the parent closes the pipe."""
    import_module(engine.runtime)
    writer = engine.load()
    while True:
        prompt, count = pipe.recv()
        pipe.send(_timed(writer, prompt, count) if count else own_peak())


def _timed(writer: Writer, prompt: Tokens, count: int) -> tuple[list[int], float, list[float]]:
    tokens, stamps = [], [time.perf_counter()]
    for token in writer.tokens(prompt, count):
        stamps.append(time.perf_counter())
        tokens.append(token)
    first, *others = [1000 * (b - a) for a, b in zip(stamps, stamps[1:])]
    return tokens, first, others
