"""What ``strop bench --suite`` and ``python -m strop.bench`` measure."""
