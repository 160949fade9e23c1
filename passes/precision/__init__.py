"""Programs in float32 become programs in 16 bits."""
