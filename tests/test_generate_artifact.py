"""A built decoder makes texts: from Python, from the command line, and in onnxruntime-genai."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Strop
from decoders import greedy, make
from generate_tools import byte_tokenizer

from strop.compiler import build, load
from strop.compiler.util.errors import UsageError
from strop.compiler.util.visible import visible

SIZES = {"layers": 1, "heads": 2, "kv_heads": 1, "vocabulary": 256}
PROMPTS = [[5, 9, 11, 30, 7], [8, 9], [40, 12, 3]]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("decoder")
    byte_tokenizer(folder)
    model = make(**SIZES)
    model.files = [folder / "tokenizer.json"]
    return build(model, folder / "out", instruments="off").path


def alone(prompt, count):
    """The tokens of one prompt, by the module itself."""
    ids = torch.tensor([prompt])
    model = make(**SIZES)
    return greedy(model.module, model, ids, torch.ones_like(ids), count)[0].tolist()


def rows(tokens, count):
    tokens = list(tokens)
    return [[t.id for t in tokens if t.row == row] for row in range(count)]


def cut(tokens, eos=2):
    return tokens[: tokens.index(eos) + 1] if eos in tokens else tokens


def test_a_batch_of_unequal_prompts_gives_the_tokens_of_the_original(out) -> None:
    made = load(out).generate(PROMPTS, max_new=12)
    assert rows(made, 3) == [cut(alone(prompt, 12)) for prompt in PROMPTS]


def test_beams_are_at_least_as_likely_as_greedy_texts(out) -> None:
    loaded = load(out)

    def likelihood(tokens):
        score, ids = 0.0, list(PROMPTS[0])
        caches = {
            n: np.zeros((1, 1, 0, 8), np.float32)
            for n in loaded.artifact.manifest["generation"]["caches"]
        }
        for token in tokens:
            given = np.array([ids])
            logits = loaded(input_ids=given, attention_mask=np.ones_like(given), **caches)[0][0, -1]
            score += float(logits[token] - np.log(np.exp(logits).sum()))
            ids.append(token)
        return score / len(tokens)

    found = [[t.id for t in loaded.generate(PROMPTS[0], max_new=6, beams=b)] for b in (1, 4)]
    assert likelihood(found[1]) >= likelihood(found[0])


def test_two_streams_of_one_artifact_do_not_disturb_each_other(out) -> None:
    loaded = load(out)
    both = zip(loaded.generate(PROMPTS[0], max_new=4), loaded.generate(PROMPTS[1], max_new=4))
    first, second = zip(*[(a.id, b.id) for a, b in both])
    assert [list(first), list(second)] == [alone(PROMPTS[0], 4), alone(PROMPTS[1], 4)]


def test_an_interrupted_stream_leaves_nothing_behind(out) -> None:
    loaded = load(out)
    stream = loaded.generate(PROMPTS[0], max_new=4)
    next(stream)
    stream.close()
    assert [t.id for t in loaded.generate(PROMPTS[0], max_new=4)] == alone(PROMPTS[0], 4)


def test_the_manifest_says_how_the_artifact_generates(out) -> None:
    manifest = json.loads((out / "manifest.json").read_text())
    generated = manifest["generated"]
    assert generated["agreement"] == 1
    assert {t["case"] for t in generated["texts"]} >= {
        "generate 1 x 1 tokens",
        "generate 3 x 7 tokens",
    }
    assert all(t["max_error"] < 1e-4 and t["equal"] == t["tokens"] for t in generated["texts"])
    known = generated["perplexity"]
    assert known["artifact"] == pytest.approx(known["original"], rel=1e-4)
    # The context is 64.
    assert generated["left_out"] == ["1 x 128 tokens", "3 x 128 tokens"]
    assert "Led along these texts" in (out / "report.html").read_text()


def test_an_artifact_without_caches_makes_no_texts(tmp_path, out) -> None:
    from strop.compiler import Model

    artifact = build(Model(torch.nn.Linear(2, 2).eval(), (torch.ones(1, 2),)), tmp_path / "out")
    with pytest.raises(UsageError, match="makes no texts: it holds no decoder with caches"):
        load(artifact.path).generate([1])
    assert "generated" not in json.loads((artifact.path / "manifest.json").read_text())


def copied(out: Path, folder: Path, change) -> Path:
    """The artifact with another manifest."""
    shutil.copytree(out, folder)
    manifest = json.loads((out / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


CACHE = "past_key_values.0.key"


def spec_of(manifest, name):
    return next(spec for spec in manifest["contract"]["inputs"] if spec["name"] == name)


@pytest.mark.parametrize(
    "change, what",
    [
        (lambda m: m["generation"]["caches"].update(other="x"), "names the input 'other'"),
        (lambda m: m["generation"].update(ids="input_id"), "did you mean 'input_ids'"),
        (lambda m: m["generation"].update(logits="other"), "no output 'other' scores"),
        (lambda m: m["contract"]["outputs"][0].update(shape=["b", 1, "v"]), "of a fixed size"),
        (lambda m: m["contract"]["outputs"][0].update(shape=[]), "of a fixed size"),
        (lambda m: spec_of(m, CACHE).update(dtype="f8"), f"the cache '{CACHE}' is f8"),
        (lambda m: spec_of(m, CACHE).update(shape=["b", 1, "p"]), f"the cache '{CACHE}' is f32"),
        (lambda m: spec_of(m, CACHE).update(shape=["b", "h", "p", 8]), f"the cache '{CACHE}'"),
        (lambda m: spec_of(m, CACHE).update(shape=["b", 1, "p", "s"]), f"the cache '{CACHE}'"),
    ],
)
def test_a_manifest_that_does_not_fit_is_told(out, tmp_path, change, what) -> None:
    folder = copied(out, tmp_path / "copy", change)
    with pytest.raises(UsageError, match=re.escape(what)):
        load(folder).generate([1])


def test_text_appears_as_it_is_made(out, strop: Strop, monkeypatch) -> None:
    pieces = []
    monkeypatch.setattr("strop.compiler.cli.generate.write", pieces.append)
    found = strop("generate", out, "--prompt", "ab", "--max-new", 6)
    assert (found.code, found.err) == (0, "")
    assert pieces == [*(t.text for t in load(out).generate("ab", max_new=6)), "\n"]


def test_what_does_not_print_is_shown_as_such(out, strop: Strop) -> None:
    found = strop("generate", out, "--prompt", "ab", "--max-new", 40, "--temperature", 3)
    text = "".join(t.text for t in load(out).generate("ab", max_new=40, temperature=3))
    assert found.out == visible(text, lines=True) + "\n" != text + "\n"


def test_a_prompt_may_be_a_file(out, strop: Strop, tmp_path) -> None:
    (tmp_path / "prompt.txt").write_text("ab")
    found = [
        strop("generate", out, "--prompt", prompt, "--max-new", 5).out
        for prompt in ("ab", tmp_path / "prompt.txt")
    ]
    assert found[0] == found[1]
    long = strop("generate", out, "--prompt", "x/" * 3000, "--max-new", 5)
    assert (long.code, "the prompt has 6000 tokens" in long.err) == (2, True)


def test_ids_are_printed_where_ids_are_given(out, strop: Strop) -> None:
    found = strop("generate", out, "--ids", "5,9,11,30,7", "--max-new", 4)
    assert found.out == ",".join(map(str, alone(PROMPTS[0], 4))) + "\n"


def test_options_reach_the_loop(out, strop: Strop) -> None:
    options = ["--max-new", 9, "--temperature", 2, "--top-k", 9, "--top-p", 0.9, "--seed", 4]
    drawn = load(out).generate([5, 6], max_new=9, temperature=2, top_k=9, top_p=0.9, seed=4)
    found = strop("generate", out, "--ids", "5,6", *options)
    assert found.out.strip() == ",".join(str(t.id) for t in drawn)
    beams = load(out).generate([5, 6], max_new=9, beams=3)
    found = strop("generate", out, "--ids", "5,6", "--max-new", 9, "--beams", 3)
    assert found.out.strip() == ",".join(str(t.id) for t in beams)


def test_a_stop_string_ends_the_text(out, strop: Strop) -> None:
    whole = "".join(t.text for t in load(out).generate("ab", max_new=20))
    stop = next(c for c in whole[2:] if c.isprintable())
    found = strop("generate", out, "--prompt", "ab", "--max-new", 20, "--stop", stop)
    assert found.out == visible(whole[: whole.index(stop)], lines=True) + "\n"


@pytest.mark.parametrize(
    "options, what",
    [
        ([], "say what to go on with"),
        (["--prompt", "a", "--ids", "1"], "say what to go on with"),
        (["--ids", "1,x"], "--ids 1,x: write token ids as 1,2,3"),
        (["--ids", "1,256"], "holds the token id 256"),
        (["--ids", "5", "--max-new", "64"], "the prompt has 1 tokens, and 64 new ones make 65"),
        (["--ids", "5", "--top-k", "3"], "give a temperature too"),
        (["--ids", "5", "--max-new", "0"], "max-new is 0"),
    ],
)
def test_bad_options_are_told(out, strop: Strop, options, what) -> None:
    found = strop("generate", out, *options)
    assert (found.code, found.out) == (2, "")
    assert what in found.err


def test_no_ids_start_with_the_first_token_of_texts(out, strop: Strop) -> None:
    found = strop("generate", out, "--ids", "", "--max-new", 3)
    assert found.out.strip() == ",".join(map(str, alone([1], 3)))


SIGNALLED = """
import os, signal, sys
from strop.compiler.targets.onnxruntime.bound import BoundDecoder
step, calls = BoundDecoder.step, []
def slow(self, ids, mask):
    calls.append(ids)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGINT)
    return step(self, ids, mask)
