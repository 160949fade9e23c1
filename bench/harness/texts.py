"""What is timed of an artifact that makes texts: prompts, and the tokens behind them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from strop.bench.harness.decoding import CACHED, NEW, PROMPT
from strop.bench.harness.subject import Reference, Sizes
from strop.compiler.artifact.folder import Artifact
from strop.compiler.util.errors import UsageError
from strop.compiler.util.numerics import Array

# Tokens of the prompts where none are asked for; as far as they fit the artifact.
PROMPTS = (128, 1024)


def makes_texts(artifact: Artifact) -> bool:
    """Whether it goes on with token ids: one decoder with caches."""
    return artifact.manifest.get("generation") is not None and len(artifact.programs) == 1


def sizes_of_prompts(artifact: Artifact, given: Sequence[Sizes]) -> list[dict[str, int]]:
    """``batch`` and ``seq`` of each prompt to time.

    Args:
        artifact: that makes texts.
        given: within the ranges of its dims, by their names; empty for the usual prompts.

    Raises:
        UsageError: a size of something else than prompts, or no room behind one for new tokens.
    """
    generation, contract = artifact.manifest["generation"], artifact.program()["contract"]
    rows, tokens = next(i for i in contract["inputs"] if i["name"] == generation["ids"])["shape"]
    most = generation["context"] - NEW - 1
    if most < 1:
        raise UsageError(
            f"the caches of {artifact.path} hold {generation['context']} tokens: there is no room "
            f"for a prompt and the {NEW + 1} new tokens that are timed"
        )
    for name in {name for sizes in given for name in sizes} - {rows, tokens}:
        raise UsageError(
            f"--shapes: '{name}' follows from the prompts; give {rows}=1,4 {tokens}=128,1024"
        )
    found = [
        {"batch": _size(rows, sizes, 1), "seq": length}
        for sizes in given or [{}]
        for length in ([sizes[tokens]] if tokens in sizes else _usual(contract, tokens, most))
    ]
    for sizes in found:
        if sizes["seq"] > most:
            raise UsageError(
                f"--shapes: {tokens}={sizes['seq']}: the caches hold {generation['context']} "
                f"tokens, and {NEW + 1} new ones are timed; {most} is the longest prompt"
            )
    return found


def _size(axis: int | str, given: Sizes, usual: int) -> int:
    return axis if isinstance(axis, int) else given.get(axis, usual)


def _usual(contract: Mapping[str, Any], tokens: str, most: int) -> list[int]:
    """The usual lengths of prompts, each no more than the artifact takes."""
    bound = next((dim["max"] for dim in contract["dims"] if dim["name"] == tokens), None)
    return sorted({min(length, most, bound or most) for length in PROMPTS})


def prompts(artifact: Artifact, sizes: Sequence[Sizes]) -> list[Reference]:
    """Two cases for each prompt: no tokens in the caches, and the prompt's when one is added."""
    words, found = _words(artifact), []
    for one in sizes:
        batch, seq = one["batch"], one["seq"]
        ids = np.random.default_rng(0).choice(words, (batch, seq))
        first, later = {"seq": seq, "past": 0}, {"seq": 1, "past": seq}
        found += [Reference({"batch": batch, **first}, {PROMPT: ids}, None)]
        found += [Reference({"batch": batch, **later}, {CACHED: ids}, None)]
    return found


def _words(artifact: Artifact) -> Array:
    """The tokens of the vocabulary that do not start, end or fill texts: [tokens] int64."""
    called, contract = artifact.manifest["generation"], artifact.program()["contract"]
    scores = next(o for o in contract["outputs"] if o["name"] == called["logits"])["shape"]
    return np.setdiff1d(np.arange(scores[-1]), list(_special(called)))


def _special(called: Mapping[str, Any]) -> Iterator[int]:
    yield from (*called["eos"], *called["start"], called["pad"])
    if called["bos"] is not None:
        yield called["bos"]
