"""A device of host memory, that behaves as CuPy does: for finding, without a GPU, what would break on one."""
