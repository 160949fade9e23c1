"""A decoder with packed weights gets a second file for many new tokens, which takes no room."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import decoders
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from cache_tools import traced
from onnx import TensorProto

from strop.compiler import Artifact, build, load
from strop.compiler.artifact.generating import opened_for_texts
from strop.compiler.lower.onnx.entry import LOWERING, LoweredToOnnx
from strop.compiler.recipes.loading import asked_recipe, load_recipe
from strop.compiler.targets.onnxruntime.bound import MANY, PART, BoundDecoder
from strop.compiler.targets.onnxruntime.runtime import OnnxSession
from strop.compiler.targets.target import CPU

# Weights are random: on a grid of 4 bits they make another text than the original.
ANY_TEXT = ("budget.min_token_agreement=0",)
CONTEXT = 2 * PART + MANY
EOS = 2


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    out = tmp_path_factory.mktemp("prefill") / "out"
    return build(decoders.make(context=CONTEXT), out, asked_recipe("cpu-llm-int4", ANY_TEXT))


def sessions(artifact: Artifact) -> list[ort.InferenceSession]:
    """On the file for few new tokens, and on that for many."""
    files = (artifact.path / f"{name}.onnx" for name in ("model", "prefill"))
    return [ort.InferenceSession(f, providers=["CPUExecutionProvider"]) for f in files]


def initializers(artifact: Artifact, name: str) -> list[TensorProto]:
    model = onnx.load(artifact.path / f"{name}.onnx", load_external_data=False)
    return list(model.graph.initializer)


def place(tensor: TensorProto) -> tuple[tuple[str, str], ...]:
    """The file and the bytes in it that hold a tensor."""
    return tuple((entry.key, entry.value) for entry in tensor.external_data)


def test_both_files_read_the_same_weights(artifact: Artifact) -> None:
    assert artifact.manifest["generation"]["prefill"] == "prefill"
    sizes = {name: file["bytes"] for name, file in artifact.manifest["files"].items()}
    assert set(sizes) == {"model.onnx", "model.onnx.data", "prefill.onnx"}
    packed = [t for t in initializers(artifact, "model") if t.data_type == TensorProto.UINT8]
    assert packed
    assert {place(t) for t in packed} == {
        place(t) for t in initializers(artifact, "prefill") if t.data_type == TensorProto.UINT8
    }
    assert artifact.size == sum(sizes.values())


def test_they_choose_other_products_and_give_nearly_the_same(artifact: Artifact) -> None:
    few, many = (values_of_first_layer(session) for session in sessions(artifact))
    # Products of one round activations to 8 bits, those of the other do not.
    assert not np.array_equal(few, many)
    assert np.abs(few - many).max() < 0.01 * np.abs(many).max()


@pytest.mark.parametrize("length", [1, MANY - 1, MANY, PART, PART + 1, 2 * PART + 3])
def test_a_prompt_of_any_length_is_scored_as_by_its_file_at_once(
    artifact: Artifact, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    beside = OnnxSession.beside
    monkeypatch.setattr(OnnxSession, "beside", lambda s, n: opened.append(n) or beside(s, n))
    prompt = [1 + i % 59 for i in range(length)]
    loaded = load(artifact.path)
    tokens = [token.id for token in loaded.generate(prompt, max_new=3)]
    assert opened == ["prefill"]
    _, many = sessions(artifact)
    assert tokens[0] == int(np.argmax(scores(many, prompt)))


@pytest.mark.parametrize("new", [1, MANY - 1, MANY])
def test_tokens_behind_others_take_the_file_that_is_faster_for_so_many(
    artifact: Artifact, new: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    call = BoundDecoder._call

    def watched(self: BoundDecoder, on: Any, ids: np.ndarray, mask: np.ndarray) -> None:
        ran.append("many" if on is self._many else "few")
        call(self, on, ids, mask)

    monkeypatch.setattr(BoundDecoder, "_call", watched)
    sessions = {name: one.session for name, one in load(artifact.path).programs.items()}
    decoder = opened_for_texts(artifact, sessions).decoder({})
    for seq, total in ((3, 3), (new, 3 + new)):
        decoder.step(np.ones((1, seq), np.int64), np.ones((1, total), np.int64))
    assert ran == ["many", "many" if new >= MANY else "few"]


@pytest.mark.parametrize("length", [1, 2, MANY - 1, MANY, PART + 1])
def test_onnxruntime_genai_makes_the_same_tokens(artifact: Artifact, length: int) -> None:
    genai = pytest.importorskip("onnxruntime_genai", reason="pip install 'strop[genai]'")
    prompt = [1 + i % 59 for i in range(length)]
    model = genai.Model(str(artifact.path))
    parameters = genai.GeneratorParams(model)
    parameters.set_search_options(max_length=length + 12)
    theirs = genai.Generator(model, parameters)
    theirs.append_tokens(np.array([prompt], np.int32))
    while not theirs.is_done():
        theirs.generate_next_token()
    tokens = [token.id for token in load(artifact.path).generate(prompt, max_new=12)]
    # They leave out the token that ends a text.
    assert theirs.get_sequence(0)[length:].tolist() == [t for t in tokens if t != EOS]


def scores(session: ort.InferenceSession, prompt: list[int]) -> np.ndarray:
    return session.run(["logits"], feeds_of(session, prompt))[0][0, -1]


def values_of_first_layer(session: ort.InferenceSession) -> np.ndarray:
    """One product behind the embedding: random weights multiply what it rounds, layer by layer."""
    values = next(o.name for o in session.get_outputs() if "value" in o.name)
    return session.run([values], feeds_of(session, list(range(1, MANY + 1))))[0]


def feeds_of(session: ort.InferenceSession, prompt: list[int]) -> dict[str, np.ndarray]:
    ids = np.array([prompt])
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    for given in session.get_inputs():
        if given.name not in feeds:
            feeds[given.name] = np.zeros((1, given.shape[1], 0, given.shape[3]), np.float32)
    return feeds


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["cpu-fp32", "cpu-llm-int8"])
def test_other_weights_have_one_file(recipe: str, tmp_path: Path) -> None:
    artifact = build(decoders.make(), tmp_path / "out", recipe)
    assert artifact.manifest["generation"]["prefill"] == ""
    assert not (artifact.path / "prefill.onnx").exists()


def lowered(bits: dict[str, int]) -> LoweredToOnnx:
    """A decoder with weights of 4 bits, but those whose names hold a text have others."""
    program = traced(decoders.make(layers=1, heads=4, kv_heads=2, head_size=16))
    program = load_recipe("cpu-llm-int4").pipeline().run(program)
    for node in program.find(torch.ops.strop.linear_nbits.default):
        wide = next((b for name, b in bits.items() if name in str(node.args[1])), 4)
        node.args = (*node.args[:-1], wide)
    made = LOWERING.lower(program, CPU)
    assert isinstance(made, LoweredToOnnx)
    return made


def levels(folder: Path, name: str) -> list[tuple[int, int]]:
    """Bits and accuracy level of each product with packed weights."""
    nodes = onnx.load(folder / name, load_external_data=False).graph.node
    found = [{a.name: a.i for a in n.attribute} for n in nodes if n.op_type == "MatMulNBits"]
    return [(one["bits"], one["accuracy_level"]) for one in found]


def test_weights_of_8_bits_are_multiplied_in_one_way(tmp_path: Path) -> None:
    made = lowered({"": 8})
    assert made.prefill == ""
    made.write(tmp_path)
    assert set(levels(tmp_path, "model.onnx")) == {(8, 4)}


def test_among_others_weights_of_8_bits_keep_their_products(tmp_path: Path) -> None:
    made = lowered({"down": 8})
    made.write(tmp_path)
    assert sorted(set(levels(tmp_path, "model.onnx"))) == [(4, 4), (8, 4)]
    assert sorted(set(levels(tmp_path, "prefill.onnx"))) == [(4, 1), (8, 4)]


def test_a_second_file_of_another_name_is_refused(artifact: Artifact, tmp_path: Path) -> None:
    from strop.compiler.artifact.folder import read_artifact
    from strop.compiler.util.errors import UsageError

    values = json.loads((artifact.path / "manifest.json").read_text())
    values["generation"]["prefill"] = "../prefill"
    (tmp_path / "manifest.json").write_text(json.dumps(values))
    with pytest.raises(UsageError, match="prefill"):
        read_artifact(tmp_path)
