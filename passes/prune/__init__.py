"""Make programs smaller: what must go together, what matters least, and dropping it."""
