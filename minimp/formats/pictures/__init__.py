"""Where the values of formats lie and what a tensor loses in them, counted and drawn.

- ``ranges``: binades, of formats and of tensors. ``losses``: what becomes of each number of a tensor.
- ``axes``, ``number_line``: the pictures in text. ``plots``, ``figures``: the same by matplotlib.
"""
