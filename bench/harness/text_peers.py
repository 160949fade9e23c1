"""The peers of artifacts that make texts: engines that go on with the same token ids."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from strop.bench.harness.decoding import Genai, Transformers
from strop.bench.harness.engines import Engine
from strop.bench.harness.peers import Make, Peer, Preparations
from strop.compiler.frontend.huggingface.request import parse_request


def checkpoint_of(source: str) -> Path | None:
    """The checkpoint folder that a source names; None where it names something else."""
    if not source.startswith("hf:"):
        return None
    folder = parse_request(source.removeprefix("hf:")).path
    return folder if (folder / "config.json").is_file() else None


def _checkpoint(source: str) -> Path:
    folder = checkpoint_of(source)
    assert folder is not None, f"{source} was checked to be a checkpoint folder"
    return folder


def _eager(name: str, threads: int, made: Preparations) -> Engine:
    return Transformers(name, threads, _checkpoint(made.source))


def _genai(precision: str) -> Make:
    return lambda name, threads, made: Genai(name, threads, made.folder / precision)


def build_int4(source: str, folder: Path, program: str) -> None:
    """onnxruntime-genai's own builder, int4 weights."""
    _build_genai(source, folder, "int4")


def build_int8(source: str, folder: Path, program: str) -> None:
    """onnxruntime-genai's own builder, int8 weights."""
    _build_genai(source, folder, "int8")


def build_fp32(source: str, folder: Path, program: str) -> None:
    """onnxruntime-genai's own builder, float32."""
    _build_genai(source, folder, "fp32")


def _build_genai(source: str, folder: Path, precision: str) -> None:
    """The builder's own command, in this process."""
    places = ["-i", str(_checkpoint(source)), "-o", str(folder / precision)]
    sys.argv = ["builder", *places, "-c", str(folder / "cache"), "-p", precision, "-e", "cpu"]
    runpy.run_module("onnxruntime_genai.models.builder", run_name="__main__")


_GENAI = (("onnxruntime_genai",), "pip install 'strop[genai]'")
TEXT_PEERS: dict[str, Peer] = {
    "eager": Peer(_eager),
    "genai": Peer(_genai("int4"), (build_int4,), *_GENAI),
    "genai-int8": Peer(_genai("int8"), (build_int8,), *_GENAI),
    "genai-fp32": Peer(_genai("fp32"), (build_fp32,), *_GENAI),
}
# The peers where none is named; the first is the baseline.
TEXT_DEFAULT = ("eager", "genai")
