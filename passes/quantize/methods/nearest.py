"""Rounding to nearest, with scales that cover every value."""

from __future__ import annotations

from strop.passes.quantize.methods.layer import Chosen, Layer, Settings


def nearest(layer: Layer, settings: Settings) -> Chosen:
    """The scales that cover each group; no value is cut off."""
    return Chosen(*layer.covering())
