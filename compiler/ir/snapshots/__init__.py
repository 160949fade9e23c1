"""A program on disk, and a reader that accepts untrusted ones."""
