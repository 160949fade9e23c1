"""Patterns, rules, passes and pipelines, and what is recorded between passes."""
