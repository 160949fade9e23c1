"""Models of real proportions with few layers, whose time on a GPU is measured."""

from __future__ import annotations

import torch

from strop.compiler import Model

LAYERS = 2


def llama() -> Model:
    """Two layers of Llama-2-7B's proportions at half its width, random, with few words."""
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=1024,
        hidden_size=2048,
        intermediate_size=5504,
        num_hidden_layers=LAYERS,
        num_attention_heads=16,
        num_key_value_heads=16,
        max_position_embeddings=2048,
        use_cache=False,
    )
    return _model(transformers.LlamaModel, config)


def bert() -> Model:
    """Two layers of BERT-large's proportions with random weights."""
    import transformers

    config = transformers.BertConfig(
        vocab_size=1024,
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=LAYERS,
        num_attention_heads=16,
    )
    return _model(transformers.BertModel, config, add_pooling_layer=False)


def _model(kind: type, config: object, **options: object) -> Model:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = kind(config, **options).eval()
        batches = [_batch(2, 64) for _ in range(2)]
    return Model(
        module,
        batches[0],
        {
            "input_ids": {0: ("batch", 1, 8), 1: ("seq", 1, 512)},
            "attention_mask": {0: "batch", 1: "seq"},
        },
        calibration=batches,
    )


def _batch(batch: int, seq: int) -> dict[str, torch.Tensor]:
    ids = torch.randint(0, 1024, (batch, seq))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
