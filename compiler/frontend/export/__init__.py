"""``torch.export``, what it cannot take as it stands, and what becomes of its result."""
