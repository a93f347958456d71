# %% [markdown]
# # Lab 05: Loss scaling
#
# About 75 minutes. Lab 04 comes first: gradients that float16 rounds to zero, without a word.
#
# After this lab you can
#
# - say from a histogram of gradients what a loss scale would lose, and which scales lose nothing;
# - explain why scales are powers of two, and what happens at scales that are too large;
# - write the dynamic scaler: when it grows, when it backs off, and which steps are skipped;
# - put unscaling, checking and clipping in the right order.

# %%
import warnings
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np

import minimp as mp

F = mp.functional
train, test = mp.data.digits("train").inputs, mp.data.digits("test").inputs
PARTS = 4096  # the batch is one of so many parts, whose gradients add up


def autoencoder(seed=0):
    """Return an auto-encoder for the digits, 64 numbers to 16 and back."""
    mp.manual_seed(seed)
    widths = (64, 128, 16, 128, 64)
    layers = [
        layer for before, after in pairwise(widths) for layer in (mp.nn.Linear(before, after), mp.nn.ReLU())
    ]
    return mp.nn.Sequential(*layers[:-1])


def batches(steps, seed=0):
    """Return so many batches of 256 digits, drawn at random."""
    rows = np.random.default_rng(seed).integers(0, len(train), (steps, 256))
    return [train[each] for each in rows]


# %% [markdown]
# ## Part 1: a histogram of gradients (15 minutes)
#
# The chain rule is linear: multiply the loss by $S$, and every gradient is multiplied by $S$. If $S = 2^k$, then only
# exponents change, by $k$; no digit is touched, and dividing by $S$ afterwards gives the same number back. So all
# that decides about a scale is the histogram of the gradients' exponents.
#
# Here are the gradients of one training step in float32, of activations and weights alike; lab 04 showed that this
# training fails in float16.

# %%
model = autoencoder()
optimizer = mp.optim.Adam(model.parameters(), lr=1e-3)
step = mp.TrainStep(model, F.mse_loss, optimizer, "fp32", micro_batches=PARTS)
with mp.trace.record() as trace:
    step(train[:256], train[:256])
weights = np.concatenate([p.grad.numpy().ravel() for p in model.parameters()])
print(
    f"{weights.size} gradients of weights, from {np.abs(weights[weights != 0]).min():.1e} to {weights.max():.1e}"
)

# %% [markdown]
# ### Exercise 1a (warm-up, 5 minutes)
#
# Write `histogram(values)`: a dict from exponent $e$ to how many of the numbers have $2^e \le |v| < 2^{e+1}$. Zeros
# have no exponent and are left out. (`np.frexp` gives an exponent that is one larger, exactly; a rounded logarithm
# may be off by one just below a power of two.)


# %%
def histogram(values):
    """Return exponent -> count of the non-zero values."""
    # BEGIN SOLUTION
    values = np.asarray(values, np.float64)
    _, exponents = np.frexp(values[values != 0])
    found, counts = np.unique(exponents - 1, return_counts=True)
    return {int(e): int(count) for e, count in zip(found, counts, strict=True)}
    # END SOLUTION


# %% [markdown]
# ### Exercise 1b (10 minutes)
#
# Write `fate(counts, power)`: of such a histogram `counts`, how many numbers does the scale `2**power` flush to zero,
# and how many does it make infinite in float16? Return `(flushed, overflowed)`. Go by whole powers of two: zero are
# those whose scaled exponent is below -25 (float16 rounds less than $2^{-25}$ to zero), infinite those from 16 on.


# %%
def fate(counts, power):
    """Return how many of the counted numbers 2**power flushes to zero, and how many it makes infinite."""
    # BEGIN SOLUTION
    flushed = sum(count for e, count in counts.items() if e + power < -25)
    return flushed, sum(count for e, count in counts.items() if e + power >= 16)
    # END SOLUTION


# %%
counts = histogram(weights)
whole = sum(counts.values())
for power in (0, 8, 16, 24, 32, 40):
    flushed, overflowed = fate(counts, power)
    print(f"scale 2^{power:<2}  flushed {flushed / whole:6.2%}  infinite {overflowed / whole:6.2%}")
assert fate(counts, 0)[0] > 0.3 * whole
assert fate(counts, 24) == (0, 0)

# %% [markdown]
# minimp counts so, too, exactly to the last tie, for every gradient of a trace, those of activations included:

# %%
scales = trace.gradients_at_scales()
figure, axes = plt.subplots(figsize=(9.0, 4.2), layout="constrained")
scales.plot(axes)
mp.labs.show(figure, "lab05_scales")

# %% [markdown]
# ## Part 2: which scales? (20 minutes)
#
# ### Exercise 2a (10 minutes)
#
# Write `scale_range(counts)`: the smallest and the largest power `k` for which $2^k$ loses nothing, as a tuple of two
# integers; None if every scale loses something. By the same whole powers of two as in 1b.


