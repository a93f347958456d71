# %% [markdown]
# # Lab 01: Rounding, ulps and swamping
#
# About 70 minutes. Lab 00 comes first: you know what a float16 number is made of.
#
# After this lab you can
#
# - bound the error of one rounding, relative and in ulps, and measure it;
# - tell the rounding modes apart by what they do to ties and to signs;
# - predict when `a + b` is exactly `a`, and which weight updates a float16 weight swallows;
# - explain why rounding at random keeps a sum alive that rounding to nearest stops.

# %%
import math

import matplotlib.pyplot as plt
import numpy as np

import minimp as mp


def rounded(x, fmt=mp.float16, **options):
    """Return x rounded to a format: a float, or an array of them."""
    made = mp.formats.round(np.asarray(x, np.float64), fmt, **options)
    return float(made) if made.ndim == 0 else made


# %% [markdown]
# ## Part 1: the error of one rounding (15 minutes)
#
# Between $2^e$ and $2^{e+1}$ the numbers of a format with $p$ bits of precision (the hidden one counted) lie
# $2^{e-p+1}$ apart: that is 1 ulp there. The nearest of them is at most half of that away. Divided by the value, which
# is at least $2^e$, the *relative* error is at most $u = 2^{-p}$, the unit roundoff:
#
# $$\left| \frac{\mathrm{round}(x) - x}{x} \right| \le u,$$
#
# where $u$ is $2^{-11}$ for float16 and $2^{-8}$ for bfloat16.

# %%
random = np.random.default_rng(0)
values = random.uniform(1, 1000, 100_000)
for fmt, u in ((mp.float16, 2.0**-11), (mp.bfloat16, 2.0**-8)):
    worst = np.max(np.abs(rounded(values, fmt) - values) / values)
    assert 0.9 * u < worst <= u
    print(f"{fmt.name:9} largest relative error {worst:.6f}, bound {u:.6f}")

# %% [markdown]
# ### Exercise 1a (warm-up, 5 minutes)
#
# Write `roundoff(bits)`: the unit roundoff of a format that *stores* so many bits of fraction (10 for float16, 7 for
# bfloat16, 23 for float32), under rounding to nearest.


# %%
def roundoff(bits):
    """Return the largest relative error of one rounding to nearest."""
    # BEGIN SOLUTION
    return 2.0 ** -(bits + 1)
    # END SOLUTION


# %% [markdown]
# ### Exercise 1b (10 minutes)
#
# Errors are often given in ulps: how many steps of the format lie between a result and the truth. Write
# `ulp_error(result, truth, fmt)`: the distance between the two, divided by the ulp of `fmt` at the truth.
# `mp.formats.ulp(x, fmt)` gives the ulp as an array. The truth need not be a number of the format.


# %%
def ulp_error(result, truth, fmt):
    """Return |result - truth| in ulps of fmt, as a float."""
    # BEGIN SOLUTION
    return float(abs(result - truth) / mp.formats.ulp(np.float64(truth), fmt))
    # END SOLUTION


# %% [markdown]
# ## Part 2: five ways to round (10 minutes)
#
# Nearest-even is the rule of almost all hardware. The others exist for a reason each: down and up for intervals,
# toward zero because it is cheap, to odd for rounding twice without harm.

# %%
ties = np.array([2049.0, 2051.0, -2049.0, -2051.0])  # halfway between two float16 numbers
for mode in ("nearest_even", "nearest_away", "toward_zero", "up", "down"):
    print(f"{mode:13}", rounded(ties, rounding=mode))

# %% [markdown]
# ### Exercise 2a (10 minutes)
#
# Somebody rounded the four numbers 1.5, 2.5, -1.5, -2.5 to whole numbers by an unknown mode and got `results`, a
# list of
# four floats. Write `which_mode(results)`: the name of the mode (one of the five above), or `"none"` if none fits.


# %%
def which_mode(results):
    """Return the name of the mode that makes these of 1.5, 2.5, -1.5 and -2.5."""
    # BEGIN SOLUTION
    table = {
        "nearest_even": [2, 2, -2, -2],
        "nearest_away": [2, 3, -2, -3],
        "toward_zero": [1, 2, -1, -2],
        "up": [2, 3, -1, -2],
        "down": [1, 2, -2, -3],
    }
    return next((mode for mode, row in table.items() if row == list(results)), "none")
    # END SOLUTION


# %% [markdown]
# ## Part 3: swamping (20 minutes)
#
# Add a small number to a large one, and the sum is rounded to the large one's ulp. If the small one is less than half
# of it, nothing happens at all. The small number is *swamped*. Counting is the simplest victim:


# %%
def count(steps, fmt, **options):
    """Add 1 so often, rounding each sum; return all sums."""
    sums, total = [], 0.0
    for _ in range(steps):
        total = rounded(total + 1.0, fmt, **options)
        sums.append(total)
    return sums


with_float16, with_bfloat16 = count(3000, mp.float16), count(3000, mp.bfloat16)
assert (with_float16[-1], with_bfloat16[-1]) == (2048.0, 256.0)
print(f"3000 ones add up to {with_float16[-1]:.0f} in float16 and to {with_bfloat16[-1]:.0f} in bfloat16")

