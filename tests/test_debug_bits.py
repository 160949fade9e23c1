"""The table of widths: a row for each, and what is refused."""

from __future__ import annotations

import re
from typing import Any

FACTORY = """
import torch
from strop.compiler import Model

def make():
    torch.manual_seed(0)
    layers = [torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 32)]
    return Model(torch.nn.Sequential(*layers).eval(), (torch.randn(4, 64),))
"""


def test_a_row_for_each_width_smaller_and_further_away(strop: Any, write: Any) -> None:
    result = strop("debug", "bits", write(FACTORY))
    assert result.code == 0, result.err
    rows = re.findall(r"│ (\d) +│ [\d.]+ MB +│ ([\d.]+)% +│ (0\.\d+|1\.0+) ", result.out)
    assert [int(bits) for bits, _, _ in rows] == [8, 6, 4, 3, 2]
    sizes = [float(share) for _, share, _ in rows]
    # On the CPU, 6 bits take the room of 8, and 3 that of 4.
    assert sizes[0] == sizes[1] > sizes[2] == sizes[3] > sizes[4]
    cosines = [float(cosine) for _, _, cosine in rows]
    assert cosines == sorted(cosines, reverse=True) and len(set(cosines)) == 5


def test_widths_and_options_are_chosen(strop: Any, write: Any) -> None:
    source = write(FACTORY)
    result = strop("debug", "bits", source, "--bits", "4", "--set", "quantize-weights.group=64")
    assert result.code == 0 and result.out.count(" MB ") == 1
    assert strop("debug", "bits", source, "--bits", "9").code == 2
    other = strop("debug", "bits", source, "--recipe", "cpu-fp32")
    assert other.code == 2 and "take --recipe cpu-int4" in other.err
