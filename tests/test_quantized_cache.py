"""Caches in int8: the pass, what a program takes and gives then, the file, and whole builds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import decoders
import numpy as np
import pytest
import torch
from cache_tools import file_of, run_shared
from conftest import Strop
from generate_tools import byte_tokenizer
from program_tools import body, counts
from test_cached_attention import CACHES, PADDINGS, SIZES, Call, assert_same, by_name, operators
from torch import Tensor

from strop.compiler import build, load
from strop.compiler.check.comparable import comparable
from strop.compiler.ir.contract import Stored
from strop.compiler.ir.program import Program
from strop.compiler.ir.running import in_contract, run_program
from strop.compiler.ir.snapshots.reader import load_program
from strop.compiler.ir.snapshots.weight_store import WeightStore
from strop.compiler.ir.snapshots.writer import save_program
from strop.compiler.rewriting.context import Context
from strop.compiler.targets.target import CUDA, ONNX
from strop.compiler.util.errors import UsageError
from strop.passes.quantize.cache import QuantizeCache

strop = torch.ops.strop


@dataclass(frozen=True)
class Int8Call(Call):
    """A call whose caches are int8; its scales differ from channel to channel."""

    def scales(self) -> list[Tensor]:
        numbers = torch.arange(self.kv_heads * self.size).reshape(1, self.kv_heads, 1, self.size)
        return [0.02 + 0.0001 * numbers, 0.03 - 0.0001 * numbers]

    def inputs(self, batch: int, seq: int, past: int, padding: str = "left") -> dict[str, Tensor]:
        found = super().inputs(batch, seq, past, padding)
        for name, scale in zip(CACHES, self.scales()):
            found[name] = (found[name] / scale).round().clamp(-128, 127).to(torch.int8)
        return found

    def __call__(self, **given: Tensor) -> dict[str, Tensor]:
        tensors = [given[name] for name in ("q", "k", "v", "past_k", "past_v")]
        mask = self.seen(given)
        settings = self.heads, self.kv_heads, self.scale, self.softcap
        out, *longer = strop.cached_attention(*tensors, mask, *settings, *self.scales())
        return {"out": out, **dict(zip(CACHES.values(), longer))}


@pytest.mark.parametrize("packed", [True, False])
def test_it_is_attention_over_what_the_whole_numbers_stand_for(packed: bool) -> None:
    call = Int8Call(packed=packed)
    given = call.inputs(2, 3, 4)
    made = call(**given)
    plain = {n: t.float() for n, t in given.items() if n != "mask"} | {"mask": given["mask"]}
    for name, scale in zip("kv", call.scales()):
        new = plain[name] if not packed else plain[name].unflatten(2, (2, -1)).transpose(1, 2)
        new = (new / scale).round().clamp(-128, 127)
        longer = torch.cat([given[f"past_{name}"], new.to(torch.int8)], 2)
        assert torch.equal(made[f"present_{name}"], longer)
        new = new * scale
        plain[name] = new.transpose(1, 2).flatten(2) if packed else new
        plain[f"past_{name}"] = plain[f"past_{name}"] * scale
    torch.testing.assert_close(made["out"], Call(packed=packed)(**plain)["out"])


def test_gradients_pass_straight_through_the_rounding() -> None:
    call = Int8Call()
    given = call.inputs(2, 3, 4)
    new = {n: given[n].requires_grad_() for n in "qkv"}
    call(**given | new)["out"].square().sum().backward()
    assert all(bool(t.grad.isfinite().all()) and bool(t.grad.any()) for t in new.values())


CALLS = [Int8Call(window=3), Int8Call(packed=False, softcap=2.0), Int8Call(heads=4, kv_heads=4)]


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_the_file_computes_the_same_in_exact_caches_and_in_larger_buffers(call: Int8Call) -> None:
    session, model = file_of(call.program())
    assert {"GroupQueryAttention", "If"} <= operators(model)
    for sizes, padding in zip(SIZES, PADDINGS):
        given = call.inputs(*sizes, padding)
        assert_same(call, by_name(session, given), given)
        assert_same(call, run_shared(session, given, CACHES), given)


def test_standard_files_compute_the_same() -> None:
    call = Int8Call(window=3)
    session, model = file_of(call.program(), ONNX)
    assert {node.domain for node in model.graph.all_nodes()} == {""}
    given = call.inputs(3, 5, 9)
    assert_same(call, by_name(session, given), given)


def quantized(call: Call, **options: Any) -> tuple[Program, Any]:
    data = [call.inputs(2, 6, past) for past in (0, 3)]
    one = QuantizeCache(**options)
    return call.program(), one.run(call.program(), context=Context(calibration=data))


def test_the_pass_gives_calls_scales_and_caches_another_dtype() -> None:
    before, result = quantized(Call())
    assert counts(result) == {"quantize-cache": 1}
    (line,) = [x for x in body(result.program).splitlines() if "strop.cached_attention(" in x]
    assert line.endswith("4, 2, 0.3, 0.0, @past_k.scale, @past_v.scale)")
    for specs, was in (("inputs", before), ("outputs", before)):
        for new, old in zip(getattr(result.program.contract, specs), getattr(was.contract, specs)):
            if new.name not in CACHES and new.name not in CACHES.values():
                assert new == old
                continue
            assert new == replace(old, dtype="i8", stored=new.stored)
            assert new.stored is not None and new.stored.of == "f32"
            assert len(new.stored.scales) == 2 * 16


@pytest.mark.parametrize("packed", [True, False])
def test_scales_are_those_of_each_channel_with_some_room(packed: bool) -> None:
    call = Call(packed=packed)
    _, result = quantized(call, room=2.0)
    tops = torch.zeros(2, 16)
    for past in (0, 3):
        given = call.inputs(2, 6, past)
        new = given["k"].unflatten(2, (2, 16)).transpose(1, 2) if packed else given["k"]
        tops = tops.maximum(torch.cat([given["past_k"], new], 2).abs().amax((0, 2)))
    expected = tops[None, :, None] * 2 / 127
    torch.testing.assert_close(result.program.weights["past_k.scale"], expected)


def test_a_channel_that_the_data_does_not_move_has_room_all_the_same() -> None:
    call = Call()
    given = call.inputs(2, 6, 3)
    given["k"][..., 5] = given["past_k"][:, 0, :, 5] = 0
    result = QuantizeCache().run(call.program(), context=Context(calibration=[given]))
    scale = result.program.weights["past_k.scale"][0, 0, 0]
    assert float(scale[5]) == pytest.approx(float(scale.max()) / 64)


def test_a_program_takes_the_models_caches_and_compares_in_its_numbers() -> None:
    call = Call()
    before, result = quantized(call, room=3.0)
    given = call.inputs(2, 4, 3)
    found = run_program(result.program, given)
    assert found["present_k"].dtype == np.int8
    own = {"past_k": torch.from_numpy(found["present_k"])}
    assert in_contract(own, result.program.contract)["past_k"] is own["past_k"]
    for name, array in comparable(found, result.program.contract, given).items():
        want = run_program(before, given)[name]
        assert array.dtype == want.dtype
        if name == "out":
            np.testing.assert_allclose(array, want, atol=0.1)
            continue
        past = "past_k" if name == "present_k" else "past_v"
        half = result.program.weights[f"{past}.scale"].numpy() / 2
        assert (abs(array - want) <= 1.001 * half).all()


def test_a_snapshot_keeps_how_caches_are_kept(tmp_path: Path) -> None:
    _, result = quantized(Call())
    save_program(result.program, tmp_path / "x.json", WeightStore(tmp_path / "weights"))
    again = load_program(tmp_path / "x.json")
    # A size that is a sum of dims is one again.
    assert str(again) == str(result.program)
    assert again.contract == result.program.contract


def test_what_is_left_alone_and_refused() -> None:
    _, result = quantized(Call())
    again = QuantizeCache().run(result.program, context=Context(calibration=[]))
    assert "its caches are quantized already" in again.log.misses[0].reason
    for options, said in (({"room": 0.0}, "room is 0.0"), ({"batches": 0}, "batches is 0")):
        with pytest.raises(UsageError, match=said):
            QuantizeCache(**options)
    for target in (ONNX, CUDA):
        assert "no attention that reads a cache of int8" in str(QuantizeCache().refused_by(target))


SIZES_OF = {"layers": 1, "heads": 2, "kv_heads": 1, "vocabulary": 256, "head_size": 16}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("decoder")
    byte_tokenizer(folder)
    model = decoders.make(**SIZES_OF)
    model.files = [folder / "tokenizer.json"]
    recipe = folder / "int8.toml"
    recipe.write_text(
        'name = "int8"\nextends = "cpu-fp32"\n\n[budget]\nmin_cosine = 0.99\n'
        "min_token_agreement = 0.8\nmax_time = 9.0\n\n"
        '[[slots.quantize]]\nname = "quantize-cache"\nwhy = "A test."\n'
    )
    return build(model, folder / "out", str(recipe)).path


def test_a_build_generates_with_caches_in_int8(out: Path) -> None:
    loaded = load(out)
    manifest = loaded.artifact.manifest
    specs = [*manifest["contract"]["inputs"], *manifest["contract"]["outputs"]]
    kept = {spec["name"]: spec["dtype"] for spec in specs if spec["stored"] is not None}
    caches = manifest["generation"]["caches"]
    assert kept == dict.fromkeys([*caches, *caches.values()], "i8")
    assert all(spec["stored"] in (None, {"of": "f32"}) for spec in specs)
    assert manifest["generation"]["shared_buffers"]
    assert manifest["generated"]["agreement"] >= 0.8
    tokens = [token.id for token in loaded.generate([5, 9, 11, 30, 7], max_new=12)]
    beams = [token.id for token in loaded.generate([5, 9, 11, 30, 7], max_new=12, beams=3)]
    assert tokens and beams
    rows = list(loaded.generate([[5, 9, 11, 30, 7], [8, 9]], max_new=12))
    assert [token.id for token in rows if token.row == 0] == tokens


def test_the_real_package_runs_the_folder(out: Path) -> None:
    genai = pytest.importorskip("onnxruntime_genai", reason="pip install 'strop[genai]'")
    parameters = genai.GeneratorParams(model := genai.Model(str(out)))
    parameters.set_search_options(max_length=17, batch_size=1)
    theirs = genai.Generator(model, parameters)
    theirs.append_tokens(np.array([[5, 9, 11, 30, 7]], np.int32))
    while not theirs.is_done():
        theirs.generate_next_token()
    ours = [token.id for token in load(out).generate([5, 9, 11, 30, 7], max_new=12)]
    assert theirs.get_sequence(0)[5 : 5 + len(ours)].tolist() == ours


@pytest.mark.slow
def test_files_that_keep_caches_in_two_dtypes_are_not_compared(
    out: Path, tmp_path: Path, strop: Strop
) -> None:
    build(decoders.make(**SIZES_OF), tmp_path / "plain")
    found = strop("debug", "diff", tmp_path / "plain", out)
    assert found.code == 2 and "or keep caches in two dtypes" in found.err


def test_a_stored_spec_without_scales_is_another_float() -> None:
    call = Call()
    program = call.program().clone()
    specs = tuple(
        replace(s, dtype="f16", stored=Stored("f32")) if s.name in CACHES else s
        for s in program.contract.inputs
    )
    given = call.inputs(1, 2, 3)
    taken = in_contract(given, replace(program.contract, inputs=specs))
    assert torch.equal(taken["past_k"], given["past_k"].half())
    assert taken["q"] is given["q"]
