"""Distillation: losses, taps on values inside programs, and recovery from the original."""
