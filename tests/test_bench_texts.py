"""``strop bench`` of an artifact that makes texts: the first token and each further one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from conftest import Strop
from test_text_generation import saved
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from strop.bench.harness import decoding, text_peers
from strop.bench.harness.decoding import CACHED, NEW, PROMPT, Genai, Loop, Transformers, written
from strop.bench.harness.peers import Peer
from strop.bench.harness.texts import makes_texts, prompts, sizes_of_prompts
from strop.bench.processes.spawned import isolated
from strop.bench.records.reading import read_record
from strop.compiler import build
from strop.compiler.artifact.folder import Artifact
from strop.compiler.artifact.history import remember_source
from strop.compiler.frontend.source import load_source
from strop.compiler.util.errors import UsageError

PROMPT_IDS = np.array([[5, 9, 11, 30, 7], [8, 9, 40, 12, 3]])
FEW = ("--bouts", 1, "--rounds", 1, "--patience", 0)
GENAI = "pip install 'strop[genai]'"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama of 61 tokens, whose caches hold 64."""
    folder = tmp_path_factory.mktemp("text") / "checkpoint"
    saved(folder, "llama", head_dim=16)
    words = Tokenizer(WordLevel({f"w{i}": i for i in range(61)}, unk_token="w0"))
    words.pre_tokenizer = Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def out(checkpoint: Path) -> Path:
    source = load_source(f"hf:{checkpoint}#text-generation")
    return build(source, checkpoint.parent / "out", instruments="off").path


@pytest.mark.slow
def test_both_kinds_of_tokens_are_timed_against_eager_torch(
    strop: Strop, out: Path, checkpoint: Path, tmp_path: Path
) -> None:
    remember_source(out, f"hf:{checkpoint}#text-generation")
    places = ("--json", tmp_path / "a.json", "--html", tmp_path / "a.html")
    found = strop(
        "bench", out, "--against", "eager", "--shapes", "batch=1,2", "seq=20", *FEW, *places,
        "--fail-if", "latency_ms>0",
    )  # fmt: skip
    assert (found.code, "latency_ms>0: it is" in found.err) == (3, True), found.err
    assert "past=0: to the first token; seq=1: each further token" in found.out
    record = read_record(tmp_path / "a.json")
    assert [case.sizes for case in record.cases] == [
        {"batch": batch, **tokens}
        for batch in (1, 2)
        for tokens in ({"seq": 20, "past": 0}, {"seq": 1, "past": 20})
    ]
    assert (record.inputs, record.baseline) == ("prompts", "eager")
    assert [row.outcome for row in record.engines] == ["ran", "ran"]
    ours = record.engine("strop")
    assert ours.bytes == sum(file.stat().st_size for file in out.glob("*.onnx*"))
    assert ours.peak_memory_bytes and ours.peak_memory_bytes.median > 1e7
    result = record.cases[1].results["strop"]
    assert f"{1000 / result.milliseconds.median:.0f}" in found.out
    assert "<svg" in (tmp_path / "a.html").read_text()
    same = strop("bench", "compare", tmp_path / "a.json", tmp_path / "a.json")
    assert (same.code, "nothing got worse" in same.out) == (0, True)


@pytest.mark.slow
def test_the_builders_of_the_real_package_take_part(
    strop: Strop, out: Path, checkpoint: Path, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime_genai", reason=GENAI)
    found = strop(
        "bench", out, "--source", f"hf:{checkpoint}", "--against", "genai,genai-int8,genai-fp32",
        "--shapes", "batch=2", *FEW, "--json", tmp_path / "a.json",
    )  # fmt: skip
    assert found.code == 0, found.err
    record = read_record(tmp_path / "a.json")
    assert [row.outcome for row in record.engines] == ["ran"] * 4, found.out
    assert len({record.engine(name).bytes for name in record.peers}) == 3


def require_openvino_genai() -> None:
    for package in ("openvino_genai", "optimum.exporters.openvino"):
        pytest.importorskip(package, reason="pip install openvino-genai optimum-intel")


@pytest.mark.slow
def test_weights_for_openvino_genai_are_of_few_bits(checkpoint: Path, tmp_path: Path) -> None:
    require_openvino_genai()
    isolated(text_peers.export_openvino, f"hf:{checkpoint}", tmp_path, "", timeout=300)
    weights = tmp_path / "openvino" / "openvino_model.bin"
    assert weights.stat().st_size < (checkpoint / "model.safetensors").stat().st_size / 2


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 2])
def test_openvino_genai_takes_part_with_one_text_at_a_time(
    strop: Strop, out: Path, checkpoint: Path, tmp_path: Path, batch: int
) -> None:
    require_openvino_genai()
    found = strop(
        "bench", out, "--source", f"hf:{checkpoint}", "--against", "openvino-genai",
        "--shapes", f"batch={batch}", *FEW, "--json", tmp_path / "a.json",
    )  # fmt: skip
    assert found.code == 0, found.err
    row = read_record(tmp_path / "a.json").engine("openvino-genai")
    assert row.outcome == ("ran" if batch == 1 else "failed"), row.reason
    assert batch == 1 or "time batch=1" in (row.reason or "")


