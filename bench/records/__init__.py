"""What benchmarks put on record: figures with their bounds, and duels; read, judged, compared."""
