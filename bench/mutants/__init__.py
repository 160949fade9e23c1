"""Mutation testing: small errors made on purpose, and whether a quick test notices each.

``python -m strop.bench.mutants --seed 0`` draws mutants, runs each against the tests that execute
its line, and lists the survivors. No file of the checkout is touched: a mutant is imported in a
process of its own, from memory.
"""
