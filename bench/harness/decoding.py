"""Engines that make text token by token, and what the first token and each further one takes."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from strop.bench.harness.engines import Engine, Runner
from strop.bench.harness.subject import Feeds
from strop.bench.processes.spawned import EngineError
from strop.compiler.artifact.generating import opened_for_texts
from strop.compiler.artifact.loaded import load
from strop.compiler.generate.generator import generate
from strop.compiler.generate.settings import Settings
from strop.compiler.util.numerics import Array

PROMPT, CACHED = "prompt", "cached"
"""What is timed behind given tokens, [batch, tokens] int64: the first new one, or those after it,
for which the caches hold the given ones already."""
Told = Callable[[Sequence[int]], None]
# The most tokens of one text that are timed after its first new one.
NEW = 16
# Seconds after which a prompt is not given again.
LONG = 1.0


class Writer(Runner):
    """A loaded engine. No token ends a text, so that every text has as many tokens as wanted."""

    @abstractmethod
    def write(self, prompts: Array, count: int, told: Told) -> None:
        """Make new tokens one after the other, the most likely ones.

        Args:
            prompts: [batch, tokens] int64.
            count: how many to make behind each prompt.
            told: called with one new token of each prompt as soon as they are there.
        """

    def texts(self, prompts: Array, count: int) -> Array:
        """New tokens behind each prompt, [batch, count] int64."""
        made: list[Sequence[int]] = []
        self.write(prompts, count, made.append)
        return np.array(made, np.int64).T

    def run(self, feeds: Feeds) -> list[Array]:
        """The first new tokens behind the given ones, [batch, 1 + NEW] int64."""
        (prompts,) = feeds.values()
        return [self.texts(prompts, 1 + NEW)]

    def times(self, feeds: Feeds, count: int) -> list[float]:
        """Seconds to the first token of up to ``count`` texts, or of up to NEW later tokens."""
        if CACHED in feeds:
            return self._seconds(feeds[CACHED], 1 + min(count, NEW))[1:]
        taken = self._seconds(feeds[PROMPT], 1)
        while len(taken) < count and sum(taken) < LONG:
            taken += self._seconds(feeds[PROMPT], 1)
        return taken

    def _seconds(self, prompts: Array, count: int) -> list[float]:
        """How long each token of one text took."""
        stamps = [time.perf_counter()]
        self.write(prompts, count, lambda _: stamps.append(time.perf_counter()))
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
class OpenVinoGenai(Decoding):
    """A folder that OpenVINO GenAI runs, one text at a time."""

    runtime = "openvino_genai"

    def load(self) -> Writer:
        """Open it."""
        return _OpenVinoGenai(self.folder)

    def size(self) -> int:
        """The model's file and its weights."""
        return sum(file.stat().st_size for file in self.folder.glob("openvino_model.*"))


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

    def write(self, prompts: Array, count: int, told: Told) -> None:
        made = generate(self.opened, prompts.tolist(), Settings(max_new=count))
        for step in zip(*[made] * len(prompts)):
            told([token.id for token in step])


class _Genai(Writer):
    def __init__(self, folder: Path) -> None:
        import onnxruntime_genai as genai

        self.genai: Any = genai
        self.model = genai.Model(str(folder))

    def write(self, prompts: Array, count: int, told: Told) -> None:
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
            told(generator.get_next_tokens().tolist())


class _OpenVinoGenai(Writer):
    def __init__(self, folder: Path) -> None:
        import openvino_genai as genai

        # By default it would know a prompt that it was given before.
        scheduler = genai.SchedulerConfig()
        scheduler.enable_prefix_caching = False
        self.genai: Any = genai
        self.pipeline = genai.LLMPipeline(str(folder), "CPU", scheduler_config=scheduler)

    def write(self, prompts: Array, count: int, told: Told) -> None:
        import openvino

        if len(prompts) > 1:
            raise EngineError("OpenVINO GenAI gives the tokens of one text at a time; time batch=1")
        config = self.genai.GenerationConfig(max_new_tokens=count, ignore_eos=True, do_sample=False)
        config.apply_chat_template = False
        self.pipeline.generate(openvino.Tensor(prompts), config, _streamer(self.genai, told))


def _streamer(genai: Any, told: Told) -> Any:
    """What OpenVINO GenAI tells of each token."""

    class Streamer(genai.StreamerBase):  # type: ignore[misc]
        def write(self, token: int | Sequence[int]) -> Any:
            told([token] if isinstance(token, int) else token)
            return genai.StreamingStatus.RUNNING

        def end(self) -> None:
            pass

    return Streamer()


class _Eager(Writer):
    def __init__(self, folder: Path) -> None:
        import torch
        import transformers

        transformers.utils.logging.disable_progress_bar()
        kind: Any = transformers.AutoModelForCausalLM
        module = kind.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
        self.module = module.eval()

    def write(self, prompts: Array, count: int, told: Told) -> None:
        import torch

        ids, cache = torch.from_numpy(prompts), None
        with torch.inference_mode():
            for _ in range(count):
                # Of the prompt, too, the vocabulary is scored for the last place only.
                found = self.module(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
                ids, cache = found.logits[:, -1].argmax(1, keepdim=True), found.past_key_values
                told(ids[:, 0].tolist())


def written(engine: Decoding, prompts: Array, count: int) -> Array:
    """New tokens behind each prompt, [batch, count] int64; for a process of its own."""
    return engine.load().texts(prompts, count)
