"""How long a launch takes by a model of the machine: to rank configurations, not to promise times.

It is the roofline bound, with what keeps a configuration from it: tiles that reach behind the last
row, multiprocessors without work, operands that each program reads from the L2 cache again, too few
loads on their way to use the memory's bandwidth, and waiting at the begin of every round of
programs. *Modelled*, with figures of ``Architecture`` that are partly assumed.
"""

from __future__ import annotations

from strop.kernels.architecture import Architecture
from strop.kernels.expression import cdiv
from strop.kernels.gate import Checked
from strop.kernels.inspect import GROUP_PRODUCTS
from strop.kernels.kernel import Configuration, Cost, Launch
from strop.kernels.roofline import Modelled, modelled, rate


def estimated_seconds(
    checked: Checked, launch: Launch, configuration: Configuration
) -> float | None:
    """The modelled time of a launch.

    None where it is not known what one program does, or where its products of matrices wait for
    their loads, which is not modelled.

    Args:
        checked: the variant of this launch and configuration.
        launch: all of its sizes are plain numbers.
        configuration: what it was compiled with.
    """
    reading, architecture = checked.reading, checked.architecture
    overlapped = not checked.binary.dots or reading.async_copies or reading.bulk_copies
    if launch.kernel.share is None or not overlapped:
        return None
    bound = modelled(checked, launch, configuration)
    work = _busiest(bound, launch, configuration, architecture)
    operations = work.operations / _rate(checked)
    cached = work.bytes / architecture.cache_bandwidth
    memory = bound.memory_seconds / _coverage(checked, bound.programs)
    rounds = cdiv(bound.programs, _slots(checked))
    return max(operations, cached, memory) + rounds * architecture.memory_latency


def least_seconds(checked: Checked, launch: Launch, configuration: Configuration) -> float:
    """What no estimate of a configuration is below, whatever is read of it once it is compiled.

    Args:
        checked: any variant of the launch, for the dtypes of its products.
        launch: all of its sizes are plain numbers.
        configuration: what is asked about.
    """
    architecture = checked.architecture
    bound = modelled(checked, launch, configuration)
    work = _busiest(bound, launch, configuration, architecture)
    operations = work.operations / rate(architecture, checked.binary.dots)
    cached = work.bytes / architecture.cache_bandwidth
    at_a_time = architecture.multiprocessors * _most_blocks(launch, configuration, architecture)
    rounds = cdiv(bound.programs, at_a_time)
    return max(operations, cached, bound.memory_seconds) + rounds * architecture.memory_latency


def _most_blocks(launch: Launch, configuration: Configuration, architecture: Architecture) -> int:
    """What a multiprocessor holds at most, by the warps and sums of a block."""
    limits = [architecture.blocks, architecture.warps // configuration.num_warps]
    if launch.kernel.sums is not None:
        sums = launch.kernel.sums({**launch.sizes(), **configuration.constants})
        limits.append(architecture.registers // sums)
    return max(min(limits), 1)


def _busiest(
    bound: Modelled, launch: Launch, configuration: Configuration, architecture: Architecture
) -> Cost:
    """What all multiprocessors would do if each had as many programs as that with the most."""
    assert launch.kernel.share is not None
    share = launch.kernel.share({**launch.sizes(), **configuration.constants}, launch.itemsizes())
    programs = cdiv(bound.programs, architecture.multiprocessors) * architecture.multiprocessors
    return Cost(programs * share.operations, programs * share.bytes)


def _rate(checked: Checked) -> float:
    """Operations a second that its kind of products reaches."""
    architecture = checked.architecture
    by_groups = any(kind in checked.reading.tensor_core for kind in GROUP_PRODUCTS)
    reached = 1.0 if by_groups else architecture.warp_product_share
    return rate(architecture, checked.binary.dots) * reached


def _coverage(checked: Checked, programs: int) -> float:
    """The share of the memory's bandwidth that its loads can use.

    Source: Little's law; latency times bandwidth is what has to be on its way at any time.
    """
    architecture = checked.architecture
    wanted = architecture.memory_latency * architecture.bandwidth
    return min(1.0, min(programs, _slots(checked)) * _on_its_way(checked) / wanted) or 1.0


def _on_its_way(checked: Checked) -> float:
    """Bytes that a block has asked for and not received: copies of the next steps, or all loads."""
    reading, stages = checked.reading, checked.variant.num_stages
    if reading.async_copies and stages > 1:
        return reading.shared_memory * (stages - 1) / stages
    threads = checked.binary.warps * checked.architecture.warp_threads
    return sum(bits // 8 * count for bits, count in reading.loads.items()) * threads


def _slots(checked: Checked) -> int:
    return max(checked.architecture.multiprocessors * checked.occupancy.blocks, 1)
