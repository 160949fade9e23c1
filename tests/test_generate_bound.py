"""Caches that stay in ONNX Runtime's buffers give what copies give, and are not copied."""

from __future__ import annotations

import numpy as np
import pytest
from decoder_graphs import CONTEXT, HIDDEN, VOCABULARY, called, empty, model_bytes, session

from strop.compiler.targets.decoding import FedDecoder, Start, names_of
from strop.compiler.targets.isolation import open_isolated
from strop.compiler.targets.onnxruntime.bound import LEAST, SharedBuffers, bound_decoder
from strop.compiler.targets.target import get_target
from strop.compiler.util.errors import RuntimeRefusedError


def copying(opened, fixed=(), dtype=np.float32):
    """The same decoder, fed with copies of exact sizes."""
    names = [o.name for o in opened.get_outputs()]

    def run(feeds):
        return dict(zip(names, opened.run(None, dict(feeds))))

    return FedDecoder(run, names_of(called()), Start(empty(dtype), dict(fixed)))


def bound(opened, shared, fixed=(), dtype=np.float32, **how):
    return bound_decoder(opened, names_of(called(**how)), Start(empty(dtype), dict(fixed)), shared)


def steps(decoder, rows, *lengths):
    """Scores after calls of so many tokens each."""
    random, total, found = np.random.default_rng(1), 0, []
    for length in lengths:
        total += length
        ids = random.integers(0, VOCABULARY, (rows, length))
        found.append(decoder.step(ids, np.ones((rows, total), np.int64)).copy())
    return found


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("lengths", [(1, 1, 1), (LEAST, 1), (5, 1, 1), (CONTEXT,)])
def test_scores_are_those_of_copied_caches(shared, rows, lengths) -> None:
    opened = session()
    want = steps(copying(opened), rows, *lengths)
    for a, b in zip(steps(bound(opened, shared), rows, *lengths), want):
        assert np.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("shared", [True, False])
def test_caches_and_scores_of_half_precision_are_taken(shared) -> None:
    opened = session(dtype=np.float16)
    want = steps(copying(opened, dtype=np.float16), 1, 3, 1, 1)
    got = steps(bound(opened, shared, dtype=np.float16), 1, 3, 1, 1)
    assert {array.dtype for array in got} == {np.dtype(np.float32)}
    for a, b in zip(got, want):
        assert np.allclose(a, b, atol=1e-2)


@pytest.mark.parametrize("shared", [True, False])
def test_rows_are_chosen_and_repeated(shared) -> None:
    opened = session(extra=True)
    fixed = {"extra": np.random.default_rng(2).normal(size=(2, 1, HIDDEN)).astype(np.float32)}
    found = []
    for decoder in (bound(opened, shared, fixed), copying(opened, fixed)):
        mine = steps(decoder, 2, 3)
        decoder.repeat(2)
        for rows in ([0, 1, 2, 3], [1, 0, 3, 3], [1, 1, 2, 2]):
            total = 4 + len(mine) - 1
            decoder.reorder(rows)
            ids = np.array([[1], [2], [3], [4]])
            mine.append(decoder.step(ids, np.ones((4, total), np.int64)).copy())
        found.append(mine)
    assert [a.shape for a in found[0]] == [(2, VOCABULARY)] + 3 * [(4, VOCABULARY)]
    for a, b in zip(*found):
        assert np.allclose(a, b, atol=1e-5)


def buffers(decoder):
    return {name: value.data_ptr() for name, value in decoder._caches._buffers.items()}


def test_a_shared_buffer_stays_until_it_is_full_and_then_doubles() -> None:
    decoder = bound(session(), True)
    steps(decoder, 1, 3)
    first = buffers(decoder)
    for total in range(4, LEAST + 1):
        decoder.step(np.array([[1]]), np.ones((1, total), np.int64))
    assert buffers(decoder) == first
    decoder.step(np.array([[1]]), np.ones((1, LEAST + 1), np.int64))
    assert all(buffers(decoder)[name] != at for name, at in first.items())
    # Not 2 * LEAST: no cache is longer than the context.
    assert decoder._caches._buffers["past_key_values.0.key"].shape() == [1, 2, CONTEXT, 16]


def test_a_long_prompt_gets_room_at_once() -> None:
    caches = SharedBuffers(called(context=10_000), empty(), "cpu")
    caches._rows = 1
    assert [caches._room_for(n) for n in (1, 64, 65, 300)] == [64, 64, 128, 512]


def test_choosing_rows_in_their_order_copies_nothing() -> None:
    decoder = bound(session(), True)
    steps(decoder, 2, 3)
    decoder._caches.choose = None
    decoder.reorder([0, 1])


def test_rows_are_chosen_in_place() -> None:
    decoder = bound(session(), True)
    steps(decoder, 3, 3)
    first = buffers(decoder)
    decoder.reorder([2, 2, 1])
    assert buffers(decoder) == first


def test_growing_caches_are_those_that_the_runtime_made() -> None:
    decoder = bound(session(), False)
    steps(decoder, 1, 3)
    made = decoder._caches._values["past_key_values.0.key"]
    assert made.shape() == [1, 2, 3, 16]
    decoder.step(np.array([[1]]), np.ones((1, 4), np.int64))
    assert decoder._caches._values["past_key_values.0.key"].shape() == [1, 2, 4, 16]


def test_inputs_that_the_file_does_not_read_are_not_bound() -> None:
    decoder = bound(session(), True, {"unread": np.zeros((1, 2), np.float32)})
    assert len(steps(decoder, 1, 2)) == 1


def test_what_the_runtime_refuses_is_told() -> None:
    decoder = bound(session(), False)
    with pytest.raises(RuntimeRefusedError, match="does not run the decoder with 1 texts of 2"):
        decoder.step(np.array([[VOCABULARY]]), np.ones((1, 2), np.int64))


@pytest.mark.parametrize("shared", [True, False])
def test_a_decoder_in_another_process_does_the_same(tmp_path, shared) -> None:
    (tmp_path / "model.onnx").write_bytes(model_bytes(extra=True))
    fixed = {"extra": np.random.default_rng(2).normal(size=(2, 1, HIDDEN)).astype(np.float32)}
    names, found = names_of(called()), []
    with open_isolated(tmp_path, get_target("cpu")) as isolated:
        far = isolated.decoder(names, Start(empty(), fixed), shared)
        for decoder in (far, bound(session(extra=True), shared, fixed)):
            found.append(steps(decoder, 2, 3))
            decoder.repeat(2)
            decoder.reorder([1, 0, 3, 3])
            ids = np.array([[1], [2], [3], [4]])
            found[-1].append(decoder.step(ids, np.ones((4, 4), np.int64)).copy())
        with pytest.raises(RuntimeRefusedError, match="does not run the decoder with 4 texts"):
            far.step(np.full((4, 1), VOCABULARY), np.ones((4, 5), np.int64))
        # It begins anew.
        again = isolated.decoder(names, Start(empty(), fixed), shared)
        assert np.allclose(steps(again, 2, 3)[0], found[0][0], atol=1e-5)
    for a, b in zip(*found):
        assert np.allclose(a, b, atol=1e-5)
