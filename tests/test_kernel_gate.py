"""Kernels compiled without a GPU, what is read of them, and what they are held to."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest

from strop.kernels.architecture import ARCHITECTURES, SM80, SM89, SM90, Architecture
from strop.kernels.binary import Binary
from strop.kernels.compiler import CompileError, Compilers, compile_variants, try_variants
from strop.kernels.examples import launches
from strop.kernels.gate import Checked, GateError, hold_to_limits, violations
from strop.kernels.inspect import Reading, parsed, read
from strop.kernels.norm import NORM
from strop.kernels.occupancy import occupancy
from strop.kernels.specialization import variant_of
from strop.kernels.variant import Variant

LISTING = """
 Function norm_kernel:
  REG:38 STACK:8 SHARED:1024 LOCAL:0 CONSTANT[0]:608 TEXTURE:0 SURFACE:0 SAMPLER:0
        /*0000*/                   LDC R1, c[0x0][0x28] ;     /* 0x00000a00ff017b82 */
                                                              /* 0x000e300000000800 */
        /*0010*/               @P3 LDG.E.128.CONSTANT R4, [R24.64] ;
        /*0020*/              @!P0 LDG.E.U8 R4, [R24.64] ;
        /*0030*/             @!UP1 LDG.E R4, [R24.64] ;
        /*0040*/                   LDGSTS.E.BYPASS.128 [R5], [R24.64] ;
        /*0050*/                   STG.E.U16 [R26.64], R4 ;
        /*0060*/                   STL.64 [R1], R4 ;
        /*0070*/                   LDL R4, [R1] ;
        /*0080*/                   HGMMA.64x128x16.F32 R24, gdesc[UR8], R24 ;
        /*0090*/                   UTMALDG.2D [UR8], [UR4] ;
        /*10000*/                  EXIT ;
