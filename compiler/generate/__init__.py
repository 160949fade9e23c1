"""Runs a decoder token by token: prompts, the loop, sampling, beams, and text as it comes."""
