# %% [markdown]
# # Lab 03: Autograd by hand
#
# About 85 minutes. You need lab 01, the chain rule, and what a matrix product is.
#
# After this lab you can
#
# - check any gradient by a random projection and a central difference, and choose the step of that difference;
# - write the forward and the gradient of three operations: one by elements, a product, a loss;
# - put an operation of your own into an autograd engine, second derivatives included;
# - say which gradients 16 bits lose, and what a factor on the loss does about it.

# %%
import matplotlib.pyplot as plt
import numpy as np

import minimp as mp

random = np.random.default_rng(0)

# %% [markdown]
# ## Part 1: is this gradient right? (20 minutes)
#
# An operation $y = f(x)$ has a Jacobian $J$: how each number of $y$ moves with each number of $x$. Nobody writes it
# down. Backward needs only $J^T u$: given the gradient $u$ of the loss by $y$, the gradient of the loss by $x$. In
# this lab an operation is a function that returns two things: its result, and a function from $u$ to $J^T u$, called
# its *pullback*. Here is one that is right and one that is not:


# %%
def square(x):
    """Return x * x, and its pullback."""
    return x * x, lambda u: 2 * x * u


def wrong_square(x):
    """Return x * x, and a pullback that forgets the 2."""
    return x * x, lambda u: x * u


# %% [markdown]
# A second way to the same number needs no derivation at all: move `x` a little along some direction `v`, and look how
# far the result moves:
#
# $$J v \approx \frac{f(x + h v) - f(x - h v)}{2 h}.$$
#
# ### Exercise 1a (warm-up, 5 minutes)
#
# Write `difference(f, x, v, h)`: that central difference. `f` takes an array and returns an array.


# %%
def difference(f, x, v, h):
    """Return the central difference of f at x along v."""
    # BEGIN SOLUTION
    return (f(x + h * v) - f(x - h * v)) / (2 * h)
    # END SOLUTION


# %% [markdown]
# How small should `h` be? Too large, and the curve bends between the two points: an error like $h^2$. Too small,
# and the two values are nearly equal: their rounding errors, divided by $2h$, grow like $u / h$, with $u$ the unit
# roundoff of lab 01. The best is in between.

# %%
steps = 10.0 ** np.arange(-12, 0.5, 0.5)
figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
best = {}
for dtype, style in ((np.float32, "o--"), (np.float64, "s-")):
    x, v = dtype(1.0), dtype(1.0)
    errors = [abs(float(difference(np.exp, x, v, dtype(h))) - np.e) / np.e for h in steps]
    axes.loglog(steps, errors, style, color="black", markersize=4, label=np.dtype(dtype).name)
    best[np.dtype(dtype).name] = (float(steps[int(np.argmin(errors))]), min(errors))
axes.set(xlabel="step h", ylabel="relative error of the derivative of exp at 1")
axes.legend(fontsize=9)
mp.labs.show(figure, "lab03_steps")
for name, (h, error) in best.items():
    print(f"{name}: best step {h:.0e}, error {error:.0e}")
assert 1e-3 <= best["float32"][0] <= 1e-1
assert 1e-7 <= best["float64"][0] <= 1e-4
assert best["float64"][1] < 1e-8
assert best["float32"][1] > 1e-6

# %% [markdown]
# So gradients are checked in float64, with a step near $10^{-5}$. In float32 a check could not tell a wrong
# gradient from a rounded one; in 16 bits it is hopeless.
#
# ### Exercise 1b (10 minutes)
#
# For any `u` of the result's shape and `v` of the input's shape, $\langle u, J v \rangle = \langle J^T u, v
# \rangle$. The left side comes from a difference, the right side from the pullback; one random pair tests every
# entry at once. Write `disagreement(op, x, u, v)`: the distance of the two sides, divided by the larger of their
# sizes, with `h = 1e-5`. `op(x)` returns a result and a pullback, as `square` does.


# %%
def disagreement(op, x, u, v, h=1e-5):
    """Return how far the pullback of op is from a central difference: a number from 0 to 2."""
    # BEGIN SOLUTION
    by_difference = np.sum(u * difference(lambda moved: op(moved)[0], x, v, h))
    by_pullback = np.sum(op(x)[1](u) * v)
    return abs(by_difference - by_pullback) / max(abs(by_difference), abs(by_pullback))
    # END SOLUTION


# %%
x, u, v = random.standard_normal((3, 4, 5))
print(f"square: {disagreement(square, x, u, v):.1e}; wrong_square: {disagreement(wrong_square, x, u, v):.2f}")
assert disagreement(square, x, u, v) < 1e-8
assert abs(disagreement(wrong_square, x, u, v) - 0.5) < 1e-8

# %% [markdown]
# ## Part 2: two operations (20 minutes)
#
# ### Exercise 2a (10 minutes)
#
# SiLU is $y = x \, \sigma(x)$ with $\sigma(x) = 1 / (1 + e^{-x})$ and $\sigma' = \sigma (1 - \sigma)$. Write
# `silu(x)`: it returns `y` and the pullback. Try it with `disagreement` before you ask the checks.


