"""An encoder-decoder as strop builds it: two programs of one set of weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from strop.bench.applications.transformer import (
    END,
    PAD,
    START,
    Decoder,
    Encoder,
    Sizes,
    Weights,
    both_programs,
)
from strop.compiler import Model, Programs
from strop.compiler.frontend.decoder_inputs import DecoderInputs
from strop.compiler.frontend.generation import Generation
from strop.compiler.frontend.model import DimSpec
from strop.compiler.rewriting.context import Batch

_SHAPES = (
    {"batch": 4, "source": 11, "seq": 1, "past": 7},
    {"batch": 3, "source": 7, "seq": 5, "past": 0},
    {"batch": 8, "source": 9, "seq": 1, "past": 3},
)


def generation(sizes: Sizes) -> Generation:
    """How the decoder is called: what it keeps from call to call, and what the encoder gives it."""
    names = [f"{i}.{kind}" for i in range(sizes.layers) for kind in ("key", "value")]
    return Generation(
        caches={f"past_key_values.{name}": f"present.{name}" for name in names},
        cross={f"cross.{name}": f"cross.{name}" for name in names},
        context=sizes.context,
        start=(START,),
        eos=(END,),
        pad=PAD,
    )


def programs(weights: Weights, sizes: Sizes, batches: Sequence[Batch], tokenizer: Path) -> Programs:
    """Both programs of a Transformer's weights, pruned or not.

    Args:
        weights: by the names that they have in ``Transformer``.
        sizes: of the Transformer before it was pruned.
        batches: source and target tokens to calibrate with; the checks use them too.
        tokenizer: a file ``tokenizer.json``, which is copied beside the programs.
    """
    encoder, decoder = both_programs(weights, sizes)
    return Programs(
        {
            "encoder": _encoder_model(encoder, sizes, batches),
            "decoder": _decoder_model(decoder, encoder, sizes, batches),
        },
        generation=generation(sizes),
        files=[tokenizer],
    )


def _encoder_model(encoder: Encoder, sizes: Sizes, batches: Sequence[Batch]) -> Model:
    sources = [{n: batch[n] for n in ("input_ids", "attention_mask")} for batch in batches]
    axes: dict[int, DimSpec] = {0: ("batch", 1, 64), 1: ("source", 1, sizes.context)}
    return Model(encoder, sources[0], dynamic=dict.fromkeys(sources[0], axes), calibration=sources)


def _decoder_model(
    decoder: Decoder, encoder: Encoder, sizes: Sizes, batches: Sequence[Batch]
) -> Model:
    called, shown = generation(sizes), batches[len(batches) // 2]

    def read(shape: Mapping[str, int]) -> dict[str, Tensor]:
        source = _cropped(shown["input_ids"], shape["batch"], shape["source"])
        mask = source.ne(PAD).long()
        with torch.no_grad():
            return {**encoder(source, mask), "encoder_attention_mask": mask}

    cross = read({"batch": 1, "source": 1})
    empty = {past: cross[name][:, :, :0] for past, name in zip(called.caches, called.cross)}
    inputs_at = DecoderInputs(decoder, called, shown["decoder_input_ids"], empty, read)
    calibration = [inputs_at(shape) for shape in _SHAPES]
    return Model(
        decoder,
        calibration[0],
        dynamic=_decoder_axes(called, sizes.context),
        calibration=calibration,
        inputs_at=inputs_at,
    )


def _decoder_axes(called: Generation, context: int) -> dict[str, dict[int, DimSpec]]:
    batch, source = ("batch", 1, 64), ("source", 1, context)
    seq, past = ("seq", 1, context), ("past", 0, context - 1)
    total = ("past + seq", 1, context)
    return {
        "input_ids": {0: batch, 1: seq},
        "attention_mask": {0: batch, 1: total},
        "encoder_attention_mask": {0: batch, 1: source},
        **{name: {0: batch, 2: past} for name in called.caches},
        **{name: {0: batch, 2: source} for name in called.cross},
    }


def _cropped(ids: Tensor, rows: int, length: int) -> Tensor:
    """Ids of other sizes, [rows, length]: rows and their tokens are repeated, or left out."""
    tokens = ids[torch.arange(rows) % len(ids)]
    return tokens[:, torch.arange(length) % ids.shape[1]]
