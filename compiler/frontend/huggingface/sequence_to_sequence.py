"""A folder of an encoder-decoder as two programs: an encoder, and a decoder with caches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from strop.compiler.frontend.decoder_inputs import DecoderInputs
from strop.compiler.frontend.huggingface.checkpoint import Checkpoint
from strop.compiler.frontend.huggingface.encoder_decoder import (
    ENCODER_MASK,
    CrossDecoder,
    CrossEncoder,
    encoder_and_decoder,
)
from strop.compiler.frontend.huggingface.examples import Axes, Batch, Examples, at_sizes
from strop.compiler.frontend.huggingface.generation_settings import (
    context_of,
    decoder_axes,
    describe,
    require_vocabulary,
    settings_of,
    token_ids,
)
from strop.compiler.frontend.huggingface.inputs_text import token_rows
from strop.compiler.frontend.huggingface.limits import own_limit
from strop.compiler.frontend.huggingface.request import Request
from strop.compiler.frontend.huggingface.settings import number, text_config
from strop.compiler.frontend.huggingface.text_generation import (
    example_sizes,
    example_text,
    require_same_scores,
)
from strop.compiler.frontend.model import DimSpec, Model
from strop.compiler.frontend.programs import Programs
from strop.compiler.util.errors import UsageError

_MASK = "attention_mask"


@dataclass(frozen=True)
class _Source:
    """What the decoder looks at: the encoder's keys and values of the example, at any sizes."""

    encoder: CrossEncoder
    batch: Batch
    axes: Axes

    def __call__(self, sizes: Mapping[str, int]) -> dict[str, Tensor]:
        given = self.given(sizes)
        with torch.no_grad():
            cross: dict[str, Tensor] = self.encoder(**given)
        return cross | ({ENCODER_MASK: given[_MASK]} if _MASK in given else {})

    def given(self, sizes: Mapping[str, int]) -> Batch:
        """What the encoder is given."""
        return at_sizes(self.batch, self.axes, dict(sizes))

    @property
    def dims(self) -> dict[str, DimSpec]:
        """The dims of the encoder but batch, as its axes declare them."""
        specs = [spec for axes in self.axes.values() for spec in axes.values()]
        named = {spec if isinstance(spec, str) else spec[0]: spec for spec in specs}
        return {name: spec for name, spec in named.items() if name != "batch"}

    @property
    def lengths(self) -> dict[str, int]:
        """The sizes of these dims in the example."""
        return {
            spec if isinstance(spec, str) else spec[0]: self.batch[name].shape[axis]
            for name, axes in self.axes.items()
            for axis, spec in axes.items()
            if axis
        }


def sequence_to_sequence(
    checkpoint: Checkpoint, tokenizer: Any, examples: Examples, request: Request
) -> Programs:
    """Encoder and decoder of a folder, without files.

    Args:
        checkpoint: of an encoder-decoder.
        tokenizer: of the folder; None if it has none.
        examples: inputs of the encoder.
        request: what the user asks for.

    Raises:
        UsageError: it has no vocabulary, takes less than was asked for, names no token that its
            texts start with, or cannot be called with caches of keys and values.
    """
    module = checkpoint.module
    require_vocabulary(module, request)
    limit = number(text_config(module.config), "max_target_positions")
    context, notes = context_of(module, limit or own_limit(module, tokenizer), request)
    encoder, decoder = encoder_and_decoder(module, examples.batches[0], str(request))
    generation, more = describe(
        module,
        tokenizer,
        context,
        decoder.caches,
        decoder.presents,
        start=_start(module, tokenizer, request),
        cross={name: name for name in encoder.cross},
    )
    text = example_text(token_rows(checkpoint, tokenizer, context))
    source = _Source(encoder, examples.batches[0], _source_axes(examples))
    inputs_at = DecoderInputs(decoder, generation, text, decoder.caches, source)
    _require_equal(inputs_at, source, module, request)
    batches = examples.batches
    return Programs(
        {
            "encoder": Model(encoder, batches[0], source.axes, calibration=batches),
            "decoder": _decoder_model(decoder, inputs_at, source),
        },
        generation,
        notes=[*checkpoint.notes, *examples.notes, *notes, *more],
    )


def _source_axes(examples: Examples) -> Axes:
    """The encoder's dims, with the number of tokens called source: new ones are the decoder's."""

    def renamed(spec: DimSpec) -> DimSpec:
        name, ends = (spec, ()) if isinstance(spec, str) else (spec[0], spec[1:])
        name = "source" if name == "seq" else name
        return (name, *ends) if ends else name

    return {n: {axis: renamed(s) for axis, s in axes.items()} for n, axes in examples.axes.items()}


def _decoder_model(decoder: CrossDecoder, inputs_at: DecoderInputs, source: _Source) -> Model:
    generation = inputs_at.generation
    batches = [inputs_at(sizes | source.lengths) for sizes in example_sizes(generation.context)]
    axes = decoder_axes(generation)
    for name in (*decoder.cross, ENCODER_MASK):
        if name in batches[0]:
            axes[name] = {0: "batch"}
            for spec in source.dims.values():
                axes[name][1 if name == ENCODER_MASK else 2] = spec
    return Model(
        decoder,
        example_inputs=batches[0],
        dynamic=axes,
        calibration=batches,
        inputs_at=inputs_at,
    )


def _start(module: Any, tokenizer: Any, request: Request) -> tuple[int, ...]:
    """The tokens that the decoder starts with, those that are forced behind the first among them.

    Raises:
        UsageError: none is named.
    """
    settings = settings_of(module, tokenizer)
    first = token_ids(settings, "decoder_start_token_id") or token_ids(settings, "bos_token_id")
    if not first:
        raise UsageError(
            f"{request}: neither generation_config.json nor config.json names the token that its "
            "texts start with (decoder_start_token_id)"
        )
    forced = next((f for s in settings if (f := getattr(s, "forced_decoder_ids", None))), ())
    behind = [token for _, token in sorted(forced) if type(token) is int]
    # Whisper's: without it, times stand between the words.
    behind += [t for t in token_ids(settings, "no_timestamps_token_id") if t not in behind]
    return (*first[:1], *token_ids(settings, "forced_bos_token_id"), *behind)


def _require_equal(inputs_at: DecoderInputs, source: _Source, whole: Any, request: Request) -> None:
    """Check that encoder and decoder give the scores of the whole model.

    Raises:
        UsageError: they do not.
    """
    context = min(inputs_at.generation.context, inputs_at.text.shape[1], 12)
    seq = max(context // 4, 1)
    sizes = {"batch": 1, "seq": seq, "past": context - seq} | source.lengths
    with torch.no_grad():
        got = inputs_at.module(**inputs_at(sizes))["logits"][0, -1]
        ids = inputs_at.text[:1, :context]
        expected = whole(**source.given(sizes), decoder_input_ids=ids).logits[0, -1]
    require_same_scores(got, expected, f"{request}: {type(whole).__name__}")
