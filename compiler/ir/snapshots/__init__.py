"""A program on disk, and the reader that takes one from anybody."""
