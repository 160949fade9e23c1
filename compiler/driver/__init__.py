"""``build()``: runs all stages in order, and reports which one failed."""
