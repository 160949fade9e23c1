"""LSTM, GRU and plain recurrent networks: single nodes, at every number of steps."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import pytest
import torch
from file_tools import File
from torch import Tensor, nn

BATCH, STEPS, INPUTS, HIDDEN = 3, 5, 4, 6
KINDS: dict[str, Any] = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}


class Net(nn.Module):
    """A recurrent network that gives all of its results, with or without initial states."""

    def __init__(self, kind: str, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.kind = kind
        self.net = KINDS[kind](INPUTS, HIDDEN, **options)

    def forward(self, x: Tensor, y: Tensor | None = None, z: Tensor | None = None) -> Any:
        start = y if z is None else (y, z)
        output, final = self.net(x) if start is None else self.net(x, start)
        return (output, *final) if isinstance(final, tuple) else (output, final)


def inputs(net: Net, batch: int, steps: int, given: bool) -> list[Tensor]:
    """x and, where they are given, the initial states."""
    torch.manual_seed(steps)
    inner = net.net
    shape = (batch, steps, INPUTS) if inner.batch_first else (steps, batch, INPUTS)
    made = [torch.randn(shape)]
    if given:
        rows = inner.num_layers * (2 if inner.bidirectional else 1)
        made.append(torch.randn(rows, batch, inner.proj_size or HIDDEN))
        if net.kind == "LSTM":
            made.append(torch.randn(rows, batch, HIDDEN))
    return made


def holds_at_every_size(net: Net, given: bool, time: bool = True) -> File:
    x = inputs(net, BATCH, STEPS, given)
    batch_axis = 0 if net.net.batch_first else 1
    axes: dict[str, Any] = {"x": {batch_axis: "batch"}}
    if time:
        axes["x"][1 - batch_axis] = "steps"
    axes |= {name: {1: "batch"} for name in "yz"[: len(x) - 1]}
    file = File(net, x, axes)
    file.agrees(*x)
    for batch, steps in ((1, 1), (2, 9), (4, 2)):
        file.agrees(*inputs(net, batch, steps if time else STEPS, given))
    return file


OPTIONS = [
    {"num_layers": layers, "bidirectional": both, "batch_first": first, "bias": bias}
    for layers, both, first, bias in itertools.product(
        (1, 2), (False, True), (False, True), (False, True)
    )
]
PROJECTED = [o | {"proj_size": 2} for o in OPTIONS]
EVERY = [
    *((kind, o) for kind in KINDS for o in OPTIONS),
    *(("LSTM", o) for o in PROJECTED),
    *(("RNN", o | {"nonlinearity": "relu"}) for o in OPTIONS),
]
SAMPLE = [
    ("LSTM", {"num_layers": 2, "bidirectional": True, "batch_first": True}),
    ("LSTM", {"bidirectional": True, "proj_size": 2}),
    ("LSTM", {"bias": False}),
    ("GRU", {"num_layers": 2, "bidirectional": True}),
    ("GRU", {"batch_first": True, "bias": False}),
    ("RNN", {"nonlinearity": "relu", "bidirectional": True}),
]


@pytest.mark.parametrize("given", [False, True], ids=["from zero", "from given states"])
@pytest.mark.parametrize(
    ("kind", "options"), SAMPLE, ids=[f"{k} {' '.join(map(str, o))}" for k, o in SAMPLE]
)
def test_a_sample_of_options(kind: str, options: dict[str, Any], given: bool) -> None:
    holds_at_every_size(Net(kind, **options), given)


@pytest.mark.slow
@pytest.mark.parametrize("given", [False, True], ids=["from zero", "from given states"])
@pytest.mark.parametrize(("kind", "options"), EVERY)
def test_every_option(kind: str, options: dict[str, Any], given: bool) -> None:
    holds_at_every_size(Net(kind, **options), given)
    holds_at_every_size(Net(kind, **options), given, time=False)


def test_each_layer_is_one_node() -> None:
    file = holds_at_every_size(Net("GRU", num_layers=3, bidirectional=True), given=False)
    kinds = Counter(node.op_type for node in file.model.graph)
    assert kinds["GRU"] == 3
    assert not {"Loop", "Scan", "Sigmoid", "Tanh"} & set(kinds)


def test_weights_are_written_once_and_in_the_order_of_onnx() -> None:
    file = holds_at_every_size(Net("LSTM"), given=False)
    shapes = {tuple(v.shape or ()) for v in file.model.graph.initializers.values()}
    assert {(1, 4 * HIDDEN, INPUTS), (1, 4 * HIDDEN, HIDDEN), (1, 8 * HIDDEN)} <= shapes
    assert (4 * HIDDEN, INPUTS) not in shapes


def test_one_sequence_without_a_batch() -> None:
    net = Net("LSTM")
    file = File(net, (torch.randn(STEPS, INPUTS),), {"x": {0: "steps"}})
    for steps in (1, 2, 7):
        file.agrees(torch.randn(steps, INPUTS))


class Cells(nn.Module):
    """Cells stepped by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.gru = nn.LSTMCell(INPUTS, HIDDEN), nn.GRUCell(INPUTS, HIDDEN)
        self.rnn = nn.RNNCell(INPUTS, HIDDEN, bias=False, nonlinearity="relu")

    def forward(self, x: Tensor, y: Tensor) -> Any:
        h, c = self.lstm(x, (y, y * 2))
        h, c = self.lstm(x, (h, c))
        return h, c, self.gru(x, y), self.rnn(x, y)


def test_cells_that_are_stepped_by_hand() -> None:
    file = File(Cells(), (torch.randn(3, INPUTS), torch.randn(3, HIDDEN)),
                {"x": {0: "batch"}, "y": {0: "batch"}})  # fmt: skip
    for batch in (1, 3, 5):
        file.agrees(torch.randn(batch, INPUTS), torch.randn(batch, HIDDEN))


def test_a_network_within_a_model_and_a_tied_one() -> None:
    net = nn.LSTM(INPUTS, INPUTS, batch_first=True)

    def twice(x: Tensor) -> Tensor:
        return torch.softmax(net(net(x)[0])[0], -1)

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            return twice(x)

    file = File(Twice(), (torch.randn(2, STEPS, INPUTS),), {"x": {0: "batch", 1: "steps"}})
    file.agrees(torch.randn(3, 2, INPUTS))


def test_capture_leaves_torch_as_it_was() -> None:
    kernels = dict(torch.ops.aten.lstm.input.py_kernels)
    File(Net("LSTM"), (torch.randn(2, 2, INPUTS),), {"x": {0: "steps"}})
    assert torch.ops.aten.lstm.input.py_kernels == kernels
