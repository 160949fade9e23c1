"""``build()``: what runs all rooms in order, and what is told when one of them fails."""
