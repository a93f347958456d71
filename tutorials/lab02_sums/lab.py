# %% [markdown]
# # Lab 02: Sums and dot products: who accumulates
#
# About 65 minutes. Lab 01 comes first: you know what one rounding costs, and when a sum swallows a term.
#
# After this lab you can
#
# - say why a dot product of float16 numbers is exact term by term, and where its error comes from;
# - bound the error of a sum by its length, its order and the format of the running sum;
# - explain chunked, pairwise and compensated sums, and write two of them;
# - say what a matrix unit of a GPU promises, and what it does not.

# %%
import matplotlib.pyplot as plt
import numpy as np

import minimp as mp


def rounded(x, fmt=mp.float16):
    """Return a number rounded to a format."""
    return float(mp.formats.round(np.float64(x), fmt))


def numbers(count, seed=0, mean=1.0):
    """Return float16 values around a mean, in float64."""
    drawn = np.random.default_rng(seed).normal(mean, 1.0, count)
    return mp.formats.round(drawn, mp.float16)


# %% [markdown]
# ## Part 1: products are exact, sums are not (10 minutes)
#
# Two float16 numbers have 11 significant bits each. Their product has at most 22, and float32 has 24: the product is
# *exact* in float32. All the error of a dot product lies in the additions, and in the one rounding at the end.

# %%
a, b = numbers(100_000, 1), numbers(100_000, 2)
assert np.array_equal((a.astype(np.float32) * b.astype(np.float32)).astype(np.float64), a * b)

# %% [markdown]
# ### Exercise 1a (warm-up, 5 minutes)
#
# Which products are exact where? `product_bits(p, q)`: the most significant bits that the product of a number with `p`
# and one with `q` significant bits can have. Set `bf16_in_float32` and `float32_in_float64` to True or False: is every
# product of two such numbers (8 and 24 significant bits) exact in the wider format (24 and 53), range aside?


# %%
# BEGIN SOLUTION
def product_bits(p, q):
    """Return the bits that p times q significant bits need."""
    return p + q


bf16_in_float32 = True
float32_in_float64 = True
# END SOLUTION

# %% [markdown]
# ## Part 2: one running sum (20 minutes)
#
# `mp.formats.matmul(a, b, fmt=..., accumulate=NAME)` computes a product of matrices whose sums are taken as the name
# says. `"float16"` rounds every product and every running sum to float16, from left to right.


# %%
def dot(x, y, accumulate):
    """Return the dot product of two float16 vectors, its sum taken by name, not rounded at the end."""
    made = mp.formats.matmul(x[None], y[:, None], fmt=mp.float16, accumulate=accumulate, output=mp.float64)
    return float(made[0, 0])


x, y = np.abs(numbers(4096, 3)), np.abs(numbers(4096, 4))
exact = float(x @ y)
for name in ("float16", "float32", "exact"):
    print(f"{name:8} {dot(x, y, name):12.4f}   relative error {abs(dot(x, y, name) / exact - 1):.1e}")
assert abs(dot(x, y, "float16") / exact - 1) > 0.02
assert abs(dot(x, y, "float32") / exact - 1) < 1e-5

# %% [markdown]
# ### Exercise 2a (10 minutes)
#
# Write `running_sum(terms)`: the sum of a list of floats with every sum rounded to float16, from left to right,
# beginning at 0. (`rounded` rounds one number.) The terms themselves are float16 numbers already.


# %%
def running_sum(terms):
    """Return the sum, rounded to float16 after each addition."""
    # BEGIN SOLUTION
    total = 0.0
    for term in terms:
        total = rounded(total + term)
    return total
    # END SOLUTION


# %% [markdown]
# ### Exercise 2b (10 minutes)
#
# The classic bound: a sum of $K$ terms, each addition rounded with unit roundoff $u$, is off by at most
# $\gamma_{K-1} \sum |t_i|$ with $\gamma_n = n u / (1 - n u)$, as long as $n u < 1$. (The first addition, to 0, is
# exact.)
# Write `bound(terms, u)`, which returns `math.inf` where the bound says nothing.

# %%
import math


def bound(terms, u):
    """Return the largest error that a running sum of these terms can have."""
    # BEGIN SOLUTION
    n = len(terms) - 1
    if n * u >= 1:
        return math.inf
    return n * u / (1 - n * u) * sum(abs(term) for term in terms)
    # END SOLUTION


# %% [markdown]
# The bound is honest, and pessimistic: errors of both signs cancel. It says *nothing* from 2049 float16 terms on. That
# is no accident: at this length a running sum of equal terms stalls.

# %%
assert bound([1.0] * 2048, 2.0**-11) < bound([1.0] * 2049, 2.0**-11) == math.inf
assert running_sum([1.0] * 2048) == running_sum([1.0] * 3000) == 2048
lengths = [2**k for k in range(4, 15)]
errors = {name: [] for name in ("float16", "chunked:64", "float32")}
for length in lengths:
    ones = np.abs(numbers(length, 5))
    for name, row in errors.items():
        total = mp.formats.matmul(
            ones[None], np.ones((length, 1)), fmt=mp.float16, accumulate=name, output=mp.float64
        )
        row.append(max(abs(float(total[0, 0]) / float(ones.sum()) - 1), 1e-9))
figure, axes = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
for (name, row), style in zip(errors.items(), ("-o", "--s", ":^"), strict=True):
    axes.plot(lengths, row, style, color="black", markersize=4, label=name)
