"""Trials of training: a dense model, what passes make of it, and the same over several seeds."""
