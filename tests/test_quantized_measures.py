"""What the measurements of int8 models hold their figures against."""

from __future__ import annotations

import numpy as np
import pytest

from strop.bench.measures import quantized_minilm, quantized_smollm
from strop.bench.suites.embeddings import SentenceOutputs, token_cosine

BOUNDS = {
    ("batch=1 seq=16", "openvino-nncf", True): 1.4,
    ("batch=1 seq=128", "openvino-nncf", True): 1.0,
    ("batch=8 seq=128", "openvino-nncf", True): 0.85,
    ("batch=32 seq=64", "openvino-nncf", False): 1.0,
    ("batch=1 seq=16", "ort-static", True): 1.0,
}


@pytest.mark.parametrize(("case", "wanted"), BOUNDS.items())
def test_speed_over_each_of_the_others_has_its_bound(
    case: tuple[str, str, bool], wanted: float
) -> None:
    assert quantized_minilm.bound(*case) == wanted


def test_only_the_whole_of_int8_is_held_to_two_percent_of_perplexity() -> None:
    found = dict.fromkeys(quantized_smollm.VARIANTS, 10.1) | {quantized_smollm.FLOAT: 10.0}
    made = {f.what: f for f in quantized_smollm.figures(found | {quantized_smollm.BEST: 10.3})}
    missed = [what for what, figure in made.items() if not figure.hit]
    assert missed == [f"percent above fp32, {quantized_smollm.BEST}"]
    assert made[missed[0]].value == pytest.approx(3)


def test_tokens_that_are_padding_do_not_count() -> None:
    mask, want = np.array([[1, 1, 0]]), np.array([[[1.0, 0], [0, 1], [1, 0]]])
    got = np.array([[[2.0, 0], [1, 1], [-1, 0]]])
    found = SentenceOutputs([mask], [want], {"one": [got]})
    assert token_cosine(found, "one") == pytest.approx((1 + 0.5**0.5) / 2)
