"""How kernels that work on whole rows divide them into programs."""

from __future__ import annotations

import pytest

from strop.kernels.examples import launches
from strop.kernels.kernel import Kernel
from strop.kernels.limits import WIDEST_ROW
from strop.kernels.registry import kernel, names
from strop.kernels.rows import ROW_BUCKETS, WIDTHS, row_block

ROW_KERNELS = [kernel(name) for name in names() if kernel(name).buckets is ROW_BUCKETS]


def test_a_block_is_the_next_power_of_two() -> None:
    assert [row_block(n) for n in (1, 2, 3, 64, 65, WIDEST_ROW)] == [1, 2, 4, 64, 128, WIDEST_ROW]


def test_a_thread_holds_as_many_numbers_of_a_narrow_row_as_of_a_wide_one() -> None:
    kept = set()
    for width in WIDTHS:
        block = row_block(width)
        taken = next(b.configuration for b in ROW_BUCKETS if b.holds({"BLOCK": block}))
        kept.add(block * taken.constants["ROWS"] // (32 * taken.num_warps))
    assert kept == {8, 16}


@pytest.mark.parametrize("made", ROW_KERNELS, ids=lambda k: str(k.name))
def test_every_configuration_has_an_example(made: Kernel) -> None:
    taken = {id(made.configuration(launch.sizes())) for launch in launches(made).values()}
    assert taken == {id(bucket.configuration) for bucket in ROW_BUCKETS}
