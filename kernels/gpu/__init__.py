"""What the rooms for CUDA GPUs share: shapes, tuning, and the steps before and after a kernel."""
