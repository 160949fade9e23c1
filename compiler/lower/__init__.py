"""Lowerings: from a program to what a runtime loads."""
