"""Lowering to a launch plan: kernels of strop's where there are some, torch for the rest."""
