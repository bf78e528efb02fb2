"""What the implementations for CUDA GPUs share: shapes, and how an array is divided into blocks."""
