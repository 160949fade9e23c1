"""What the GPUs are that kernels are compiled for.

Sources: CUDA C++ Programming Guide, "Compute Capabilities", table "Technical Specifications per
Compute Capability" (threads, blocks, warps, registers, shared memory); CUDA Occupancy Calculator
(in which units registers and shared memory are given to blocks, and the shared memory that the
system takes from each block); the data sheets "NVIDIA A100 Tensor Core GPU" (SXM, 80 GB),
"NVIDIA L40S" and "NVIDIA H100 Tensor Core GPU" (SXM) for bandwidth and rates, without sparsity;
CUDA Toolkit Release Notes, "CUDA Toolkit and Corresponding Driver Versions", for drivers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

_KIB = 1024


@dataclass(frozen=True)
class Architecture:
    """One compute capability, with the figures of one GPU that has it.

    Attributes:
        name: as targets and reports call it, such as ``sm90``.
        capability: ten times the compute capability.
        device: the GPU that the multiprocessors, the bandwidth and the rates are of.
        multiprocessors: how many the GPU has.
        bandwidth: of the GPU's memory, in bytes a second.
        rates: dense operations a second on tensor cores, by the dtype of the factors; a
            multiplication with its addition is two.
        vector_rate: float32 operations a second outside tensor cores.
        cache_bandwidth: from the L2 cache to all multiprocessors, in bytes a second. Of the A100
            it is published (5,120 bytes a clock, at 1.41 GHz); of the others it is assumed, and
            serves only to rank configurations.
        warp_product_share: of ``rates`` that products of one warp reach. Below 1 where only
            products of four warps reach all of it; source: Luo et al., "Benchmarking and
            Dissecting the Nvidia Hopper GPU Architecture", arXiv:2402.13499.
        warps: most warps of 32 threads on a multiprocessor at a time.
        blocks: most blocks on a multiprocessor at a time.
        shared_memory: bytes on a multiprocessor.
        block_shared_memory: most bytes that a block may ask for.
        minimum_driver: the oldest driver that knows the architecture; a compiled kernel may need a
            newer one.
    """

    name: str
    capability: int
    device: str
    multiprocessors: int
    bandwidth: float
    rates: Mapping[str, float] = field(hash=False)
    vector_rate: float
    cache_bandwidth: float
    warp_product_share: float
    warps: int
    blocks: int
    shared_memory: int
    block_shared_memory: int
    minimum_driver: str
    # The same on all three:
    registers: int = 65536
    thread_registers: int = 255
    block_threads: int = 1024
    warp_threads: int = 32
    # Registers are given to a warp, and shared memory to a block, in multiples of these.
    warp_register_unit: int = 256
    shared_memory_unit: int = 128
    # What the system takes of the shared memory for each block.
    reserved_shared_memory: int = 1 * _KIB
    # Seconds from asking for a value in memory to having it: assumed, to rank configurations.
    memory_latency: float = 0.7e-6

    @property
    def threads(self) -> int:
        """Most threads on a multiprocessor at a time."""
        return self.warps * self.warp_threads


_T = 1e12
SM80 = Architecture(
    "sm80",
    80,
    "A100 SXM 80 GB",
    multiprocessors=108,
    bandwidth=2.039e12,
    rates={"fp16": 312 * _T, "bf16": 312 * _T, "tf32": 156 * _T, "i8": 624 * _T},
    vector_rate=19.5 * _T,
    cache_bandwidth=7.2e12,
    warp_product_share=1.0,
    warps=64,
    blocks=32,
    shared_memory=164 * _KIB,
    block_shared_memory=163 * _KIB,
    minimum_driver="450.36.06",
)
SM89 = Architecture(
    "sm89",
    89,
    "L40S",
    multiprocessors=142,
    bandwidth=0.864e12,
    rates={
        "fp16": 362.05 * _T, "bf16": 362.05 * _T, "tf32": 183 * _T,
        "i8": 733 * _T, "fp8e4nv": 733 * _T,
    },
    vector_rate=91.6 * _T,
    cache_bandwidth=5.0e12,
    warp_product_share=1.0,
    warps=48,
    blocks=24,
    shared_memory=100 * _KIB,
    block_shared_memory=99 * _KIB,
    minimum_driver="520.61.05",
)  # fmt: skip
SM90 = Architecture(
    "sm90",
    90,
    "H100 SXM",
    multiprocessors=132,
    bandwidth=3.35e12,
    rates={
        "fp16": 989.4 * _T, "bf16": 989.4 * _T, "tf32": 494.7 * _T,
        "i8": 1978.9 * _T, "fp8e4nv": 1978.9 * _T,
    },
    vector_rate=66.9 * _T,
    cache_bandwidth=12.5e12,
    warp_product_share=0.62,
    warps=64,
    blocks=32,
    shared_memory=228 * _KIB,
    block_shared_memory=227 * _KIB,
    minimum_driver="520.61.05",
)  # fmt: skip

ARCHITECTURES: Mapping[str, Architecture] = {a.name: a for a in (SM80, SM89, SM90)}
