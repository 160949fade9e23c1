"""Representative launches of kernels."""

from __future__ import annotations

import dataclasses

import pytest

from strop.kernels.architecture import ARCHITECTURES, Architecture
from strop.kernels.examples import launches, tensor
from strop.kernels.launching import either, launch
from strop.kernels.norm import NORM, norm
from strop.kernels.registry import kernel, names


@pytest.mark.parametrize("name", names())
def test_every_kernel_has_examples(name: str) -> None:
    found = launches(kernel(name))
    assert found
    for made in found.values():
        assert made.kernel.name == name
        assert all(
            made.kernel.programs(
                {**made.sizes(), **made.kernel.configuration(made.sizes()).constants}
            )
        )


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        pytest.param(name, architecture, id=f"{name}-{architecture.name}")
        for name in names()
        for architecture in ARCHITECTURES.values()
        if kernel(name).capability <= architecture.capability
    ],
)
def test_every_bucket_has_an_example(name: str, architecture: Architecture) -> None:
    shipped = kernel(name).on(architecture.capability)
    taken = [shipped.configuration(made.sizes()) for made in launches(shipped).values()]
    for bucket in shipped.buckets:
        assert bucket.configuration in taken, bucket.when
        if not bucket.when:
            break


def test_an_example_is_the_launch_at_its_own_sizes() -> None:
    def call(rows: int) -> None:
        either("rows <= 16", {"rows": rows}, lambda: launch(few, {}), lambda: launch(many, {}))

    few = dataclasses.replace(NORM, name="few", examples={"three": lambda: call(3)})
    many = dataclasses.replace(NORM, name="many", examples={"three": lambda: call(3)})
    assert launches(few)["three"].kernel is few
    with pytest.raises(LookupError, match="'three' leads to 0 launches of kernel many"):
        launches(many)


def test_an_example_has_one_launch() -> None:
    def twice() -> None:
        for _ in range(2):
            norm(tensor(1, 8), None, None, None, 1e-5, rms=True)

    kernel = dataclasses.replace(NORM, examples={"twice": twice})
    with pytest.raises(LookupError, match="'twice' leads to 2 launches of kernel norm"):
        launches(kernel)
