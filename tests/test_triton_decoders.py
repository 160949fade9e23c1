"""Decoders with caches as launch plans: a prompt, then a token at a time, against the module."""

from __future__ import annotations

from functools import cache

import decoders
import numpy as np
import pytest
import torch
from test_triton_recipes import optimized
from torch import Tensor
from triton_tools import plan_of, session_of

from strop.compiler import Model
from strop.compiler.frontend.export.capture import capture
from strop.compiler.frontend.inputs import read_inputs
from strop.compiler.ir.program import Program
from strop.compiler.targets.decoding import FedDecoder, Start, names_of
from strop.compiler.targets.triton.decoder import PlanDecoder
from strop.compiler.targets.triton.plan import ChoiceValues, all_steps
from strop.compiler.util.errors import RuntimeRefusedError

IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12], [0, 0, 13, 14]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 1], [0, 0, 1, 1]])
NEXT = torch.tensor([[15, 16], [17, 18], [19, 20]])


@cache
def lowered() -> tuple[Model, Program]:
    model = decoders.make()
    signature, example, _ = read_inputs(model)
    with torch.no_grad():
        program = capture(model.module, signature, example)
    return model, optimized(program, "triton-fp16")


def test_attention_over_the_cache_is_a_kernel_for_one_token_or_for_many() -> None:
    program, layers = lowered()[1], decoders.Sizes().layers
    plan, _ = plan_of(program)
    choices = [step for step in plan.steps if isinstance(step, ChoiceValues)]
    assert [(step.when, step.sizes) for step in choices] == [
        ("queries == 1", {"queries": "seq"})
    ] * layers
    made = [[one.kernel for one in all_steps(step.then)] for step in choices]  # type: ignore[union-attr]
    assert made == [["decode_attention", "merge_splits"]] * layers
    made = [[one.kernel for one in all_steps(step.otherwise)] for step in choices]  # type: ignore[union-attr]
    assert made == [["attention"]] * layers


@pytest.mark.slow
def test_a_prompt_and_the_tokens_after_it_give_what_the_module_gives() -> None:
    model, program = lowered()
    session = session_of(program)
    called = model.generation
    assert called is not None and isinstance(model.example_inputs, dict)
    empty = {name: model.example_inputs[name][:, :, :0] for name in called.caches}
    # The plan keeps its caches in float16.
    theirs, mask = dict(empty), MASK
    ours = {name: cache.half() for name, cache in empty.items()}
    for ids in (IDS, *NEXT.split(1, 1)):
        if ids is not IDS:
            mask = torch.cat([mask, torch.ones_like(ids)], 1)
        given: dict[str, Tensor] = {called.ids: ids, called.mask: mask}
        with torch.no_grad():
            wanted = model.module(**given, **theirs)
        feeds = {name: tensor.numpy() for name, tensor in (given | ours).items()}
        found = {name: torch.from_numpy(x) for name, x in session.run(feeds).items()}
        for name, tensor in wanted.items():
            assert found[name].shape == tensor.shape
            error = (found[name] - tensor)[mask_of(name, tensor, mask)].abs().max()
            assert error <= 1e-2 * tensor.abs().max(), name
        theirs = {name: wanted[called.caches[name]] for name in empty}
        ours = {name: found[called.caches[name]] for name in empty}


@pytest.mark.slow
def test_caches_stay_with_the_plan_from_token_to_token() -> None:
    model, program = lowered()
    called, session = model.generation, session_of(program)
    assert called is not None and isinstance(model.example_inputs, dict)
    empty = {n: model.example_inputs[n][:1, :, :0].half().numpy() for n in called.caches}
    names, start = names_of(called), Start(empty)
    kept, fed = PlanDecoder(session, names, start), FedDecoder(session.run, names, start)
    ids, mask = IDS[1:].numpy(), MASK[1:].numpy()
    for change in ("", "repeat", "reorder"):
        for decoder in (kept, fed):
            if change == "repeat":
                decoder.repeat(2)
            elif change == "reorder":
                decoder.reorder([1, 0, 3, 2])
        if change == "repeat":
            ids, mask = ids[:, :1].repeat(2, 0), mask.repeat(2, 0)
        if change:
            mask = np.concatenate([mask, np.ones_like(ids)], 1)
        np.testing.assert_array_equal(kept.step(ids, mask), fed.step(ids, mask))


def test_what_does_not_fit_a_plan_is_refused() -> None:
    model, program = lowered()
    assert model.generation is not None
    names = names_of(model.generation)
    wide = {name: np.zeros((1, 2, 0, 8), np.float32) for name in names.caches}
    with pytest.raises(RuntimeRefusedError, match="float32, it has to be f16"):
        PlanDecoder(session_of(program), names, Start(wide))


def mask_of(name: str, tensor: Tensor, mask: Tensor) -> Tensor:
    """Which numbers count: of a cache those of real tokens, for padding gives any finite ones."""
    if name == "logits":
        return torch.ones_like(tensor, dtype=torch.bool)
    return mask.bool()[:, None, :, None].expand_as(tensor)
