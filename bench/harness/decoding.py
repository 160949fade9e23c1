"""Engines that make text token by token, and what the first token and each further one takes."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from strop.bench.harness.engines import Engine, Runner
from strop.bench.harness.subject import Feeds
from strop.compiler.artifact.generating import opened_for_texts
from strop.compiler.artifact.loaded import load
from strop.compiler.generate.generator import generate
from strop.compiler.generate.settings import Settings
from strop.compiler.util.numerics import Array

PROMPT, CACHED = "prompt", "cached"
"""What is timed behind given tokens, [batch, tokens] int64: the first new one, or those after it,
for which the caches hold the given ones already."""
# The most tokens of one text that are timed after its first new one.
NEW = 16


class Writer(Runner):
    """A loaded engine. No token ends a text, so that every text has as many tokens as wanted."""

    @abstractmethod
    def tokens(self, prompts: Array, count: int) -> Iterator[Sequence[int]]:
        """New tokens one after the other, the most likely ones.

        Args:
            prompts: [batch, tokens] int64.
            count: how many to make behind each prompt.

        Yields:
            one token for each prompt.
        """

    def run(self, feeds: Feeds) -> list[Array]:
        """The first new tokens behind the given ones, [batch, 1 + NEW] int64."""
        (prompts,) = feeds.values()
        return [np.array(list(self.tokens(prompts, 1 + NEW)), np.int64).T]

    def times(self, feeds: Feeds, count: int) -> list[float]:
        """Seconds to the first token of each of ``count`` texts, or of up to NEW later tokens."""
        if PROMPT in feeds:
            return [self._seconds(feeds[PROMPT], 1)[0] for _ in range(count)]
        return self._seconds(feeds[CACHED], 1 + min(count, NEW))[1:]

    def _seconds(self, prompts: Array, count: int) -> list[float]:
        """How long each token of one text took."""
        stamps = [time.perf_counter()]
        for _ in self.tokens(prompts, count):
            stamps.append(time.perf_counter())
        return [later - earlier for earlier, later in pairwise(stamps)]


@dataclass(frozen=True)
class Decoding(Engine):
    """What to load; on all cores.

    Attributes:
        folder: its files.
    """

    folder: Path

    @abstractmethod
    def load(self) -> Writer:
        """Load the engine into this process."""

    def size(self) -> int | None:
        """The ONNX files and their weights."""
        return sum(file.stat().st_size for file in self.folder.glob("*.onnx*"))


@dataclass(frozen=True)
class Loop(Decoding):
    """An artifact of strop's, run by strop's own loop."""

    runtime = "onnxruntime"

    def load(self) -> Writer:
        """Open it."""
        return _Loop(self.folder)


@dataclass(frozen=True)
class Genai(Decoding):
    """A folder that onnxruntime-genai runs."""

    runtime = "onnxruntime_genai"

    def load(self) -> Writer:
        """Open it."""
        return _Genai(self.folder)


@dataclass(frozen=True)
class Transformers(Decoding):
    """A checkpoint in eager torch in float32, with transformers' own cache."""

    runtime = "transformers"

    def load(self) -> Writer:
        """Load the module."""
        return _Eager(self.folder)

    def size(self) -> None:
        """It has no files of its own."""


class _Loop(Writer):
    def __init__(self, folder: Path) -> None:
        loaded = load(folder)
        manifest = loaded.artifact.manifest
        endless = manifest | {"generation": manifest["generation"] | {"eos": []}}
        sessions = {name: program.session for name, program in loaded.programs.items()}
        opened = opened_for_texts(replace(loaded.artifact, manifest=endless), sessions)
        # Ids alone, as the others give them.
        self.opened = replace(opened, tokenizer=None)

    def tokens(self, prompts: Array, count: int) -> Iterator[Sequence[int]]:
        made = generate(self.opened, prompts.tolist(), Settings(max_new=count))
        return ([token.id for token in step] for step in zip(*[made] * len(prompts)))


class _Genai(Writer):
    def __init__(self, folder: Path) -> None:
        import onnxruntime_genai as genai

        self.genai: Any = genai
        self.model = genai.Model(str(folder))

    def tokens(self, prompts: Array, count: int) -> Iterator[Sequence[int]]:
        batch, given = prompts.shape
        params = self.genai.GeneratorParams(self.model)
        # It ends no text that is shorter than the least length.
        whole = given + count
        params.set_search_options(
            batch_size=batch, max_length=whole, min_length=whole, do_sample=False
        )
        generator = self.genai.Generator(self.model, params)
        generator.append_tokens(prompts.astype(np.int32))
        for _ in range(count):
            generator.generate_next_token()
            yield generator.get_next_tokens().tolist()


class _Eager(Writer):
    def __init__(self, folder: Path) -> None:
        import torch
        import transformers

        transformers.utils.logging.disable_progress_bar()
        kind: Any = transformers.AutoModelForCausalLM
        module = kind.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
        self.module = module.eval()

    def tokens(self, prompts: Array, count: int) -> Iterator[Sequence[int]]:
        import torch

        ids, cache = torch.from_numpy(prompts), None
        with torch.inference_mode():
            for _ in range(count):
                # Of the prompt, too, the vocabulary is scored for the last place only.
                found = self.module(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
                ids, cache = found.logits[:, -1].argmax(1, keepdim=True), found.past_key_values
                yield ids[:, 0].tolist()


def written(engine: Decoding, prompts: Array, count: int) -> Array:
    """New tokens behind each of the prompts, [batch, count] int64; for a process of its own."""
    return np.array(list(engine.load().tokens(prompts, count)), np.int64).T
