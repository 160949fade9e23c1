"""A process that compiles kernels: a request on each line of its input, an answer on each output.

Triton is loaded here alone, not in the process that asks (``strop.kernels.compiler``).
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from typing import Any, TextIO

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from strop.kernels.binary import Binary
from strop.kernels.registry import kernel
from strop.kernels.variant import ABSENT, ALIGNMENT, Variant

_DOT = re.compile(r"= tt\.dot(?:_scaled)? .*: (?:tensor<([^>]*)> \* tensor<([^>]*)>).*")


def main() -> None:
    """Answer until the input ends."""
    answers = _private_output()
    for line in sys.stdin:
        answers.write(json.dumps(_answer(json.loads(line))) + "\n")
        answers.flush()


def _private_output() -> TextIO:
    """The standard output; what anything else writes there goes to the error stream instead."""
    own = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return own


def _answer(request: Mapping[str, Any]) -> dict[str, Any]:
    try:
        variant = Variant.from_json(request["variant"])
        function = kernel(variant.kernel).function
        return compiled(function, variant, request["capability"]).to_json()
    # Whatever the compiler raises is told to whoever asked, who names the kernel.
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def compiled(function: Any, variant: Variant, capability: int) -> Binary:
    """Compile a function in this process; a constant may be anything that Triton takes."""
    options = {"num_warps": variant.num_warps, "num_stages": variant.num_stages}
    made = triton.compile(
        _source(function, variant), target=GPUTarget("cuda", capability, 32), options=options
    )
    return Binary(
        entry=made.metadata.name,
        cubin=made.asm["cubin"],
        ptx=made.asm["ptx"],
        shared_memory=made.metadata.shared,
        warps=made.metadata.num_warps,
        scratch=(made.metadata.global_scratch_size or 0)
        + (made.metadata.profile_scratch_size or 0),
        dots=tuple(f"{a} * {b}" for a, b in _DOT.findall(str(made.asm["ttir"]))),
        triton=triton.__version__,
    )


def _source(function: Any, variant: Variant) -> ASTSource:
    types, constants = dict(variant.types), dict(variant.constants)
    names = function.arg_names
    given = constants | {name: None for name, kind in types.items() if kind == ABSENT}
    return ASTSource(
        function,
        {name: "constexpr" if name in given else types[name] for name in names},
        {(names.index(name),): value for name, value in given.items()},
        {(names.index(name),): [["tt.divisibility", ALIGNMENT]] for name in variant.aligned},
    )


if __name__ == "__main__":
    main()
