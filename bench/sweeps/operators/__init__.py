"""Torch's own samples of its operators, each built as a model."""
