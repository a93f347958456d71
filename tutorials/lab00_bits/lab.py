# %% [markdown]
# # Lab 00: The bits of a number
#
# About 60 minutes. No earlier lab is needed; bring Python, a little NumPy, and pencil and paper.
#
# After this lab you can
#
# - read the sign, exponent and fraction of a 16-bit number, and say which value they stand for;
# - say what a subnormal number is, and what happens below the smallest one;
# - tell which of two formats reaches further and which is finer, from their bits alone;
# - turn a value into bits by hand, rounding to the nearest neighbour.
#
# An exercise ends with the line `raise mp.labs.NotAnswered(...)`: write your answer in its place.
# `minimp labs check bits` says what it thinks of your answers.

# %%
import math

import matplotlib.pyplot as plt
import numpy as np

import minimp as mp

# %% [markdown]
# ## Part 1: three fields (10 minutes)
#
# A float16 number has 16 bits: 1 for the sign, 5 for the exponent, 10 for the fraction. Here is one tenth:

# %%
tenth = mp.formats.inspect(0.1, mp.float16)
print(tenth)

# %% [markdown]
# Read the line `bits` from left to right. The exponent field is a plain binary number that counts from 0; what it
# *means* is that number less the *bias*, 15 for float16. The fraction field holds the digits after the binary point;
# the digit before the point is 1 and is not stored (it is called hidden, or implicit).
#
# So a *normal* number is $(-1)^s \cdot 2^{e - 15} \cdot (1 + f / 1024)$.

# %%
assert int(mp.formats.encode(np.array(0.1), mp.float16)) == 0b0_01011_1001100110
assert tenth.value == 2.0 ** (0b01011 - 15) * (1 + 0b1001100110 / 1024)
print(f"one tenth in float16 is {tenth.value!r}")

# %% [markdown]
# ### Exercise 1a (warm-up, 5 minutes)
#
# Write `fields(code)`: from a 16-bit code (an integer from 0 to 65535) to the tuple `(sign, exponent, fraction)` of
# three integers, as they are stored. Use shifts (`>>`) and masks (`&`).


# %%
def fields(code):
    """Return the stored sign, exponent and fraction of a float16 code."""
    # BEGIN SOLUTION
    return code >> 15, (code >> 10) & 0b11111, code & 0b1111111111
    # END SOLUTION


# %% [markdown]
# ### Exercise 1b (5 minutes)
#
# bfloat16 has 8 bits of exponent and 7 of fraction. Write the same for it: `bfloat16_fields(code)`.


# %%
def bfloat16_fields(code):
    """Return the stored sign, exponent and fraction of a bfloat16 code."""
    # BEGIN SOLUTION
    return code >> 15, (code >> 7) & 0xFF, code & 0x7F
    # END SOLUTION


# %% [markdown]
# ## Part 2: from bits to values (15 minutes)
#
# Two values of the exponent field are special. All ones: infinity if the fraction is 0, else NaN ("not a number").
# All zeros: the hidden digit is 0, not 1, and the exponent is that of the smallest normal number. Such numbers are
# *subnormal*; zero is one of them. They fill the gap between zero and the smallest normal number evenly:

# %%
half = mp.float16
assert half.smallest_normal == 2.0**-14
assert half.smallest_subnormal == 2.0**-24
assert half.smallest_normal / half.smallest_subnormal == 1024
print(
    f"float16: smallest normal {half.smallest_normal:.3e}, smallest subnormal {half.smallest_subnormal:.3e}"
)

# %% [markdown]
# ### Exercise 2a (10 minutes)
#
# Write `value_of(code)`: the value of any float16 code as a Python float. Mind zero and minus zero, subnormals,
# infinities and NaN. `math.inf` and `math.nan` are there. There are only 65536 codes: the check tries all of them.


# %%
def value_of(code):
    """Return the value of a float16 code."""
    # BEGIN SOLUTION
    sign, exponent, fraction = code >> 15, (code >> 10) & 0b11111, code & 0b1111111111
    if exponent == 0b11111:
        size = math.nan if fraction else math.inf
    elif exponent == 0:
        size = fraction * 2.0**-24
    else:
        size = (1024 + fraction) * 2.0 ** (exponent - 25)
    return -size if sign else size
    # END SOLUTION


# %% [markdown]
# ### Exercise 2b (5 minutes)
#
# How many float16 codes are finite? How many are subnormal (zero and minus zero not counted)? How many are NaN?
# Set `finite_codes`, `subnormal_codes` and `nan_codes`; a sum over all codes is as good as an argument on paper.

# %%
# BEGIN SOLUTION
finite_codes = 65536 - 2 * 1024
subnormal_codes = 2 * 1023
nan_codes = 2 * 1023
# END SOLUTION