axes.set(xscale="log", yscale="log", xlabel="terms", ylabel="relative error of the sum (0: at $10^{-9}$)")
axes.legend(fontsize=9)
mp.labs.show(figure, "lab02_errors")
assert errors["float16"][-1] > 0.3
assert errors["chunked:64"][-1] < 0.01
assert errors["float32"][-1] < 1e-5

# %% [markdown]
# ## Part 3: three better sums (20 minutes)
#
# *Chunks*: sum 64 terms, begin anew, then sum the sums. No running sum gets long, so that none stalls (Wang et al.
# 2018, section 3.1, for FP8 training). *Pairwise*: sum the halves, each the same way; the error grows with
# $\log_2 K$ and not with $K$; NumPy does this. *Compensated* (Kahan 1965): keep what rounding cut off in a second
# variable.
#
# ### Exercise 3a (10 minutes)
#
# Write `pairwise_sum(terms)` with every addition rounded to float16: one term is itself; more are split in the middle,
# `terms[:n // 2]` and `terms[n // 2:]`.


# %%
def pairwise_sum(terms):
    """Return the sum of the halves' sums, rounded to float16 at each addition."""
    # BEGIN SOLUTION
    if len(terms) == 1:
        return terms[0]
    half = len(terms) // 2
    return rounded(pairwise_sum(terms[:half]) + pairwise_sum(terms[half:]))
    # END SOLUTION


# %% [markdown]
# ### Exercise 3b (10 minutes)
#
# Write `kahan_sum(terms)`. With every operation rounded to float16, in this order: `y = term - c`, `t = total + y`,
# `c = (t - total) - y` (two roundings), `total = t`; both begin at 0.


# %%
def kahan_sum(terms):
    """Return Kahan's sum, every operation rounded to float16."""
    # BEGIN SOLUTION
    total = c = 0.0
    for term in terms:
        y = rounded(term - c)
        t = rounded(total + y)
        c = rounded(rounded(t - total) - y)
        total = t
    return total
    # END SOLUTION


# %%
many = numbers(5000, 6).tolist()
print(f"exact {sum(many):.2f}; five thousand terms in float16 alone:")
for name, way in (("running", "float16"), ("chunks of 64", "chunked:64"), ("float32", "float32")):
    print(f"  {name:13} {dot(np.array(many), np.ones(5000), way):10.2f}")

# %% [markdown]
# ## Part 4: what a matrix unit does (5 minutes)
#
# A GPU's matrix unit multiplies small blocks: products exact, sums in a register of about float32. "About": the parts
# of one block are aligned to the largest and *cut*, not rounded, and how many bits survive differs by generation.
# minimp models six of them; their makers publish no exact description, so read them as models.

# %%
truth = float(x @ y)
for name in ("tensorcore:volta", "tensorcore:ampere", "tensorcore:hopper", "float32"):
    print(f"{name:18} error {dot(x, y, name) - truth:+.2e}")
assert abs(dot(x, y, "tensorcore:hopper") / truth - 1) < 1e-4

# %% [markdown]
# ### Exercise 4a (5 minutes)
#
# A sum was computed twice, by two programs that both say "FP32 accumulation", and the last bits differ. Which of these
# statements are true? Set `true_statements` to the set of their letters.
#
# - `"a"`: one of the programs has a bug.
# - `"b"`: both may be within the same error bound.
# - `"c"`: the order of the additions may differ.
# - `"d"`: rounding both results to float16 always makes them equal.

# %%
# BEGIN SOLUTION
true_statements = {"b", "c"}
# END SOLUTION

# %% [markdown]
# ## Part 5: an open question (10 minutes)
#
# The variance of a batch can be computed as the mean of squares less the square of the mean, or as the mean of squared
# distances from the mean. With activations around 100 and a spread of 1, stored in float16 and summed in float32, which
# way would you choose, and what goes wrong with the other? Try both below, for a mean of 10, 100 and 1000.
#
# BEGIN SOLUTION
# *What a good answer contains.* The first way subtracts two numbers near 10000 whose difference is 1: the relative
# error of float32 sums, below 1e-7, is multiplied by 10000, and at a mean of 1000 by a million, which leaves an error
# of some percent. In float16 it is hopeless: numbers near 10000 lie 8 apart, and the square of 1000 is infinite. The
# second way subtracts before it squares. A very good answer notes that float16 *storage* alone costs: the ulp at 1000
# is 0.5.
# END SOLUTION

# %%
for mean in (10.0, 100.0, 1000.0):
    data = numbers(4096, 7, mean).astype(np.float32)
    first = np.mean(data * data, dtype=np.float32) - np.mean(data, dtype=np.float32) ** 2
    second = np.mean((data - np.mean(data, dtype=np.float32)) ** 2, dtype=np.float32)
    wanted = np.var(data.astype(np.float64))
    print(f"mean {mean:6.0f}: {first:8.4f} and {second:8.4f}, in float64 {wanted:8.4f}")
    assert 1e-8 < abs(first / wanted - 1) / mean**2 < 1.5e-7
    assert abs(second / wanted - 1) < 1e-6
assert rounded(1000.0**2) == math.inf
assert mp.formats.next_up(np.float64([1e4, 1e3]), mp.float16).tolist() == [10_008, 1000.5]

# %% [markdown]
# ## What to remember
#
# - Products of 16-bit numbers are exact in float32; what matters is the format and the length of the *running sum*.
# - Short sums are good sums: chunks, pairs and blocks all shorten them. A compensated sum carries its own error along.
# - "FP32 accumulation" promises a bound, not bits.