# %%
def scale_range(counts):
    """Return (smallest, largest) power of two that loses nothing, or None."""
    # BEGIN SOLUTION
    smallest, largest = -25 - min(counts), 15 - max(counts)
    return (smallest, largest) if smallest <= largest else None
    # END SOLUTION


# %%
yours = scale_range(counts)
exact = trace.gradients_at_scales(by="parameter").powers()
print(
    f"gradients of the weights: from 2^{yours[0]} to 2^{yours[1]}; exactly: from 2^{exact[0]} to 2^{exact[1]}"
)
assert max(abs(yours[0] - exact[0]), abs(yours[1] - exact[1])) <= 1

# %% [markdown]
# ### Exercise 2b (5 minutes)
#
# Real networks often have no such range: a few gradients are always tiny. Write `smallest_power(counts, share)`: the
# smallest power whose scale flushes at most this share of the counted numbers. (Overflow does not matter here.)


# %%
def smallest_power(counts, share):
    """Return the smallest power of two that flushes at most a share of the numbers."""
    # BEGIN SOLUTION
    whole, power = sum(counts.values()), -25 - max(counts)
    while fate(counts, power)[0] > share * whole:
        power += 1
    return power
    # END SOLUTION


# %% [markdown]
# How much must be saved? Let us train with several scales, float16 products and float32 weights (the recipe
# `mixed-fp16`), and look at the error on digits that were not trained on.


# %%
def test_error(model):
    """Return the mean squared error on the test digits."""
    with mp.no_grad():
        return float(np.mean((model(mp.tensor(test)).numpy() - test) ** 2))


def train_with(recipe, scaler=None, steps=200):
    """Train; return the test error, the scale of each step, and which steps were skipped."""
    model = autoencoder()
    optimizer = mp.optim.Adam(model.parameters(), lr=1e-3)
    step = mp.TrainStep(model, F.mse_loss, optimizer, recipe, scaler=scaler, micro_batches=PARTS)
    reports = [step(x, x) for x in batches(steps)]
    return test_error(model), [each.loss_scale for each in reports], [each.skipped for each in reports]


full, _, _ = train_with("fp32")
powers = (0, 3, 6, 10, 16, 24, 32, 40)
with warnings.catch_warnings(record=True) as told:  # minimp warns of a scale that does not work
    warnings.simplefilter("always")
    constant = {power: train_with(mp.recipes["mixed-fp16"].with_(loss_scale=2.0**power)) for power in powers}
print(f"float32         error {full:.4f}")
for power, (error, _, skipped) in constant.items():
    print(f"float16, 2^{power:<4} error {error:.4f}, {sum(skipped)} of 200 steps skipped")
print(f"of the last one minimp says: {str(told[-1].message).splitlines()[0]}")

# %%
figure, axes = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
axes.plot(powers, [constant[power][0] for power in powers], "o-", color="black", label="float16 products")
axes.axhline(full, linestyle="--", color="0.4", label="float32")
axes.set(xlabel="k, for a loss scale of $2^k$", ylabel="test error (mean square)", yscale="log")
axes.legend(fontsize=9)
mp.labs.show(figure, "lab05_constant_scales")
assert constant[0][0] > 2 * full
assert all(abs(constant[power][0] / full - 1) < 0.1 for power in (10, 16, 24))
assert all(constant[40][2])
assert constant[40][0] == test_error(autoencoder())

# %% [markdown]
# Two walls with a wide valley between them. On the left many gradients are zero. On the right every step overflows,
# is skipped, and the model stays as it was at the start: *too large a constant scale trains nothing at all*. In the
# valley the scale does not matter; it is no setting to be tuned. It only must not hit a wall, all training long.
#
# ## Part 3: the dynamic scaler (25 minutes)
#
# Hence the rule that nearly all frameworks share: start high. A step with an infinite or NaN gradient is skipped, and
# the scale halves. After `growth_interval` good steps in a row the scale doubles, and the count begins anew.
#
# ### Exercise 3a (10 minutes)
#
# Write `next_scale(scale, good_steps, found_inf, growth_interval)`. It returns the next `(scale, good_steps)`, where
# `good_steps` counts the good steps since the scale last moved or a step was bad.


# %%
def next_scale(scale, good_steps, found_inf, growth_interval):
    """Return the scale and the count of good steps after a step."""
    # BEGIN SOLUTION
    if found_inf:
        return scale / 2, 0
    if good_steps + 1 == growth_interval:
        return scale * 2, 0
    return scale, good_steps + 1
    # END SOLUTION


# %% [markdown]
# ### Exercise 3b (15 minutes)
#
# Write `unscale_and_step(parameters, optimizer, scale)`, to be called after backward. It divides every gradient
# `p.grad` by the scale (put `p.grad = mp.tensor(...)` in its place; `p.grad.numpy()` gives an array; a parameter that
# took no part has None). Only if *all* gradients are finite does it call `optimizer.step()`. It returns `found_inf`:
# True if the step was skipped.


