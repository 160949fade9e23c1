"""Every way to write attention becomes one operator or says why not, and the numbers stay."""

from __future__ import annotations

import pytest
import torch
from attention_variants import (
    Attention,
    Variant,
    can_be_fused,
    inputs_of,
    pairwise_variants,
)
from program_tools import program_of, session

from strop.compiler.recipes.loading import load_recipe

PASSES = load_recipe("cpu-fp32").pipeline()


def check(variant: Variant) -> None:
    torch.manual_seed(0)
    module, inputs = Attention(variant).eval(), inputs_of(variant)
    before = program_of(module, *inputs)
    program, missed = before, []
    for step in PASSES.steps:
        result = step.run.run(program)
        program, missed = result.program, missed + result.log.misses
    found = len(program.find(torch.ops.strop.attention.default))
    if can_be_fused(variant):
        assert found == 1, [m for m in missed if m.rule == "attention-eager"]
    else:
        assert found == 0
        reasons = [m for m in missed if m.rule == "attention-eager"]
        assert reasons and reasons[0].lines, variant
    file = session(program)
    # Next to -1e4 a float32 score is exact to 1e-3 only, in torch as well.
    exact = 2e-3 if variant.hides == -1e4 else 1e-5
    with torch.no_grad():
        for seed in (0, 1):
            given = dict(zip(("input_0", "input_1", "input_2"), inputs_of(variant, seed)))
            want = module(*given.values())
            (got,) = program.run(**given)
            torch.testing.assert_close(got, want, rtol=0, atol=exact, equal_nan=True)
            used = {i.name for i in file.get_inputs()}
            (ran,) = file.run(None, {n: x.numpy() for n, x in given.items() if n in used})
            torch.testing.assert_close(
                torch.from_numpy(ran), want, rtol=0, atol=exact, equal_nan=True
            )


# Every two choices meet among these.
SAMPLE = pairwise_variants()


@pytest.mark.parametrize("variant", SAMPLE[:15], ids=str)
def test_attention_written_out_is_one_operator_or_says_why(variant: Variant) -> None:
    check(variant)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_every_two_choices_together(seed: int) -> None:
    for variant in (*SAMPLE, *pairwise_variants(seed)):
        check(variant)
