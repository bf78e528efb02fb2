"""What the rooms for CUDA GPUs share: shapes, the division of an array into blocks, and what happens around a kernel."""
