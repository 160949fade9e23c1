"""Silence torch's reports on packages and fallbacks, which do not help the user."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_torch() -> Iterator[None]:
    """No warnings, and from torch's loggers nothing below critical; errors are still raised.

    Standard error is held back too: where an export fails, torch prints the graph so far.
    """
    names = [n for n in logging.root.manager.loggerDict if n.startswith("torch.")]
    # Those without a level of their own take that of "torch".
    own = [n for n in names if logging.getLogger(n).level != logging.NOTSET]
    levels = {n: logging.getLogger(n).level for n in ("torch", *own)}
    try:
        for name in levels:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
