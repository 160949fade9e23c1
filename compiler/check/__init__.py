"""A run against the original's outputs, and the limits that it is held to."""
