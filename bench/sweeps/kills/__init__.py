"""Builds that are ended by signals, and what stands at their output folder afterwards."""
