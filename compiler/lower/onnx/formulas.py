"""Formulas in plain torch for operators that torch itself does not decompose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

FORMULAS: dict[Any, Callable[..., Any]] = {}
