"""An artifact that generates: its decoder, encoder and tokenizer, as the loop takes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from strop.compiler.artifact.feeds import NUMPY_DTYPES
from strop.compiler.artifact.folder import MANIFEST, Artifact
from strop.compiler.artifact.manifest_schema import GenerationValues
from strop.compiler.generate.prepared import Arrays, Encoder, Opened, roles
from strop.compiler.generate.text import read_tokenizer
from strop.compiler.targets.decoding import Decoder, Start, names_of
from strop.compiler.targets.runtime import Session, runtime_of
from strop.compiler.util.errors import UsageError


def opened_for_texts(artifact: Artifact, sessions: Mapping[str, Session]) -> Opened:
    """What the loop calls.

    Args:
        artifact: whose manifest says how.
        sessions: its programs, opened, by name.

    Raises:
        UsageError: it does not generate, its manifest is wrong, or its tokenizer is another's.
    """
    values = artifact.manifest.get("generation")
    if values is None:
        raise UsageError(
            f"{artifact.path} makes no texts: it holds no decoder with caches. Build one from "
            "hf:PATH#text-generation, or give Model(generation=...)"
        )
    called = GenerationValues.model_validate(values)
    contracts = {name: artifact.program(name)["contract"] for name in artifact.programs}
    inputs = {name: list(_specs(contract, "inputs")) for name, contract in contracts.items()}
    name, encoding = roles(called, inputs)
    contract = contracts[name]
    empty = empty_caches(contract, called, artifact)
    vocabulary = _vocabulary(contract, called, artifact)
    runtime, session = runtime_of(artifact.target), sessions[name]
    names = names_of(called, called.prefill)

    def decoder(fixed: Arrays) -> Decoder:
        start = Start(empty, fixed)
        return runtime.decoder(session, names, start, called.shared_buffers)

    encoder = Encoder(inputs[encoding], sessions[encoding].run) if encoding else None
    tokenizer = read_tokenizer(artifact.path, vocabulary)
    return Opened(called, vocabulary, decoder, encoder, tokenizer)


def empty_caches(
    contract: Mapping[str, Any], called: GenerationValues, artifact: Artifact
) -> Arrays:
    """For each cache one row of it without places, [1, heads, 0, size].

    Raises:
        UsageError: the contract has other shapes or dtypes for caches.
    """
    specs, empty = _specs(contract, "inputs"), {}
    for name in called.caches:
        dtype = specs[name]["dtype"]
        match specs[name]["shape"]:
            case [_, int(heads), _, int(size)] if dtype in NUMPY_DTYPES:
                empty[name] = np.zeros((1, heads, 0, size), NUMPY_DTYPES[dtype])
            case shape:
                raise _damaged(artifact, f"the cache '{name}' is {dtype}{shape}")
    return empty


def _vocabulary(contract: Mapping[str, Any], called: GenerationValues, artifact: Artifact) -> int:
    spec = _specs(contract, "outputs").get(called.logits)
    size = spec["shape"][-1] if spec is not None and spec["shape"] else None
    if type(size) is not int:
        raise _damaged(artifact, f"no output '{called.logits}' scores a vocabulary of a fixed size")
    return size


def _specs(contract: Mapping[str, Any], kind: str) -> dict[str, Mapping[str, Any]]:
    return {spec["name"]: spec for spec in contract[kind]}


def _damaged(artifact: Artifact, what: str) -> UsageError:
    return UsageError(f"{artifact.path / MANIFEST}: 'generation' does not fit the model: {what}")
