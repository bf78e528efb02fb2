"""Benchmarks: `make bench`, and machine instructions counted ahead of time: `bench.aot`."""

RATIO = "ratio to FJFormer's formula under jit"  # what stored benchmark results call it
