"""Triton kernels, one a file: the kernel, its launcher in torch, its formula; and the static gate.

Nothing here knows of programs: torch, triton and the standard library are all that is imported.
"""
