"""PTX, the text that NVIDIA's compiler makes of a kernel: read, and run on the CPU, thread by thread.

``parsing`` turns the text into entries of instructions; ``machine`` runs one, all threads side by side as
the elements of NumPy arrays, each with its own program counter; ``memory`` holds the arrays and watches every
access; ``floats``, ``conversions`` and ``integers`` say what the instructions compute. An instruction or a
modifier that is not known is an error that names it.
"""
