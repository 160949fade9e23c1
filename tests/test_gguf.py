"""GGUF files as decoders with caches, against transformers' own reader."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from decoders import greedy
from folder_tools import generated

from strop.compiler import Model
from strop.compiler.frontend.huggingface import gguf as reading
from strop.compiler.frontend.huggingface import load_folder
from strop.compiler.util.errors import UsageError

_MISSING = [n for n in ("gguf", "accelerate") if importlib.util.find_spec(n) is None]
needs_packages = pytest.mark.skipif(
    bool(_MISSING), reason=f"{', '.join(_MISSING)} is not installed"
)

WIDTH, INNER, LAYERS, HEADS, KV_HEADS = 32, 64, 2, 4, 2


def written(path: Path, architecture: str = "llama") -> Path:
    """A tiny Llama with random weights and a tokenizer of bytes."""
    import gguf
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    words = [*bytes_to_unicode().values(), "th", "the", "<|start|>", "<|end|>"]
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(LAYERS)
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(len(words))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(words)
    writer.add_token_types([1] * 258 + [3, 3])
    writer.add_token_merges(["t h", "th e"])
    writer.add_bos_token_id(258)
    writer.add_eos_token_id(259)
    for name, shape in shapes(len(words)).items():
        values = np.random.default_rng(len(name)).normal(size=shape) * 0.2
        writer.add_tensor(name, values.astype(np.float32) + ("norm" in name))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def shapes(words: int) -> dict[str, tuple[int, ...]]:
    of_layer = {
        "attn_norm": (WIDTH,),
        "attn_q": (WIDTH, WIDTH),
        "attn_k": (WIDTH // 2, WIDTH),
        "attn_v": (WIDTH // 2, WIDTH),
        "attn_output": (WIDTH, WIDTH),
        "ffn_norm": (WIDTH,),
        "ffn_gate": (INNER, WIDTH),
        "ffn_up": (INNER, WIDTH),
        "ffn_down": (WIDTH, INNER),
    }
    found: dict[str, tuple[int, ...]] = {"token_embd.weight": (words, WIDTH)}
    for i in range(LAYERS):
        found |= {f"blk.{i}.{name}.weight": shape for name, shape in of_layer.items()}
    return found | {"output_norm.weight": (WIDTH,), "output.weight": (words, WIDTH)}


@needs_packages
@pytest.mark.parametrize("task", ["", "#text-generation"])
def test_a_file_gives_the_tokens_of_generate(task: str, tmp_path: Path) -> None:
    path = written(tmp_path / "tiny.gguf")
    model = load_folder(f"{path}{task}")
    assert isinstance(model, Model)
    original = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=path.name)
    ids = torch.randint(5, 250, (3, 7), generator=torch.Generator().manual_seed(2))
    mask = torch.arange(7)[None].ge(torch.tensor([0, 3, 6])[:, None]).long()
    assert torch.equal(
        greedy(model.module, model, ids, mask, 10), generated(original.eval(), ids, mask, 10)
    )
    called = model.generation
    assert called is not None
    assert (called.family, called.context, called.bos, called.eos) == ("llama", 64, 258, (259,))


@needs_packages
def test_what_a_server_needs_is_written_from_the_file(tmp_path: Path) -> None:
    model = load_folder(str(written(tmp_path / "tiny.gguf")))
    assert isinstance(model, Model)
    names = {path.name for path in model.files}
    assert names >= {"config.json", "generation_config.json", "tokenizer.json"}
    assert all(path.is_file() for path in model.files)
    assert {p.name for p in tmp_path.iterdir()} == {"tiny.gguf"}
    assert not any("GGUF" in type(part).__name__ for part in model.module.modules())


@needs_packages
def test_a_file_scores_texts_too(tmp_path: Path) -> None:
    model = load_folder(f"{written(tmp_path / 'tiny.gguf')}#text-scoring")
    assert isinstance(model, Model)
    assert model.generation is None
    assert "logits" in model.module(**model.example_inputs)


@needs_packages
def test_an_unknown_architecture_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "tiny.gguf", "sorcery")
    with pytest.raises(UsageError, match="sorcery"):
        load_folder(str(path))


@needs_packages
@pytest.mark.parametrize("kept", [8, 200, 3000, -4000])
def test_a_file_that_is_cut_off_is_refused(kept: int, tmp_path: Path) -> None:
    path = written(tmp_path / "tiny.gguf")
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UsageError, match="transformers could not load the weights of tiny.gguf"):
        load_folder(str(path))


def test_another_file_and_none_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.gguf"
    with pytest.raises(UsageError, match="cannot be read"):
        load_folder(str(path))
    path.write_bytes(b"PK\x03\x04 and so on")
    with pytest.raises(UsageError, match="does not begin with 'GGUF'"):
        load_folder(str(path))


def test_another_task_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is built for text-generation or text-scoring"):
        load_folder(f"{tmp_path / 'tiny.gguf'}#text-classification")


def test_a_package_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"GGUF")
    found: dict[str, Any] = {"gguf": None, "accelerate": object()}
    monkeypatch.setattr(reading, "find_spec", found.__getitem__)
    with pytest.raises(UsageError, match="gguf is missing: pip install 'strop\\[gguf\\]'"):
        load_folder(str(path))
