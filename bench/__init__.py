"""Benchmarks: `make bench`, and machine instructions counted ahead of time: `bench.aot`."""
