"""Names of the user's that ``torch.export`` would take for identifiers.

It writes Python source in which keyword inputs are identifiers, so that ``class`` or ``a b``, which
``**kwargs`` takes, would be code; and it has no dynamic dims for what ``**kwargs`` takes. The
names of its dims are identifiers too.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from torch import nn

from strop.compiler.frontend.inputs import Signature


@contextmanager
def by_position(module: nn.Module, signature: Signature) -> Iterator[Signature]:
    """How to call the module within the block: by position where ``**kwargs`` takes an input.

    The names of the inputs stay what they are, and so do those of the weights.
    """
    parameters = inspect.signature(module.forward).parameters
    if signature.positional or all(name in parameters for name in signature.names):
        yield signature
        return
    by_keyword, own = module.forward, vars(module).get("forward")

    def called(*inputs: Any) -> Any:
        return by_keyword(**dict(zip(signature.names, inputs)))

    module.forward = called
    try:
        yield replace(signature, positional=True)
    finally:
        del module.forward
        if own is not None:
            module.forward = own


def identifiers(signature: Signature) -> dict[str, str]:
    """By dim, a name of its own that is an identifier whatever the user calls it."""
    return {name: f"dim_number_{i}" for i, name in enumerate(signature.dims)}


def own_names(text: str, signature: Signature) -> str:
    """A text of ``torch.export``'s with dims by the user's names."""
    users = {identifier: name for name, identifier in identifiers(signature).items()}
    return re.sub(r"\bdim_number_\d+\b", lambda found: users.get(found[0], found[0]), text)
