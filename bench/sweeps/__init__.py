"""Searches for faults over many models; every package is a command."""
