"""The program: its graph, weights and contract; what builds, prints, checks and runs it."""
