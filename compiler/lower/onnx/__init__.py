"""Lowering to ONNX from the undecomposed graph, by a table from operator to emitter.

``emitter.py`` walks the program; the other modules are rows of the table, one family a file.
"""
