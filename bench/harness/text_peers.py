"""The peers of artifacts that make texts: engines that go on with the same token ids."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

from strop.bench.harness.decoding import Genai, OpenVinoGenai, Transformers
from strop.bench.harness.engines import Engine
from strop.bench.harness.exports import decline_telemetry
from strop.bench.harness.peers import Make, Peer, Preparations
from strop.compiler.frontend.huggingface.request import parse_request

_FOLDER, CONFIG = "hf:", "config.json"


def names_checkpoint(source: str) -> bool:
    """Whether a source is a checkpoint folder that is there."""
    return source.startswith(_FOLDER) and (checkpoint_of(source) / CONFIG).is_file()


def checkpoint_of(source: str) -> Path:
    """The checkpoint folder that a source names."""
    return parse_request(source.removeprefix(_FOLDER)).path


def _eager(name: str, threads: int, made: Preparations) -> Engine:
    return Transformers(name, threads, checkpoint_of(made.source))


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
    places = ["-i", str(checkpoint_of(source)), "-o", str(folder / precision)]
    how = ["-c", str(folder / "cache"), "-p", precision, "-e", "cpu"]
    _run("onnxruntime_genai.models.builder", *places, *how)


def _run(module: str, *arguments: str) -> None:
    """A module's own command line, in this process."""
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__")


def export_openvino(source: str, folder: Path, program: str) -> None:
    """optimum-intel's export, int4 weights, in smaller groups where the usual do not fit."""
    decline_telemetry()
    os.environ["HF_HUB_OFFLINE"] = "1"
    how = ["--task", "text-generation-with-past", "--weight-format", "int4"]
    how += ["--group-size-fallback", "adjust"]
    places = ["-m", str(checkpoint_of(source)), str(folder / "openvino")]
    _run("optimum.commands.optimum_cli", "export", "openvino", *how, *places)


def _openvino(name: str, threads: int, made: Preparations) -> Engine:
    return OpenVinoGenai(name, threads, made.folder / "openvino")


_OPENVINO = (
    ("openvino_genai", "optimum.exporters.openvino", "nncf"),
    "pip install openvino-genai optimum-intel (which takes transformers below 5.6)",
)
_GENAI = (("onnxruntime_genai",), "pip install 'strop[genai]'")
TEXT_PEERS: dict[str, Peer] = {
    "eager": Peer(_eager),
    "genai": Peer(_genai("int4"), (build_int4,), *_GENAI),
    "genai-int8": Peer(_genai("int8"), (build_int8,), *_GENAI),
    "genai-fp32": Peer(_genai("fp32"), (build_fp32,), *_GENAI),
    "openvino-genai": Peer(_openvino, (export_openvino,), *_OPENVINO),
}
# The peers where none is named; the first is the baseline.
TEXT_DEFAULT = ("eager", "genai")