def test_the_engines_make_the_same_tokens(out: Path, checkpoint: Path) -> None:
    mine = written(Loop("strop", 1, out), PROMPT_IDS, 12)
    assert mine.shape == (2, 12)
    np.testing.assert_array_equal(
        mine, written(Transformers("eager", 1, checkpoint), PROMPT_IDS, 12)
    )


def test_the_real_package_makes_the_same_tokens(out: Path) -> None:
    pytest.importorskip("onnxruntime_genai", reason=GENAI)
    theirs = written(Genai("genai", 1, out), PROMPT_IDS, 12)
    np.testing.assert_array_equal(theirs, written(Loop("strop", 1, out), PROMPT_IDS, 12))


def ending(out: Path, folder: Path, file: str, part: str, name: str, token: int) -> Path:
    """The artifact, where a file says that this token ends a text."""
    shutil.copytree(out, folder)
    values = json.loads((folder / file).read_text())
    values[part][name] = [token]
    (folder / file).write_text(json.dumps(values))
    return folder


def test_no_token_ends_a_text_that_is_timed(out: Path, tmp_path: Path) -> None:
    usual = written(Loop("strop", 1, out), PROMPT_IDS, 12)
    token = int(usual[0, 2])
    folder = ending(out, tmp_path / "ending", "manifest.json", "generation", "eos", token)
    np.testing.assert_array_equal(written(Loop("strop", 1, folder), PROMPT_IDS, 12), usual)


