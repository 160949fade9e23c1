"""What a program computes becomes what kernels of a target compute."""
