"""Patterns, rules, passes and pipelines, and the records of passes."""
