"""Passes that replace what a target cannot compute; they run before all others."""
