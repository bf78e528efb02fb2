"""Kernels through the real compilers, on a machine without the device: machine instructions counted, not timed."""