# %%
def silu(x):
    """Return x * sigmoid(x), and its pullback."""
    # BEGIN SOLUTION
    s = 1 / (1 + np.exp(-x))
    return x * s, lambda u: u * (s + x * s * (1 - s))
    # END SOLUTION


# %% [markdown]
# ### Exercise 2b (10 minutes)
#
# A linear layer is $y = x W^T + b$: `x` has shape (rows, in), `w` (out, in), `b` (out,). Write `linear(x, w, b)`:
# it returns `y` and a pullback from `u`, of shape (rows, out), to the three gradients `(dx, dw, db)`. Two aids: a
# gradient has the shape of what it belongs to; and `b` was used once for every row.


# %%
def linear(x, w, b):
    """Return x @ w.T + b, and a pullback to the gradients of x, w and b."""
    # BEGIN SOLUTION
    return x @ w.T + b, lambda u: (u @ w, u.T @ x, u.sum(axis=0))
    # END SOLUTION


# %%
x, w, b = random.standard_normal((6, 4)), random.standard_normal((3, 4)), random.standard_normal(3)
u = random.standard_normal((6, 3))
for name, op, at in (
    ("x", lambda x: (linear(x, w, b)[0], lambda u: linear(x, w, b)[1](u)[0]), x),
    ("w", lambda w: (linear(x, w, b)[0], lambda u: linear(x, w, b)[1](u)[1]), w),
    ("b", lambda b: (linear(x, w, b)[0], lambda u: linear(x, w, b)[1](u)[2]), b),
):
    found = disagreement(op, at, u, random.standard_normal(at.shape))
    print(f"gradient of {name}: {found:.1e}")
    assert found < 1e-7

# %% [markdown]
# ## Part 3: a loss (15 minutes)
#
# ### Exercise 3a (15 minutes)
#
# Cross-entropy takes scores `z` of shape (rows, classes) and `targets`, the right class of each row, to one number:
#
# $$L = \frac{1}{n} \sum_{i} \left( \log \sum_j e^{z_{ij}} - z_{i t_i} \right).$$
#
# Its gradient is short: (softmax less 1 at the target) over $n$. Write `cross_entropy(z, targets)`: the loss, and a
# pullback from a number `u` to the gradient of `z`. It must take scores of 1000 as well: $e^{1000}$ is infinite, but
# subtracting its largest score from a row changes nothing in the true result.


# %%
def cross_entropy(z, targets):
    """Return the mean cross-entropy, and its pullback."""
    # BEGIN SOLUTION
    rows = np.arange(len(z))
    shifted = z - z.max(axis=1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))

    def pullback(u):
        grad = np.exp(logs)
        grad[rows, targets] -= 1
        return u * grad / len(z)

    return -logs[rows, targets].mean(), pullback
    # END SOLUTION


# %% [markdown]
# The three together are a network, and the chain rule is: call the pullbacks in the reverse order. Here it learns
# handwritten digits; all of the training is in this cell.

# %%
digits = mp.data.digits("train")
pixels, labels = digits.inputs.reshape(len(digits.targets), -1).astype(np.float64), np.asarray(digits.targets)
w1, b1 = random.standard_normal((32, pixels.shape[1])) * 0.1, np.zeros(32)
w2, b2 = random.standard_normal((10, 32)) * 0.1, np.zeros(10)


def backward_of(x, targets):
    """Return the loss and the gradients of w1, b1, w2, b2, and of the hidden layer before SiLU."""
    hidden, to_first = linear(x, w1, b1)
    active, to_hidden = silu(hidden)
    scores, to_second = linear(active, w2, b2)
    loss, to_scores = cross_entropy(scores, targets)
    d_active, dw2, db2 = to_second(to_scores(1.0))
    d_hidden = to_hidden(d_active)
    _, dw1, db1 = to_first(d_hidden)
    return loss, (dw1, db1, dw2, db2), d_hidden


first_loss = backward_of(pixels, labels)[0]
for _ in range(400):
    rows = random.integers(0, len(pixels), 64)
    loss, gradients, d_hidden = backward_of(pixels[rows], labels[rows])
    w1, b1, w2, b2 = (w - 0.3 * g for w, g in zip((w1, b1, w2, b2), gradients, strict=True))
last_loss, _, d_hidden = backward_of(pixels, labels)
print(f"loss {first_loss:.2f} before training, {last_loss:.2f} after")
assert 2.0 < first_loss < 3.0
assert last_loss < 0.5

# %% [markdown]
# ## Part 4: the same in an engine, and in 16 bits (20 minutes)
#
# An engine keeps the list of pullbacks for you. `mp.Function` takes an operation of your own, with PyTorch's names:
# `forward(ctx, x)` gets and returns tensors, `ctx.save_for_backward` keeps what backward needs, `backward(ctx, grad)`
# returns the gradient. (Its documentation, `help(mp.Function)`, has a whole example.)
#
# ### Exercise 4a (10 minutes)
#
# Write the class `Silu`, used as `Silu.apply(x)`. Use tensor arithmetic and `mp.functional.sigmoid` in `backward`,
# on `grad` and `ctx.saved_tensors`, not NumPy: what is computed by tensors has a derivative in its turn, and so
# second derivatives come for free. What `forward` computes on the way is a constant to them; so save `x`, and
# compute the sigmoid again.