BoundDecoder.step = slow
from strop.compiler.cli.start import main
sys.argv = ["strop", "generate", sys.argv[1], "--ids", "5,9,11,30,7", "--max-new", "9"]
main()
"""


def test_an_interruption_ends_the_line_and_says_so(out, interrupts_heeded) -> None:
    command = [sys.executable, "-c", SIGNALLED, str(out)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 130
    assert found.stdout == ",".join(map(str, alone(PROMPTS[0], 2))) + "\n"
    assert "ended by SIGINT" in found.stderr


def test_nothing_heavy_is_loaded_to_generate(out) -> None:
    code = (
        "import sys; from strop.compiler import load; "
        f"print(sum(1 for _ in load({str(out)!r}).generate([5], max_new=3))); "
        "print({'torch', 'transformers'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split("\n")[1] == "set()"


@pytest.mark.parametrize(
    "limit, code",
    [("min_token_agreement=1.0", 0), ("max_perplexity=0.5", 3)],
)
def test_a_build_is_held_to_how_it_generates(write, tmp_path, strop: Strop, limit, code) -> None:
    source = write(
        f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import decoders
        def make():
            return decoders.make(layers=1, heads=1, kv_heads=1)
        """
    )
    found = strop("build", source, "-o", tmp_path / "out", "--set", f"budget.{limit}")
    assert found.code == code
    if code:
        assert "perplexity is" in found.err and "Nothing was written" in found.err
        assert not (tmp_path / "out").exists()
    else:
        assert "generates: 128 of 128 tokens are the original's; perplexity" in found.out