# %%
def unscale_and_step(parameters, optimizer, scale):
    """Unscale the gradients, and step if all are finite; return whether some were not."""
    # BEGIN SOLUTION
    found_inf = False
    for p in parameters:
        if p.grad is not None:
            gradient = p.grad.numpy() / np.float32(scale)
            found_inf = found_inf or not np.isfinite(gradient).all()
            p.grad = mp.tensor(gradient)
    if not found_inf:
        optimizer.step()
    return found_inf
    # END SOLUTION


# %% [markdown]
# With these two a training by hand needs few lines. It starts at $2^{40}$, beyond the right wall. (One part is
# computed and stands for all: its gradient is taken 4096 times, by dividing by so much less. Both are powers of two.)

# %%
START, INTERVAL = 2.0**40, 25
model = autoencoder()
optimizer = mp.optim.Adam(model.parameters(), lr=1e-3)
scale, good_steps, seen, bad = START, 0, [], []
for x in batches(200):
    optimizer.zero_grad()
    with mp.autocast("float16"):
        loss = F.mse_loss(model(mp.tensor(x)), mp.tensor(x)) / PARTS
    (loss * scale).backward()
    found_inf = unscale_and_step(list(model.parameters()), optimizer, scale / PARTS)
    seen.append(scale)
    bad.append(found_inf)
    scale, good_steps = next_scale(scale, good_steps, found_inf, INTERVAL)
by_hand = test_error(model)
print(f"by hand: error {by_hand:.4f}, {sum(bad)} of 200 steps skipped; float32: {full:.4f}")
assert by_hand < 1.25 * full

# %% [markdown]
# minimp's own scaler goes the very same way, scale by scale:

# %%
error, expected, skipped = train_with("mixed-fp16", mp.GradScaler(init_scale=START, growth_interval=INTERVAL))
assert (seen, bad) == (expected, skipped)
figure, axes = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
axes.step(range(200), np.log2(seen), where="post", color="black", label="scale")
where = np.flatnonzero(bad)
axes.plot(where, np.log2(seen)[where], "x", color="black", markersize=8, label="skipped step")
axes.set(xlabel="step", ylabel="k, for a loss scale of $2^k$")
axes.legend(fontsize=9)
mp.labs.show(figure, "lab05_dynamic")

# %% [markdown]
# A sawtooth: it climbs until it hits the right wall, falls back by one, and climbs again. The skipped steps in the
# middle of training are no fault; they are how the scaler finds out where the wall is.
#
# ## Part 4: what does it cost? (10 minutes)
#
# ### Exercise 4a (10 minutes)
#
# Say the wall does not move: some scale works for ever, and twice that scale never does. Which share of all steps is
# skipped in the long run, for a growth interval $n$? Write `skipped_share(n)`. (PyTorch's $n$ is 2000.)


# %%
def skipped_share(n):
    """Return the share of steps that is skipped in the long run."""
    # BEGIN SOLUTION
    return 1 / (n + 1)
    # END SOLUTION


# %%
scaler = mp.GradScaler(init_scale=2.0**16, growth_interval=25)
verdicts = []
for _ in range(5200):
    verdicts.append(scaler.get_scale() > 2.0**16)  # the wall
    scaler.advance(verdicts[-1])
print(
    f"an interval of 25: {skipped_share(25):.2%} by your formula, {np.mean(verdicts):.2%} of 5200 steps counted"
)
print(f"an interval of 2000: {skipped_share(2000):.3%}")

# %% [markdown]
# ## Part 5: an open question (5 minutes)
#
# Where in the step do these belong, before or after unscaling: clipping the gradients' norm, logging that norm,
# weight decay that is added to the gradient (L2), adding up the gradients of several parts of a batch, moving the
# scale? Give a reason for each. In the cell below minimp refuses one of them; what would have happened without the
# refusal?
#
# BEGIN SOLUTION
# *What a good answer contains.* Clipping, logging and L2 compare or add the gradient to something without a scale (a
# threshold, the reader's expectation, the weight), so they come after unscaling. Clipped before, a norm of $S \cdot
# 0.01$ meets a threshold of 1 and nearly every step is clipped; with SGD the learning rate is silently divided.
# Adding up parts comes before, in scaled gradients, so that small ones survive; all parts must carry *one* scale, so
# the scale moves only after the step. A very good answer notes that Adam would hide a forgotten unscaling, since it
# divides by the gradient's own size, until the scale moves.
# END SOLUTION

# %%
scaler = mp.GradScaler()
optimizer.zero_grad()
scaler.scale(F.mse_loss(model(mp.tensor(test)), mp.tensor(test))).backward()
try:
    mp.optim.clip_grad_norm_(list(model.parameters()), 1.0)
    refused = False
except mp.errors.ScalerError as fault:
    print(fault)
    refused = True
assert refused

# %% [markdown]
# ## What to remember
#
# - A power-of-two scale moves exponents and touches no digit; a histogram of exponents says what each scale would
#   lose.
# - Between "too small" and "too large" lies a wide valley: the scale is not tuned, it is kept off the walls.
# - Dynamic scaling: halve and skip at an infinity, double after many good steps; skipped steps are part of it.
# - Order: backward, unscale, check, clip, step, and only then move the scale.
