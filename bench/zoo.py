"""The zoo: small models of every common architecture, with random weights.

Each entry is a factory of a ``Model`` and the number of attention operators it should end up
with: one for each attention layer, cross attention included. Nothing is downloaded: models of
``transformers`` are made from their config classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from strop.compiler import Model

VOCABULARY = 61
Axes = dict[int, Any]
BATCH: Axes = {0: ("batch", 1, 3)}
TEXT: Axes = BATCH | {1: ("seq", 2, 24)}
TARGET_TEXT: Axes = BATCH | {1: ("target", 2, 16)}


@dataclass(frozen=True)
class ZooModel:
    """One model of the zoo.

    Attributes:
        make: makes the model, with its dynamic dims, the same each time.
        attention: how many attention operators the built artifact should have.
    """

    make: Callable[[], Model]
    attention: int

    def static(self) -> Model:
        """The model at the sizes of its example inputs only."""
        model = self.make()
        model.dynamic = None
        return model


ZOO: dict[str, ZooModel] = {}


def _enter(name: str, attention: int = 0) -> Callable[[Callable[[], Model]], Callable[[], Model]]:
    """Enter the decorated factory into the zoo."""

    def enter(make: Callable[[], Model]) -> Callable[[], Model]:
        ZOO[name] = ZooModel(make, attention)
        return make

    return enter


def randomize(module: nn.Module) -> nn.Module:
    """Give every weight and statistic a value that matters, the same each time.

    Freshly made norms are identities, biases are zero, and weights are so small that attention
    is a plain mean: a wrong rewrite could pass unseen.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() < 2:
                parameter.add_(0.1 * noise)
            else:
                parameter.copy_(noise / math.sqrt(parameter[0].numel()))
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(0.1 * torch.randn(buffer.shape, generator=generator))
            elif name.endswith("running_var"):
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    return module.eval()


def _from_transformers(kind: str, config: str, **options: Any) -> nn.Module:
    """A randomized model of a class of ``transformers``, from a config class."""
    import transformers

    settings = getattr(transformers, config)(**options)
    return randomize(getattr(transformers, kind)(settings))


