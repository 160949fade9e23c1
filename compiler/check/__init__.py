"""Compares a run with the outputs of the original, and applies the limits of the recipe."""
