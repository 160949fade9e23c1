"""Passes that make a program one that the target can compute; before all others."""
