"""Dot products and sums with the accumulation spelled out: order, precision, hardware.

- ``orders``: the table of names, and ``matmul``. ``sums``: sums of terms.
- ``summation``, ``tensorcore``, ``exactdot``: the readable definitions, a step over k at a time.
- ``quicksums``, ``quickunits``, ``quickround``, ``ordered``: faster forms of them, with the same bits.
- ``operands``, ``workspace``: tiles of the factors, and memory that is used again.
- ``bounds``: how far off each can be. ``explanations`` and ``pages``: a page on each.
"""
