"""Block formats: small elements that share a scale, and what a tensor loses in them.

- ``table``: the formats and the rules for scales, as data. ``grid``: an array cut into blocks and tiles.
- ``scales``, ``arrays``: there and back. ``report``: what was lost.
"""
