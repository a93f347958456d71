"""Quantised numbers and integer layers, beside PyTorch's and beside the reference of ONNX.

- ``choosing``: ranges to scales and zero points. ``rounding``: numbers to codes and back, and gradients.
- ``layers``: linear layers, convolutions, sums and pools on codes, beside QNNPACK. ``dynamic``: layers whose
  activations are quantised in each call. ``engines``: the same products in x86, FBGEMM and oneDNN, which
  on some processors cut sums off at int16. ``edges``: what has no code.
- ``torch_integers``, ``onnx_integers``: the sections.
- ``beside``: from what both gave to a row. ``samples``: numbers, codes, and torch's tensors of them.

A difference counts as documented only where its reason is tried on the spot: the rule that the reason names
gives every code that the framework gave.
"""