def ids(length: int = 9, batch: int = 2) -> Tensor:
    """Token ids without the special ones, int64 [batch, length]."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(5, VOCABULARY, (batch, length), generator=generator)


def mask(length: int = 9, batch: int = 2) -> Tensor:
    """A padding mask whose second row ends three positions early, int64 [batch, length]."""
    result = torch.ones(batch, length, dtype=torch.int64)
    result[1, -3:] = 0
    return result


def _noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(2))


def _text(module: nn.Module) -> Model:
    return Model(
        module,
        {"input_ids": ids(), "attention_mask": mask()},
        dynamic={"input_ids": TEXT, "attention_mask": TEXT},
    )


def _two_texts(module: nn.Module) -> Model:
    return Model(
        module,
        {"input_ids": ids(), "attention_mask": mask(), "decoder_input_ids": ids(6)},
        dynamic={"input_ids": TEXT, "attention_mask": TEXT, "decoder_input_ids": TARGET_TEXT},
    )


def _image(module: nn.Module, name: str = "pixel_values", size: int = 32) -> Model:
    return Model(module, {name: _noise(2, 3, size, size)}, dynamic={name: BATCH})


SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 32,
}
DECODER = SMALL | {"use_cache": False, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
GROUPED = DECODER | {"num_key_value_heads": 2}
IMAGE = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}


@_enter("bert", attention=2)
def bert() -> Model:
    return _text(_from_transformers("BertModel", "BertConfig", **SMALL))


@_enter("distilbert", attention=2)
def distilbert() -> Model:
    return _text(
        _from_transformers(
            "DistilBertModel",
            "DistilBertConfig",
            vocab_size=VOCABULARY,
            dim=32,
            n_layers=2,
            n_heads=4,
            hidden_dim=64,
            max_position_embeddings=32,
        )
    )


@_enter("roberta", attention=2)
def roberta() -> Model:
    return _text(_from_transformers("RobertaForSequenceClassification", "RobertaConfig", **SMALL))


@_enter("electra", attention=2)
def electra() -> Model:
    return _text(
        _from_transformers(
            "ElectraForTokenClassification", "ElectraConfig", embedding_size=16, **SMALL
        )
    )


@_enter("deberta-v2", attention=2)
def deberta_v2() -> Model:
    return _text(
        _from_transformers(
            "DebertaV2Model",
            "DebertaV2Config",
            relative_attention=True,
            pos_att_type=["c2p", "p2c"],
            position_buckets=8,
            norm_rel_ebd="layer_norm",
            share_att_key=True,
            position_biased_input=False,
            **SMALL,
        )
    )


@_enter("gpt2", attention=2)
def gpt2() -> Model:
    return _text(
        _from_transformers(
            "GPT2LMHeadModel",
            "GPT2Config",
            vocab_size=VOCABULARY,
            n_embd=32,
            n_layer=2,
            n_head=4,
            n_positions=32,
            use_cache=False,
            bos_token_id=1,
            eos_token_id=2,
        )
    )


@_enter("gpt-neox", attention=2)
def gpt_neox() -> Model:
    return _text(_from_transformers("GPTNeoXForCausalLM", "GPTNeoXConfig", **DECODER))


@_enter("llama", attention=3)
def llama() -> Model:
    options = GROUPED | {"num_hidden_layers": 3}
    return _text(_from_transformers("LlamaForCausalLM", "LlamaConfig", **options))


@_enter("mistral", attention=2)
def mistral() -> Model:
    return _text(
        _from_transformers("MistralForCausalLM", "MistralConfig", sliding_window=6, **GROUPED)
    )


@_enter("qwen2", attention=2)
def qwen2() -> Model:
    return _text(_from_transformers("Qwen2ForCausalLM", "Qwen2Config", **GROUPED))


@_enter("qwen3", attention=2)
def qwen3() -> Model:
    return _text(_from_transformers("Qwen3ForCausalLM", "Qwen3Config", head_dim=16, **GROUPED))


@_enter("gemma", attention=2)
def gemma() -> Model:
    options = GROUPED | {"num_key_value_heads": 1}
    return _text(_from_transformers("GemmaForCausalLM", "GemmaConfig", head_dim=8, **options))


@_enter("phi", attention=2)
def phi() -> Model:
    return _text(_from_transformers("PhiForCausalLM", "PhiConfig", **DECODER))


@_enter("t5", attention=6)
def t5() -> Model:
    return _two_texts(
        _from_transformers(
            "T5ForConditionalGeneration",
            "T5Config",
            vocab_size=VOCABULARY,
            d_model=32,
            d_kv=8,
            d_ff=64,
            num_layers=2,
            num_heads=4,
            relative_attention_num_buckets=8,
            relative_attention_max_distance=16,
            use_cache=False,
            decoder_start_token_id=0,
        )
    )


SEQ2SEQ = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 32,
    "use_cache": False,
    "pad_token_id": 1,
    "decoder_start_token_id": 2,
}


@_enter("bart", attention=6)
def bart() -> Model:
    return _two_texts(_from_transformers("BartForConditionalGeneration", "BartConfig", **SEQ2SEQ))


@_enter("marian", attention=6)
def marian() -> Model:
    return _two_texts(_from_transformers("MarianMTModel", "MarianConfig", **SEQ2SEQ))


@_enter("vit", attention=2)
def vit() -> Model:
    return _image(_from_transformers("ViTForImageClassification", "ViTConfig", **IMAGE))


@_enter("clip", attention=4)
def clip() -> Model:
    module = _from_transformers(
        "CLIPModel",
        "CLIPConfig",
        text_config=SMALL | {"eos_token_id": 2},
        vision_config=IMAGE,
        projection_dim=16,
    )
    inputs = {"input_ids": ids(), "pixel_values": _noise(2, 3, 32, 32), "attention_mask": mask()}
    images: Axes = {0: ("images", 1, 3)}
    dynamic = {"input_ids": TEXT, "pixel_values": images, "attention_mask": TEXT}
    return Model(module, inputs, dynamic=dynamic)


@_enter("swin", attention=4)
def swin() -> Model:
    # Windows of 4 on a 16x16 grid: the second block of the first stage shifts them.
    return _image(
        _from_transformers(
            "SwinForImageClassification",
            "SwinConfig",
            image_size=32,
            patch_size=2,
            embed_dim=16,
            depths=[2, 2],
            num_heads=[2, 4],
            window_size=4,
        )
    )


@_enter("convnext")
def convnext() -> Model:
    return _image(
        _from_transformers(
            "ConvNextForImageClassification",
            "ConvNextConfig",
            hidden_sizes=[16, 32],
            depths=[1, 2],
            num_stages=2,
            image_size=32,
        )
    )


@_enter("resnet")
def resnet() -> Model:
    return _image(
        _from_transformers(
            "ResNetForImageClassification",
            "ResNetConfig",
            embedding_size=16,
            hidden_sizes=[16, 32],
            depths=[1, 2],
            layer_type="basic",
        )
    )


@_enter("mobilenet-v2")
def mobilenet_v2() -> Model:
    return _image(
        _from_transformers(
            "MobileNetV2ForImageClassification",
            "MobileNetV2Config",
            depth_multiplier=0.25,
            image_size=32,
            min_depth=8,
        )
    )


@_enter("whisper", attention=6)
def whisper() -> Model:
    module = _from_transformers(
        "WhisperForConditionalGeneration",
        "WhisperConfig",
        vocab_size=VOCABULARY,
        num_mel_bins=16,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_source_positions=20,
        max_target_positions=32,
        use_cache=False,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    # The encoder takes exactly twice as many frames as it has positions.
    inputs = {"input_features": _noise(2, 16, 40), "decoder_input_ids": ids(6)}
    return Model(
        module, inputs, dynamic={"input_features": BATCH, "decoder_input_ids": TARGET_TEXT}
    )


@_enter("wav2vec2", attention=2)
def wav2vec2() -> Model:
    module = _from_transformers(
        "Wav2Vec2ForCTC",
        "Wav2Vec2Config",
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        conv_dim=[16, 16],
        conv_stride=[5, 2],
        conv_kernel=[10, 3],
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
    )
    samples: Axes = BATCH | {1: ("samples", 200, 800)}
    return Model(module, {"input_values": _noise(2, 500)}, dynamic={"input_values": samples})


class EncoderLayer(nn.Module):
    """Self-attention and a ReLU feed-forward, each with a residual sum and a norm after it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        """x: [batch, seq, width]; padding: bool [batch, seq], True where there is no token."""
        seen, _ = self.attention(x, x, x, key_padding_mask=padding, need_weights=False)
        x = self.norm1(x + seen)
        return self.norm2(x + self.down(F.relu(self.up(x))))  # type: ignore[no-any-return]


