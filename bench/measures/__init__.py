"""Measurements of one figure each; every module is a command."""