def test_no_token_ends_a_text_in_the_real_package(out: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime_genai", reason=GENAI)
    usual = written(Genai("genai", 1, out), PROMPT_IDS, 12)
    token = int(usual[0, 2])
    folder = ending(out, tmp_path / "ending", "genai_config.json", "model", "eos_token_id", token)
    assert written(Genai("genai", 1, folder), PROMPT_IDS, 12).shape == (2, 12)


class Slow(decoding.Writer):
    """On a clock of its own: some time to the first token, then 1, 2, 3, ... s to each further."""

    def __init__(self, first: float) -> None:
        self.now, self.asked, self.first = 0.0, [0], first

    def write(self, prompts: Any, count: int, told: decoding.Told) -> None:
        self.asked.append(count)
        for number in range(count):
            self.now += number or self.first
            told([number] * len(prompts))


def test_the_first_token_and_later_ones_are_timed_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    writer = Slow(first=0.25)
    monkeypatch.setattr("strop.bench.harness.decoding.time.perf_counter", lambda: writer.now)
    assert writer.times({PROMPT: PROMPT_IDS}, 3) == [0.25] * 3
    assert writer.times({PROMPT: PROMPT_IDS}, 9) == [0.25] * 4  # a second
    writer.first = 7
    assert writer.times({PROMPT: PROMPT_IDS}, 3) == [7]
    assert writer.times({CACHED: PROMPT_IDS}, 3) == [1, 2, 3]
    assert writer.times({CACHED: PROMPT_IDS}, 99) == list(range(1, NEW + 1))
    assert writer.asked[-1] == NEW + 1
    (made,) = writer.run({PROMPT: PROMPT_IDS})
    assert made.tolist() == [list(range(NEW + 1))] * 2


def described(context: int = 4096, longest: int | None = 4096, batch: Any = "rows") -> Artifact:
    """An artifact of a decoder, of which only the manifest is there."""
    called = {"ids": "ids", "logits": "logits", "context": context, "pad": 0, "bos": 1}
    contract = {
        "inputs": [{"name": "mask", "shape": []}, {"name": "ids", "shape": [batch, "new"]}],
        "outputs": [{"name": "logits", "shape": ["rows", 1, 9]}],
        "dims": [{"name": "rows", "max": 4}, {"name": "new", "max": longest}],
    }
    generation = called | {"eos": [2, 4], "start": [3]}
    return Artifact(Path("out"), {"generation": generation, "contract": contract})


@pytest.mark.parametrize(
    ("limits", "given", "found"),
    [
        ({}, [], [(1, 128), (1, 1024)]),
        ({"longest": None}, [], [(1, 128), (1, 1024)]),
        ({"longest": 600}, [], [(1, 128), (1, 600)]),
        ({"context": 100}, [], [(1, 99 - NEW)]),
        ({"context": NEW + 2}, [], [(1, 1)]),
        ({"batch": 3}, [{"new": 7}], [(3, 7)]),
        ({}, [{"rows": 4, "new": 9}, {"rows": 2}], [(4, 9), (2, 128), (2, 1024)]),
        ({"context": 100}, [{"new": 99 - NEW}], [(1, 99 - NEW)]),
    ],
)
def test_prompts_fit_the_artifact(
    limits: Mapping[str, Any], given: Sequence[Mapping[str, int]], found: list[tuple[int, int]]
) -> None:
    sizes = sizes_of_prompts(described(**limits), given)
    assert [(one["batch"], one["seq"]) for one in sizes] == found


@pytest.mark.parametrize(
    ("context", "given", "says"),
    [
        (100, [{"new": 100 - NEW}], f"new={100 - NEW}: .* {99 - NEW} is the longest prompt"),
        (100, [{"past": 4}], "'past' follows from the prompts; give rows=1,4 new=128,1024"),
        (NEW + 1, [], f"hold {NEW + 1} tokens: there is no room"),
    ],
)
def test_prompts_without_room_are_refused(
    context: int, given: Sequence[Mapping[str, int]], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        sizes_of_prompts(described(context), given)


def test_one_decoder_makes_texts() -> None:
    decoder = described().manifest
    assert makes_texts(Artifact(Path("out"), decoder))
    assert not makes_texts(Artifact(Path("out"), decoder | {"generation": None}))
    assert not makes_texts(Artifact(Path("out"), {"contract": decoder["contract"]}))
    both = {"encoder": decoder, "decoder": decoder}
    assert not makes_texts(Artifact(Path("out"), decoder | {"programs": both}))


def test_prompts_are_drawn_from_tokens_that_are_words() -> None:
    first, later = prompts(described(), [{"batch": 3, "seq": 50}])
    assert (first.sizes, later.sizes) == (
        {"batch": 3, "seq": 50, "past": 0},
        {"batch": 3, "seq": 1, "past": 50},
    )
    np.testing.assert_array_equal(first.feeds[PROMPT], later.feeds[CACHED])
    assert first.feeds[PROMPT].shape == (3, 50)
    assert set(first.feeds[PROMPT].flat) == {5, 6, 7, 8}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--shapes", "batch=0"], "batch=0 is outside the range"),
        (["--shapes", "seq=9999"], "seq=9999 is outside the range"),
        (["--shapes", "seq=64"], f"{63 - NEW} is the longest prompt"),
        (["--shapes", "past=4"], "'past' follows from the prompts"),
        (["--shapes", "sq=4"], "no dim 'sq'; did you mean 'seq'?"),
        (
            ["--against", "ort"],
            "no engine 'ort'; known: eager, genai, genai-fp32, genai-int8, openv",
        ),
        (["--against", "genia"], "no engine 'genia'; did you mean 'genai'?"),
        (["--against", "eager"], "eager run a checkpoint folder of transformers, and the source"),
        (["--source", "model.py:make"], "and model.py:make is none that is on this machine"),
        (["--source", "hf:nowhere"], "and hf:nowhere is none that is on this machine"),
        (["--threads", "99"], "--threads: texts are timed on all cores"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_refused_before_anything_is_measured(
    strop: Strop, out: Path, options: list[str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strop.bench.cli.duels.duel", pytest.fail)
    found = strop("bench", out, *options)
    assert (found.code, says in found.err) == (2, True), found.err
    assert len(found.err.splitlines()) == 1


def test_a_checkpoint_of_another_model_is_refused(
    strop: Strop, out: Path, checkpoint: Path, tmp_path: Path
) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"hidden_size": 99}))
    found = strop("bench", out, "--source", f"hf:{tmp_path}", *FEW)
    assert found.code == 2
    assert "its hidden_size is 99, the artifact's is 32" in found.err


def test_an_artifact_is_timed_alone_where_no_checkpoint_is_known_and_peers_cost_their_rows(
    strop: Strop, out: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = (*FEW, "--shapes", "seq=4", "--json", tmp_path / "a.json")
    remember_source(out, "model.py:make")
    found = strop("bench", out, *few)
    assert (found.code, "made-up inputs" in found.out) == (0, True), found.err
    assert read_record(tmp_path / "a.json").peers == []
    gone = Peer(text_peers._eager, (), ("no_such_package",), "pip install 'strop[nothing]'")
    monkeypatch.setitem(text_peers.TEXT_PEERS, "gone", gone)
    remember_source(out, f"hf:{checkpoint}")
    found = strop("bench", out, "--against", "gone", *few)
    assert found.code == 0, found.err
    assert "gone is missing: no_such_package not installed: pip install 'strop" in found.out


def test_one_program_of_it_is_timed_as_a_whole(strop: Strop, out: Path, tmp_path: Path) -> None:
    few = (*FEW, "--json", tmp_path / "a.json", "--shapes", "batch=1 seq=3 past=5")
    found = strop("bench", out, "--program", "model", *few)
    assert found.code == 0, found.err
    record = read_record(tmp_path / "a.json")
    sizes = {"batch": 1, "seq": 3, "past": 5}
    assert (record.inputs, record.cases[0].sizes) == ("made up", sizes)
