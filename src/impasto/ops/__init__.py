"""Tensor arithmetic: moments, matrix roots, faster kernels for CPUs."""
