"""What a target can do, and how its files are opened and run."""
