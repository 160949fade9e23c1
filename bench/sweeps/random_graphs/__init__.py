"""Small random models by NNSmith, built and compared."""
