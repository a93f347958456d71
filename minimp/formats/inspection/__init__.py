"""Under the glass: one number, or one calculation, taken apart for people, in text and in notebooks.

- ``anatomy``: a number in a format. ``display``: its bit diagram in HTML.
- ``grammar``, ``expressions``, ``calculation``: from a text to the steps of a calculation.
- ``effects``, ``reasons``, ``wording``: what a rounding did, why, and how numbers are put into words.
"""