# %%
# BEGIN SOLUTION
class Silu(mp.Function):
    """x * sigmoid(x)."""

    @staticmethod
    def forward(ctx, x):
        """Keep x, return the result."""
        ctx.save_for_backward(x)
        return x * mp.functional.sigmoid(x)

    @staticmethod
    def backward(ctx, grad):
        """Return grad times the slope."""
        (x,) = ctx.saved_tensors
        s = mp.functional.sigmoid(x)
        return grad * (s + x * s * (1 - s))


# END SOLUTION


# %%
points = mp.tensor([-2.0, 0.0, 3.0], requires_grad=True)
Silu.apply(points).sum().backward()
print("slope of SiLU at -2, 0 and 3:", points.grad.tolist())
assert abs(points.grad.tolist()[1] - 0.5) < 1e-6

# %% [markdown]
# Now the gradients of the trained network. Each of the numbers in `d_hidden` was divided by the number of rows, and
# the network is right about most rows: they are small. float16 ends at $2^{-24}$, about $6 \cdot 10^{-8}$.

# %%
sizes = np.abs(d_hidden[d_hidden != 0])
as_half = mp.formats.round(sizes, mp.float16)
print(
    f"{sizes.size} gradients, median {np.median(sizes):.1e}; float16 makes {np.mean(as_half == 0):.0%} of them 0"
)
assert 0.02 < np.mean(as_half == 0) < 0.5
assert 1e-8 < np.median(sizes) < 1e-4

# %%
figure, axes = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
bins = np.arange(-40, 1)
axes.hist(np.log2(sizes), bins, histtype="stepfilled", color="0.85", edgecolor="black", label="as they are")
axes.hist(np.log2(sizes * 2.0**10), bins, histtype="step", color="black", linestyle="--", label="times 1024")
axes.axvline(-25, color="black", linestyle=":", label="below: 0 in float16")
axes.set(xlabel="size of a gradient, as a power of two", ylabel="gradients")
axes.legend(fontsize=9)
mp.labs.show(figure, "lab03_gradients")

# %% [markdown]
# ### Exercise 4b (5 minutes)
#
# If the loss is multiplied by a number, so is every gradient, by the chain rule. Write `share_lost(gradients,
# scale)`: of those numbers of an array that are *not* zero, the share (from 0 to 1) that rounds to zero in float16
# after multiplication by `scale`. `mp.formats.round(x, mp.float16)` rounds.


# %%
def share_lost(gradients, scale):
    """Return the share of the gradients that float16 flushes to zero at this scale."""
    # BEGIN SOLUTION
    there = gradients[gradients != 0]
    return float(np.mean(mp.formats.round(there * scale, mp.float16) == 0))
    # END SOLUTION


# %%
for scale in (1, 2**5, 2**10, 2**15):
    print(f"loss times {scale:5}: {share_lost(d_hidden, scale):.2%} of the gradients are lost")
assert share_lost(d_hidden, 2**15) < 0.01 < share_lost(d_hidden, 1)

# %% [markdown]
# ## Part 5: an open question (10 minutes)
#
# Your `Silu` saves `x` and computes the sigmoid again. It could save the sigmoid, or the slope itself, in 16 bits.
# Which of the three takes the least memory in a region of float16, and which gives the most accurate gradient? Does
# the same answer hold for `exp`? Try one of them in a cell of your own, on inputs from -10 to 10, and give numbers.
#
# BEGIN SOLUTION
# *What a good answer contains.* All three keep one array of the size of `x`; if `x` is kept anyway by the layer
# before, saving it costs nothing more. A slope saved in float16 has one rounding, a relative error of at most
# 2^-11, except where it is below 2^-14 (x below about -12) or passes zero (near -1.28, where the terms cancel).
# From a rounded `s`, `1 - s` loses everything for large x: s is 1 in float16 from about 8 on, though there the
# slope is near 1 anyway. For `exp` the result is the slope, so saving the result is both cheapest and best. A very
# good answer adds that saving the slope as a constant gives up second derivatives.
# END SOLUTION

# %%
inputs = np.linspace(-10, 10, 2001)
slope = silu(inputs)[1](1.0)
saved = mp.formats.round(slope, mp.float16)
big = np.abs(slope) > 2.0**-14
worst = np.max(np.abs(saved - slope)[big] / np.abs(slope)[big])
print(f"a slope saved in float16 is off by at most {worst:.1e} of itself")
assert worst <= 2.0**-11

# %% [markdown]
# ## What to remember
#
# - Backward is a chain of pullbacks; each has a forward to be checked against, by one random projection, in float64.
# - A gradient has the shape of what it belongs to, and sums over whatever was used more than once.
# - Gradients are many powers of two smaller than what they belong to: float16 loses them where a factor saves them.
#   Lab 05 makes a rule of that.
