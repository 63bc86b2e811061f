"""Tensor arithmetic: moments, matrix roots, faster kernels for CPUs; the machine's cores and memory."""
