"""Fast twins of the readable roundings and codes: the same bits, some fifty times sooner, in plain NumPy.

- ``lanes``: one cache-sized block at a time, in work space that is kept.
- ``plans``: which trick serves which format, and why it is right.
- ``grid``: deterministic rounding. ``stochastic``: rounding with an element's own dice.
- ``storage``: codes.

:mod:`minimp.formats.casting` chooses between these and the readable ones; nobody else need come here.
"""
