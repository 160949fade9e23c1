"""The textbook's three applications: train, prune, distil, quantize, build and run."""