"""


def norm_variants() -> list[Variant]:
    example = launches(NORM)["RMSNorm of 1 x 4096, residual"]
    return [variant_of(example, configuration) for configuration in NORM.configurations()]


@pytest.fixture(scope="module")
def binaries() -> list[Binary]:
    return compile_variants(norm_variants(), SM90)


def test_kernels_are_compiled_in_the_order_of_their_variants(binaries: list[Binary]) -> None:
    assert [b.warps for b in binaries] == [v.num_warps for v in norm_variants()]
    for binary in binaries:
        assert binary.entry == "norm_kernel"
        assert binary.cubin[:4] == b"\x7fELF"
        assert ".target sm_90a" in binary.ptx
        assert binary.scratch == 0 and binary.dots == ()


def test_nothing_of_this_machine_is_in_them(binaries: list[Binary]) -> None:
    places = [
        Path(__file__).parents[1],
        Path(sys.prefix),
        Path.home(),
        Path(NORM.function.fn.__code__.co_filename).parent,
    ]
    for binary in binaries:
        for place in places:
            assert str(place) not in binary.ptx
            assert str(place).encode() not in binary.cubin
        assert ".loc" not in binary.ptx


def test_the_same_variant_gives_the_same_bytes_and_errors_are_told(
    binaries: list[Binary], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An empty cache, so that it is compiled anew; and settings that would change what is made.
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "0")
    monkeypatch.setenv("TRITON_DISABLE_LINE_INFO", "0")
    (variant, *_) = norm_variants()
    broken = dataclasses.replace(variant, constants=(("BLOCK", 3), ("RMS", True), ("ROWS", 1)))
    made = try_variants([variant, broken, variant], SM90)
    assert made[0] == made[2] == binaries[0]
    assert any(tmp_path.iterdir())
    # An error names the kernel and its types, and does not end the process.
    assert isinstance(made[1], CompileError)
    assert "kernel norm (x: *fp16, " in str(made[1])
    assert "BLOCK=3" in str(made[1]) and "for sm90 cannot be compiled" in str(made[1])
    assert "power of 2" in str(made[1])


def test_what_a_real_kernel_uses(binaries: list[Binary]) -> None:
    reading = read(binaries[-1])
    assert 16 <= reading.registers <= 255
    assert reading.spills == reading.stack == 0
    # Three rows of 4096 halves are read, and two are written.
    row = 4096 * 2 * 8 // (32 * binaries[-1].warps)
    assert sum(bits * count for bits, count in reading.loads.items()) == 3 * row
    assert sum(bits * count for bits, count in reading.stores.items()) == 2 * row
    assert not reading.tensor_core


def test_a_compiler_that_ends_early_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    with pytest.raises(CompileError, match="the compiler ended with code 1; its last line: ."):
        compile_variants(norm_variants()[:1], SM90)


def test_a_compiler_that_has_ended_is_replaced() -> None:
    (variant, *_) = norm_variants()
    with Compilers() as compilers:
        compilers.try_variants([variant], SM90)
        process = compilers._idle.get()
        process._process.kill()
        process._process.wait()
        compilers._idle.put(process)
        first, second = compilers.try_variants([variant, variant], SM90)
    assert "the compiler ended with code -9" in str(first)
    assert isinstance(second, Binary)


def test_nothing_to_compile() -> None:
    assert compile_variants([], SM90) == []


def test_a_listing_is_read() -> None:
    assert parsed(LISTING, 512) == Reading(
        registers=38, stack=8, spill_stores=1, spill_loads=1, shared_memory=512, instructions=11,
        tensor_core={"HGMMA": 1}, async_copies=1, bulk_copies=1,
        loads={8: 1, 32: 1, 128: 1}, stores={16: 1},
    )  # fmt: skip
    with pytest.raises(RuntimeError, match="no resource usage"):
        parsed("", 0)


def test_a_file_that_is_no_machine_code_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="cuobjdump ended with code"):
        read(Binary("f", b"nothing", ".version 8.7", 0, 4, 0, (), "3.6.0"))


@pytest.mark.parametrize(
    ("architecture", "warps", "registers", "shared", "blocks", "limiter"),
    [
        # From NVIDIA's calculator.
        (SM80, 8, 32, 0, 8, "warps"),
        (SM80, 8, 33, 0, 6, "registers"),
        (SM80, 8, 64, 0, 4, "registers"),
        (SM80, 8, 255, 0, 1, "registers"),
        (SM80, 1, 16, 0, 32, "blocks"),
        (SM80, 4, 32, 163 * 1024, 1, "shared memory"),
        (SM80, 4, 32, 81 * 1024, 2, "shared memory"),
        (SM80, 4, 32, 81 * 1024 + 1, 1, "shared memory"),
        (SM89, 8, 32, 0, 6, "warps"),
        (SM89, 1, 16, 0, 24, "blocks"),
        (SM89, 4, 32, 49 * 1024, 2, "shared memory"),
        (SM90, 4, 168, 0, 3, "registers"),
        (SM90, 4, 32, 227 * 1024, 1, "shared memory"),
    ],
)
def test_occupancy(
    architecture: Architecture, warps: int, registers: int, shared: int, blocks: int, limiter: str
) -> None:
    found = occupancy(architecture, warps, registers, shared)
    assert (found.blocks, found.limiter) == (blocks, limiter)
    assert found.warps == blocks * warps
    assert found.share == found.warps / architecture.warps


@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=lambda a: a.name)
def test_a_multiprocessor_holds_a_block_of_the_largest_shared_memory(
    architecture: Architecture,
) -> None:
    most = architecture.block_shared_memory
    assert occupancy(architecture, 4, 32, most).blocks == 1
    assert occupancy(architecture, 4, 32, most + 1).blocks == 0


@pytest.mark.parametrize(
    ("version", "driver"), [("7.8", "450.80.02"), ("8.7", "525.60.13"), ("9.4", "580.65.06")]
)
def test_the_driver_that_a_binary_needs_is_told_by_its_assembler(version: str, driver: str) -> None:
    binary = Binary("f", b"", f"//\n.version {version}\n.target sm_80", 0, 4, 0, (), "3.9.0")
    assert binary.minimum_driver == driver


def checked(
    dots: tuple[str, ...] = (), shared: int = 0, stack: int = 0, **counts: object
) -> Checked:
    reading = dataclasses.replace(
        parsed(LISTING, shared), stack=stack, **{"spill_stores": 0, "spill_loads": 0} | counts
    )
    binary = Binary("f", b"", ".version 9.4", shared, 4, 0, dots, "3.9.0")
    return Checked(SM80, norm_variants()[0], binary, reading)


def test_a_kernel_within_the_limits_passes() -> None:
    assert violations(checked(shared=SM80.block_shared_memory)) == []
    assert violations(checked(dots=("a * b",), tensor_core={"HMMA": 4})) == []
    assert violations(checked(tensor_core={})) == []
    hold_to_limits([checked()])


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        ({"spill_stores": 3}, "registers that are spilled to memory: 3 instructions"),
        ({"spill_loads": 2}, "registers that are spilled to memory: 2 instructions"),
        ({"stack": 16}, "16 bytes of stack, allowed: none"),
        ({"shared": 166913}, "shared memory of a block: 166913 bytes, allowed: 166912 bytes"),
        (
            {"dots": ("a * b", "c * d"), "tensor_core": {}},
            "tensor-core instructions: none for 2 products of matrices, allowed: at least one",
        ),
    ],
    ids=lambda value: "",
)
def test_a_limit_that_is_broken_is_told_with_kernel_and_value(
    broken: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(GateError, match=r"kernel norm \(BLOCK=4096, .* for sm80: ") as told:
        hold_to_limits([checked(), checked(**broken)])
    assert sentence in str(told.value)
    assert len(told.value.violations) == 1
