"""``genai_config.json``: by it onnxruntime-genai runs an artifact as it is.

Fields: ``src/config.h`` of onnxruntime-genai 0.18.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from strop.compiler.frontend.generation import Generation
from strop.compiler.ir.contract import Contract

# Model types of onnxruntime-genai that are decoders with a cache of keys and values for each layer.
_TYPES = {
    *("chatglm", "ernie4_5", "gemma", "gemma2", "gemma3_text", "gptoss", "granite", "internlm2"),
    *("llama", "mistral", "nemotron", "olmo", "phi", "phi3", "phimoe", "qwen2", "qwen3", "smollm3"),
}
_OTHER_NAMES = {"gemma3": "gemma3_text", "gpt_oss": "gptoss"}
# All of them are called in the same way. What the others stand for is computed in the graph.
_PLAIN = "llama"
# A decoder of several files, of which some are run on prompts alone.
_PIPELINE = "decoder-pipeline"


def genai_config(
    generation: Generation, shared_buffers: bool, contract: Contract, file: str, prefill: str = ""
) -> dict[str, Any] | None:
    """The settings for a decoder; None for what onnxruntime-genai cannot be told.

    Args:
        generation: how the decoder is called.
        shared_buffers: whether past and present of a cache may be one buffer.
        contract: of the decoder.
        file: the name of its file.
        prefill: the name of a file of the same decoder, for prompts; "" where there is none.
    """
    shapes = {spec.name: tuple(spec.shape) for spec in (*contract.inputs, *contract.outputs)}
    kept = {shapes[name][1::2] for name in generation.caches}
    past, present = _patterns(list(generation.caches)), _patterns(list(generation.caches.values()))
    if generation.cross or len(kept) != 1 or past is None or present is None:
        return None
    if generation.suppressed or generation.suppressed_first or generation.last is not None:
        return None
    ((heads, size),) = kept
    if not (isinstance(heads, int) and isinstance(size, int)):
        return None
    decoder = _files(file, prefill, contract) | {
        "head_size": size,
        "hidden_size": generation.sizes.get("hidden_size", heads * size),
        "inputs": {
            "input_ids": generation.ids,
            "attention_mask": generation.mask,
            "past_key_names": past[0],
            "past_value_names": past[1],
        },
        "outputs": {
            "logits": generation.logits,
            "present_key_names": present[0],
            "present_value_names": present[1],
        },
        "num_attention_heads": generation.sizes.get("num_attention_heads", heads),
        "num_hidden_layers": len(generation.caches) // 2,
        "num_key_value_heads": heads,
        "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
    }
    model = _tokens(generation) | {
        "context_length": generation.context,
        "decoder": decoder,
        "type": _PIPELINE if prefill else _type(generation.family),
        "vocab_size": shapes[generation.logits][-1],
    }
    search = {"max_length": generation.context, "past_present_share_buffer": shared_buffers}
    return {"model": model, "search": search}


def _files(file: str, prefill: str, contract: Contract) -> dict[str, Any]:
    """The file, or those that are run on prompts and on single tokens."""
    if not prefill:
        return {"filename": file}
    values = {
        "inputs": [spec.name for spec in contract.inputs],
        "outputs": [spec.name for spec in contract.outputs],
    }
    stages = {"prefill": (prefill, True), "decode": (file, False)}
    return {
        "pipeline": [
            {
                name: {
                    "filename": its_file,
                    **values,
                    "run_on_prompt": is_first,
                    "run_on_token_gen": not is_first,
                }
            }
            for name, (its_file, is_first) in stages.items()
        ]
    }


def _type(family: str) -> str:
    name = _OTHER_NAMES.get(family, family)
    return name if name in _TYPES else _PLAIN


def _tokens(generation: Generation) -> dict[str, Any]:
    """Ids of the tokens that start, end and fill texts."""
    start = {} if generation.bos is None else {"bos_token_id": generation.bos}
    return start | {"eos_token_id": list(generation.eos), "pad_token_id": generation.pad}


def _patterns(names: Sequence[str]) -> tuple[str, str] | None:
    """Names of keys and values with %d for the number of the layer, where all are of this form."""
    if not names or len(names) % 2:
        return None
    keys, values = _pattern(names[::2]), _pattern(names[1::2])
    return None if keys is None or values is None else (keys, values)


def _pattern(names: Sequence[str]) -> str | None:
    pattern = names[0].replace("%", "%%").replace("0", "%d", 1)
    numbered = [pattern % i for i in range(len(names))] if pattern.count("%d") == 1 else []
    return pattern if numbered == list(names) else None