# %% [markdown]
# ## Part 3: reach and spacing (15 minutes)
#
# Between two neighbouring powers of two, every format has equally many numbers. So the distance between neighbours,
# one *unit in the last place* (ulp), doubles from one power of two to the next. The picture shows it for three formats.

# %%
formats = {"float16": "-", "bfloat16": "--", "float8_e4m3fn": ":"}
figure, axes = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
for name, style in formats.items():
    fmt = mp.formats.get(name)
    reach = np.geomspace(fmt.smallest_subnormal, fmt.max, 400)
    axes.plot(reach, mp.formats.ulp(reach, fmt), style, color="black", label=name)
axes.set(xscale="log", yscale="log", xlabel="value", ylabel="distance to the next number (1 ulp)")
axes.set_xlim(1e-9, 1e6)
axes.set_ylim(1e-13, 1e5)
axes.legend(fontsize=9)
mp.labs.show(figure, "lab00_spacing")

# %% [markdown]
# Each line is a staircase that is flat at its lower end: below the smallest normal number the distance stays the same.
#
# ### Exercise 3a (10 minutes)
#
# Write `spacing(x)`: the distance from `x` to the next larger float16 number, for `x` from 0 up to but not including
# 32768. `math.frexp(x)` gives `(m, e)` with `x = m * 2**e` and `0.5 <= m < 1`.


# %%
def spacing(x):
    """Return the distance from x to the next larger float16 number."""
    # BEGIN SOLUTION
    if x < 2.0**-14:
        return 2.0**-24
    _, e = math.frexp(x)
    return 2.0 ** (e - 1 - 10)
    # END SOLUTION


# %% [markdown]
# ### Exercise 3b (5 minutes)
#
# From which power of two on are *all* float16 numbers whole numbers? And from which on all *even* numbers? Set
# `whole_from` and `even_from` (the numbers themselves, such as 8.0).

# %%
# BEGIN SOLUTION
whole_from = 1024.0
even_from = 2048.0
# END SOLUTION

# %% [markdown]
# ## Part 4: from values to bits (10 minutes)
#
# Most values lie between two float16 numbers. To *round to nearest, ties to even* takes the closer one, and the one
# whose last bit is 0 where both are equally close. What is too large for the format becomes infinity: from half an ulp
# above the largest number on.

# %%
for value in (2049.0, 2051.0, 65519.0, 65520.0):
    print(f"{value:8} becomes {float(mp.formats.round(np.array(value), mp.float16))}")
assert mp.formats.round(np.array(2049.0), mp.float16) == 2048.0
assert mp.formats.round(np.array(2051.0), mp.float16) == 2052.0
assert np.isinf(mp.formats.round(np.array(65520.0), mp.float16))

# %% [markdown]
# ### Exercise 4a (10 minutes)
#
# Write `to_float16(x)`: the float16 number nearest to a finite `x`, ties to even, as a Python float. Your `spacing`
# helps: count in steps of it (Python's own `round` already takes ties to even). Mind the sign, and what becomes
# infinite.


# %%
def to_float16(x):
    """Return x rounded to the nearest float16 number, ties to even."""
    # BEGIN SOLUTION
    size = abs(x)
    _, e = math.frexp(size)
    step = 2.0 ** max(e - 11, -24)
    nearest = round(size / step) * step
    nearest = math.inf if nearest > 65504 else nearest
    return math.copysign(nearest, x)
    # END SOLUTION


# %% [markdown]
# ## Part 5: an open question (10 minutes)
#
# A friend stores money in float16: euros, with cents after the point. Up to which amount is every cent told from the
# next? Would bfloat16 be better or worse, and from where on? Would you store cents as whole numbers instead, and how
# far would that reach? Write five sentences with numbers, and compute each number in the cell below.
#
# BEGIN SOLUTION
# *What a good answer contains.* Neighbours must be less than 0.01 apart: $2^{e-10} < 0.01$ holds up to the power of two
# 8 (spacing 0.0078 from 8 to 16), so up to 16 euros. bfloat16 has 3 bits less: up to 2 euros. Whole cents are exact up
# to 2048 in float16, which is 20.48 euros. An int16 of cents reaches 327.67 euros. A very good answer notes that 0.01
# itself is no float16 number, so that sums of cents drift long before.
# END SOLUTION

# %%
assert float(np.spacing(np.float16(15.9))) < 0.01 < float(np.spacing(np.float16(16)))

# %% [markdown]
# ## What to remember
#
# - Exponent bits buy reach, fraction bits buy fineness; bfloat16 has float32's reach and 3 digits less than float16.
# - The distance between neighbours doubles with each power of two, and stays the same among the subnormals.
# - float16 ends at 65504 above and at $2^{-24}$ below. The next labs are about what happens there.
