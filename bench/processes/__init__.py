"""Processes that benchmarks start: spawned ones that answer, forked ones, command lines."""
