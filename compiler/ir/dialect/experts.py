"""The product of a mixture of experts: each group of rows with a matrix of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from strop.compiler.ir.dialect.registry import define


@define("grouped_matmul(Tensor input, Tensor weight, Tensor offs) -> Tensor")
def grouped_matmul(input: Tensor, weight: Tensor, offs: Tensor) -> Tensor:
    """Rows ``offs[e - 1] <= row < offs[e]`` of the input times ``weight[e]``; later rows give 0.

    Args:
        input: [rows, k], sorted by expert.
        weight: [experts, k, n].
        offs: where each expert's rows end, integers [experts], rising.

    Returns:
        [rows, n].
    """
    rows = torch.arange(input.shape[0], device=input.device)
    expert = torch.searchsorted(offs, rows.to(offs.dtype), right=True)
    result = input.new_zeros(input.shape[0], weight.shape[2])
    for number in range(weight.shape[0]):
        mine = (expert == number).unsqueeze(1)
        result = torch.where(mine, input @ weight[number], result)
    return result
