"""Searches for faults over many models; every module and package is a command."""
