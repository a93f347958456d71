"""CUDA kernels: their sources, what each is called with, and how they are compiled, kept and loaded.

A kernel is plain CUDA C++ in a ``.cu`` file here, declared in :mod:`minimp_backends.kernels.families`,
beside a NumPy function that does the same and is its specification. Nothing in this package needs a
GPU, or CuPy, until a kernel is launched: declarations and compiler can be used on any machine.
"""
