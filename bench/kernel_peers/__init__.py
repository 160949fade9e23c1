"""Kernels of other packages, compiled and counted beside ours, without a GPU."""