# %%
by_chance = count(3000, mp.bfloat16, rounding="stochastic", rng=np.random.default_rng(1))
figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
axes.plot(with_float16, "-", color="black", label="float16, to nearest")
axes.plot(with_bfloat16, "--", color="black", label="bfloat16, to nearest")
axes.plot(by_chance, ":", color="black", label="bfloat16, at random")
axes.set(xlabel="ones added", ylabel="sum")
axes.legend(fontsize=9)
mp.labs.show(figure, "lab01_counting")
assert abs(by_chance[-1] - 3000) < 600

# %% [markdown]
# ### Exercise 3a (5 minutes)
#
# From which value on does adding 1 to it change nothing, in a format that stores `bits` bits of fraction? Write
# `stalls_at(bits)`. (At the value itself, `value + 1` is a tie, and ties go to the even neighbour.)


# %%
def stalls_at(bits):
    """Return the number at which counting by ones stops."""
    # BEGIN SOLUTION
    return 2.0 ** (bits + 1)
    # END SOLUTION


# %% [markdown]
# ### Exercise 3b (10 minutes)
#
# Training subtracts small updates from weights. Write `is_swallowed(weight, update)`: whether `weight + update`,
# rounded
# to float16, is `weight` again. `weight` is a float16 number. Do it with `mp.formats.ulp`, not by adding: which part of
# an ulp must the update reach? Two things to mind: ties, and weights that are powers of two, below which the numbers
# lie twice as close. (`rounded` may help you to check yourself.)


# %%
def is_swallowed(weight, update):
    """Return whether the update leaves a float16 weight as it is."""
    # BEGIN SOLUTION
    if update == 0:
        return True
    toward = math.inf if update > 0 else -math.inf
    neighbour = float(np.nextafter(np.float16(weight), np.float16(toward)))
    half = abs(neighbour - weight) / 2
    even = int(mp.formats.encode(np.float64(weight), mp.float16)) % 2 == 0
    return abs(update) < half or (abs(update) == half and even)
    # END SOLUTION


# %% [markdown]
# A rule of thumb follows: an update may be lost when the weight is 2048 times as large, and is lost from 4096 on
# (Micikevicius et al. 2018, section 3.1, count it as a shift by 11 bits, and by 12).

# %%
weights = rounded(random.uniform(0.5, 1.0, 2000))
for ratio, share, spread in ((2047, 0.0, 0), (3000, 0.5, 0.15), (4096, 1.0, 0)):
    lost = np.mean(rounded(weights - weights / ratio) == weights)
    print(f"weight / update = {ratio:4}: {lost:6.1%} of the updates are lost")
    assert abs(lost - share) <= spread

# %% [markdown]
# ## Part 4: rounding at random (15 minutes)
#
# Stochastic rounding goes up with a probability equal to how far the value lies on the way up. One rounding is worse
# than to nearest; but its error is zero *on average*, so that many small updates arrive in the end.
#
# ### Exercise 4a (10 minutes)
#
# Write `stochastic(x, draw)`: `x` rounded to a whole number, up if `draw` (a uniform random number from 0 to below
# 1) is
# below the part of the way that lies behind `x`, else down. A whole number stays what it is, whatever is drawn.


# %%
def stochastic(x, draw):
    """Return x rounded to a neighbouring whole number, at random."""
    # BEGIN SOLUTION
    low = math.floor(x)
    return float(low + (draw < x - low))
    # END SOLUTION


# %% [markdown]
# ### Exercise 4b (5 minutes)
#
# The draws are uniform. What is the *expected value* of `stochastic(2.3, draw)`, and what is its *variance*? Set
# `expected` and `variance`.

# %%
# BEGIN SOLUTION
expected = 2.3
variance = 0.3 * 0.7
# END SOLUTION

# %% [markdown]
# ## Part 5: an open question (10 minutes)
#
# A running mean is updated as `mean = mean + (x - mean) / n`. In float16, with values around 1, what happens for large
# `n`? From which `n` on do you expect trouble, and does the picture change if you keep the *sum* instead? Try it in the
# cell below, and propose one remedy that stays in 16 bits.
#
# BEGIN SOLUTION
# *What a good answer contains.* The correction is about `(x - mean) / n`; with a spread near 1 it falls below half an
# ulp of the mean (2^-12 for a mean from 0.5 to 1) at n of some thousand, and the mean freezes where it is, which is
# harmless only if the data do not drift. The sum swamps earlier, at 2048. Remedies: stochastic rounding of the update,
# Kahan's compensation, or a mean of means over blocks. A very good answer measures the freezing point.
# END SOLUTION

# %%
mean = 0.0
for n, x in enumerate(random.normal(1.0, 0.3, 5000), 1):
    mean = rounded(mean + rounded(rounded(x - mean) / n))
print(f"running mean of 5000 values around 1 in float16: {mean:.4f}")
assert 0.9 < mean < 1.1

# %% [markdown]
# ## What to remember
#
# - One rounding to nearest costs at most half an ulp, a relative error of at most $2^{-p}$.
# - What is below half an ulp of a sum is not added at all: 2048 is where float16 stops counting, 256 where bfloat16
#   does.
# - Rounding at random loses more each time and nothing on average. Lab 06 trains with it.
