"""The models that benchmarks and tests build."""
