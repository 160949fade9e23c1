"""Tiny models of the types of ``transformers``."""