def in_genai(out, prompts, longest):
    """Greedy texts of prompts, padded on the right, as onnxruntime-genai makes them."""
    genai = pytest.importorskip("onnxruntime_genai", reason="pip install 'strop[genai]'")
    model = genai.Model(str(out))
    parameters = genai.GeneratorParams(model)
    parameters.set_search_options(max_length=longest, batch_size=len(prompts))
    theirs = genai.Generator(model, parameters)
    width = max(map(len, prompts))
    theirs.append_tokens(np.array([p + [0] * (width - len(p)) for p in prompts], np.int32))
    while not theirs.is_done():
        theirs.generate_next_token()
    return [theirs.get_sequence(row)[width:].tolist() for row in range(len(prompts))]


def test_the_real_package_runs_the_folder(out) -> None:
    (found,) = in_genai(out, PROMPTS[:1], 30)
    assert found == [t.id for t in load(out).generate(PROMPTS[0], max_new=25)]


def test_the_real_package_runs_batches_of_unequal_prompts(out) -> None:
    found = in_genai(out, PROMPTS, 16)
    made = rows(load(out).generate(PROMPTS, max_new=11), 3)
    assert [text[: len(own)] for text, own in zip(found, made)] == made


def test_caches_may_lie_in_buffers_of_the_caller(out) -> None:
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["generation"]["shared_buffers"] is True
    settings = json.loads((out / "genai_config.json").read_text())
    assert settings["search"]["past_present_share_buffer"] is True