class DecoderLayer(nn.Module):
    """Causal self-attention, cross attention and a feed-forward, each followed by a norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.cross = nn.MultiheadAttention(width, heads, batch_first=True)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))

    def forward(self, y: Tensor, memory: Tensor, padding: Tensor, future: Tensor) -> Tensor:
        """future: bool [target, target], True where a position may not look."""
        seen, _ = self.attention(y, y, y, attn_mask=future, need_weights=False)
        y = self.norm1(y + seen)
        read, _ = self.cross(y, memory, memory, key_padding_mask=padding, need_weights=False)
        y = self.norm2(y + read)
        return self.norm3(y + self.down(F.relu(self.up(y))))  # type: ignore[no-any-return]


def sinusoids(length: int, width: int) -> Tensor:
    """The fixed position encodings of Vaswani et al. (2017), [length, width]."""
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    angles = torch.arange(length)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


class TextbookTransformer(nn.Module):
    """An encoder-decoder as in "Attention Is All You Need", with ``nn.MultiheadAttention``."""

    positions: Tensor

    def __init__(self, width: int = 32, heads: int = 4, layers: int = 2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.register_buffer("positions", sinusoids(32, width))
        self.encoder = nn.ModuleList(EncoderLayer(width, heads) for _ in range(layers))
        self.decoder = nn.ModuleList(DecoderLayer(width, heads) for _ in range(layers))
        self.head = nn.Linear(width, VOCABULARY, bias=False)
        self.head.weight = self.embedding.weight

    def embed(self, tokens: Tensor) -> Tensor:
        """[batch, seq] -> [batch, seq, width]."""
        scaled: Tensor = self.embedding(tokens) * math.sqrt(self.embedding.embedding_dim)
        return scaled + self.positions[: tokens.shape[1]]

    def forward(self, source: Tensor, source_mask: Tensor, target: Tensor) -> Tensor:
        """Logits [batch, target, vocabulary]."""
        padding = source_mask == 0
        x = self.embed(source)
        for layer in self.encoder:
            x = layer(x, padding)
        length = target.shape[1]
        future = torch.triu(torch.ones(length, length, dtype=torch.bool), diagonal=1)
        y = self.embed(target)
        for layer in self.decoder:
            y = layer(y, x, padding, future)
        return self.head(y)  # type: ignore[no-any-return]


@_enter("textbook", attention=6)
def textbook() -> Model:
    inputs = {"source": ids(), "source_mask": mask(), "target": ids(6)}
    return Model(
        randomize(TextbookTransformer()),
        inputs,
        dynamic={"source": TEXT, "source_mask": TEXT, "target": TARGET_TEXT},
    )


class EagerBlock(nn.Module):
    """A pre-norm block whose attention is written out: matmul, mask, softmax, matmul."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def attend(self, x: Tensor) -> Tensor:
        """Causal self-attention, [batch, seq, width] -> the same."""
        batch, length, width = x.shape
        q, k, v = (
            t.view(batch, length, self.heads, width // self.heads).transpose(1, 2)
            for t in self.qkv(x).chunk(3, dim=-1)
        )
        scores = q @ k.transpose(-2, -1) / math.sqrt(width // self.heads)
        causal = torch.tril(torch.ones(length, length)).view(1, 1, length, length)
        scores = scores.masked_fill(causal == 0, float("-inf"))
        seen = F.softmax(scores, dim=-1) @ v
        seen = seen.transpose(1, 2).contiguous().view(batch, length, width)
        return self.out(seen)  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        """[batch, seq, width] -> the same."""
        x = x + self.attend(self.norm1(x))
        return x + self.down(F.gelu(self.up(self.norm2(x))))  # type: ignore[no-any-return]


class EagerTransformer(nn.Module):
    """A small GPT as people write it by hand."""

    def __init__(self, width: int = 32, heads: int = 4, layers: int = 2) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(VOCABULARY, width), nn.Embedding(32, width)
        self.blocks = nn.ModuleList(EagerBlock(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, VOCABULARY, bias=False)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Logits [batch, seq, vocabulary]."""
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        x = self.tokens(input_ids) + self.positions(positions)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))  # type: ignore[no-any-return]


@_enter("eager-gpt", attention=2)
def eager_gpt() -> Model:
    module = randomize(EagerTransformer())
    return Model(module, {"input_ids": ids()}, dynamic={"input_ids": TEXT})


def attention_found(manifest: Mapping[str, Any]) -> int:
    """Rewrites by rules for attention, from the pass counters of a manifest."""
    return sum(
        count
        for record in manifest["passes"]
        for rule, count in record["rewrites"].items()
        if rule.startswith("attention")
    )
