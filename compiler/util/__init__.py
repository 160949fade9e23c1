"""What knows no graph: errors, files, signals, the terminal, numbers."""
