# %% [markdown]
# # Lab 06: Master weights, and their rivals
#
# About 75 minutes. Lab 01 comes first (swamping, rounding at random); lab 04 showed weights that stand still.
#
# After this lab you can
#
# - measure which share of the updates a 16-bit weight swallows, and say when that ruins a training;
# - write the update of a weight in three ways that lose nothing: with a float32 master, by Kahan's compensation, and
#   by rounding at random;
# - say what each costs in bytes, and where each has its limit.

# %%
import matplotlib.pyplot as plt
import numpy as np

import minimp as mp

F = mp.functional
train, test = mp.data.digits("train"), mp.data.digits("test")


def low(x):
    """Return numbers rounded to bfloat16, as float64: a float, or an array."""
    made = mp.formats.round(np.asarray(x, np.float64), mp.bfloat16)
    return float(made) if made.ndim == 0 else made


# %% [markdown]
# ## Part 1: swallowed (20 minutes)
#
# bfloat16 has 8 bits of precision. Between 1 and 2 its numbers lie $2^{-7}$ apart, so that a weight of 1 does not see
# an update of 0.001. The gain of a normalisation layer begins at 1, for instance, and Adam's updates are about the
# learning rate:

# %%
for name, options in (("weights in bfloat16", {}), ("with float32 masters", {"master_weights": True})):
    gain = mp.tensor(np.ones(8), dtype=mp.bfloat16, requires_grad=True)
    optimizer = mp.optim.Adam([gain], lr=1e-3, **options)
    for _ in range(100):
        gain.grad = mp.tensor(np.ones(8), dtype=mp.bfloat16)
        optimizer.step()
    print(f"{name:21} after 100 updates of about 0.001: {gain.tolist()[0]}")
    assert gain.tolist()[0] == (low(0.9) if options else 1.0)

# %% [markdown]
# ### Exercise 1a (warm-up, 10 minutes)
#
# Write `swallowed_share(weights, updates)`: of the updates that are not zero, the share that leaves its weight as it
# was when the sum is rounded to bfloat16. Both are arrays; the weights are bfloat16 numbers. No update at all: share
# 0. The helper `low` rounds.


# %%
def swallowed_share(weights, updates):
    """Return the share of the non-zero updates that bfloat16 weights swallow."""
    # BEGIN SOLUTION
    weights, updates = np.asarray(weights, np.float64), np.asarray(updates, np.float64)
    moves = updates != 0
    if not moves.any():
        return 0.0
    return float(np.mean(low(weights + updates)[moves] == weights[moves]))
    # END SOLUTION


# %% [markdown]
# Now a training: a classifier of digits, Adam with a learning rate of 0.00003, 1000 steps. Products are in bfloat16
# in both runs with that format; what differs is where the weights live.


# %%
def accuracy(model):
    """Return the share of test digits that the model tells right."""
    with mp.no_grad():
        scores = model(mp.tensor(test.inputs, dtype=model[0].weight.dtype)).numpy()
    return float(np.mean(scores.astype(np.float32).argmax(1) == test.targets))


def train_with(recipe, steps=1000, lr=3e-5, seed=0):
    """Train; return the accuracy at every 100 steps, and the share of updates that were swallowed in the last step."""
    mp.manual_seed(seed)
    nn = mp.nn
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = mp.optim.Adam(model.parameters(), lr=lr)
    step = mp.TrainStep(model, F.cross_entropy, optimizer, recipe)
    batches = mp.data.DataLoader(train, 64, shuffle=True, seed=seed).cycle()
    curve = [accuracy(model)]
    for number in range(1, steps + 1):
        optimizer.measure_updates = number == steps
        step(*next(batches))
        if number % 100 == 0:
            curve.append(accuracy(model))
    return curve, optimizer.last_update.swallowed_share


results = {recipe: train_with(recipe) for recipe in ("fp32", "bf16")}
for recipe, (curve, swallowed) in results.items():
    print(
        f"{recipe:15} {curve[-1]:6.1%} of the test digits right, {swallowed:6.1%} of the last updates swallowed"
    )
assert results["fp32"][0][-1] > results["bf16"][0][-1] + 0.5
assert results["bf16"][1] > 0.9

# %% [markdown]
# ## Part 2: the master copy (15 minutes)
#
# The remedy of Micikevicius et al. (2018, section 3.1): keep the weight in float32 as well. Updates are added to this
# *master*; the 16-bit weight, which forward and backward use, is the master rounded, made anew after each step.
#
# ### Exercise 2a (10 minutes)
#
# Write `master_step(master, update)`: from a float32 master and an update (both NumPy float32 arrays) to the new
# master, float32 again, and the new working weights, rounded to bfloat16 (as `low` returns them).


# %%
def master_step(master, update):
    """Return the new float32 master, and the new bfloat16 weights."""
    # BEGIN SOLUTION
    master = np.float32(master + update)
    return master, low(master)
    # END SOLUTION


# %% [markdown]
# ### Exercise 2b (5 minutes)
#
# What does it cost? How many bytes for each weight do the weights themselves take, with all that is kept from one
# step to the next to add updates up (gradients and Adam's moments not counted)? Fill in `bytes_per_weight`, a dict
# with the keys `"nearest"` (weights in bfloat16, nothing else), `"master"`, `"kahan"` (part 3: a second bfloat16
# number) and `"stochastic"` (part 4: nothing else).

# %%
# BEGIN SOLUTION
bytes_per_weight = {"nearest": 2, "master": 2 + 4, "kahan": 2 + 2, "stochastic": 2}
# END SOLUTION

# %% [markdown]
# ## Part 3: Kahan's compensation (15 minutes)
#
# What a rounding cuts off need not be lost: it can be kept in a second small number and given back the next time.
# Kahan's sum keeps, for each weight, a *compensation* $c$: how much the weight has **too much** (negative: what it
# still lacks). The next update is reduced by it; then the sum is rounded; then the new $c$ is what the weight changed
# by, less what it should have changed by, rounded to bfloat16 too.
#
# ### Exercise 3a (10 minutes)
#
# Write `kahan_step(weight, compensation, update)`: the new weight and the new compensation, both bfloat16 numbers.
# All three are floats or arrays. Round twice, with `low`; at the start the compensation is 0.


# %%
def kahan_step(weight, compensation, update):
    """Return the new weight and compensation."""
    # BEGIN SOLUTION
    wanted = update - compensation
    new = low(weight + wanted)
    return new, low((new - weight) - wanted)
    # END SOLUTION


# %% [markdown]
# ## Part 4: rounding at random (15 minutes)
#
# The third way keeps nothing. It rounds up or down at random, such that the mean is right (lab 01). In bfloat16 this
# is a trick with bits: bfloat16 is the upper half of float32. Take the 32 bits of a number as an integer, add a
# random number from 0 to 65535 to it, and set the lower 16 bits to zero. A carry into the upper half happens as often
# as the lower half is large.
#
# ### Exercise 4a (10 minutes)
#
# Write `stochastic_bfloat16(x, noise)` for a float32 array `x` and an array `noise` of uint32 numbers from 0 to
# 65535; the result is a float32 array of bfloat16 numbers. `x.view(np.uint32)` reads bits as integers,
# `bits.view(np.float32)` goes back.


# %%
def stochastic_bfloat16(x, noise):
    """Return x rounded to bfloat16, up or down as the noise has it."""
    # BEGIN SOLUTION
    bits = x.view(np.uint32) + noise
    return (bits & np.uint32(0xFFFF0000)).view(np.float32)
    # END SOLUTION


# %% [markdown]
# ### Exercise 4b (5 minutes)
#
# A weight that is rounded at random stands still most of the time, too, and then makes a large step. How many steps
# does it take on average until it moves? Write `expected_wait(weight, update)` for a bfloat16 number and an update
# that is smaller than the distance to the next number. `mp.formats.next_up(np.float64(w), mp.bfloat16)` and
# `next_down` give the neighbours; which one counts depends on the update's sign.


# %%
def expected_wait(weight, update):
    """Return the mean number of steps until a weight moves that is rounded at random."""
    # BEGIN SOLUTION
    towards = mp.formats.next_up if update > 0 else mp.formats.next_down
    return abs(float(towards(np.float64(weight), mp.bfloat16)) - weight) / abs(update)
    # END SOLUTION


# %% [markdown]
# All four side by side: one weight, which begins at 1 and gets 300 updates of -0.0001. The right end is 0.97.

# %%
UPDATE, STEPS = -1e-4, 300
random = np.random.default_rng(0)
ways = {"nearest": [1.0], "master": [1.0], "kahan": [1.0], "stochastic": [1.0]}
master, compensation = np.float32([1.0]), 0.0
for _ in range(STEPS):
    ways["nearest"].append(low(ways["nearest"][-1] + UPDATE))
    master, working = master_step(master, np.float32([UPDATE]))
    ways["master"].append(working[0])
    weight, compensation = kahan_step(ways["kahan"][-1], compensation, UPDATE)
    ways["kahan"].append(weight)
    wanted = np.float32([ways["stochastic"][-1] + UPDATE])
    ways["stochastic"].append(float(stochastic_bfloat16(wanted, random.integers(0, 65536, 1, np.uint32))[0]))
figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
axes.plot([0, STEPS], [1.0, 1 + STEPS * UPDATE], "-", color="0.7", linewidth=4, label="exact")
for (name, path), style in zip(ways.items(), ("--", "-", "-.", ":"), strict=True):
    axes.plot(path, style, color="black", label=name)
axes.set(xlabel="step", ylabel="weight")
axes.legend(fontsize=9)
mp.labs.show(figure, "lab06_one_weight")
assert ways["nearest"][-1] == 1.0
assert ways["master"][-1] == low(0.97)
assert abs(ways["kahan"][-1] - 0.97) < 2.0**-8
assert abs(ways["stochastic"][-1] - 0.97) < 0.02
print(f"a step at random comes every {expected_wait(1.0, UPDATE):.0f} steps from 1 on")

# %% [markdown]
# And in training, the same 1000 steps as before:

# %%
results |= {recipe: train_with(recipe) for recipe in ("mixed-bf16", "bf16-kahan", "bf16-stochastic")}
names = {
    "fp32": ("float32", "-"), "mixed-bf16": ("float32 master", "--"), "bf16-kahan": ("Kahan", "-."),
    "bf16-stochastic": ("at random", ":"), "bf16": ("to nearest", "-x"),
}  # fmt: skip
figure, axes = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
for recipe, (label, style) in names.items():
    curve, swallowed = results[recipe]
    print(f"{label:15} {curve[-1]:6.1%} right, {swallowed:6.1%} of the last updates changed nothing")
    axes.plot(range(0, 1001, 100), 100 * np.array(curve), style, color="black", label=label)
axes.set(xlabel="step", ylabel="test digits right, %")
axes.legend(fontsize=9)
mp.labs.show(figure, "lab06_rivals")
assert all(
    abs(results[recipe][0][-1] - results["fp32"][0][-1]) < 0.03 for recipe in names if recipe != "bf16"
)
assert results["bf16-stochastic"][1] > 0.5

# %% [markdown]
# Four curves lie on one another, and one stays at the bottom. Note the last column of the text: at random most
# updates change nothing either. That is no loss here, since those that do change the weight make up for them. A
# counter of swallowed updates is an alarm for rounding to nearest, and for that alone.
#
# ## Part 5: an open question (10 minutes)
#
# You are to train a model of five thousand million weights on one device of 80 GB. Gradients take 2 bytes a weight,
# Adam's two moments 8. Which of the four fits, with room for activations? Which would you take, if the learning rate
# shall fall to a hundredth towards the end; if the run must be repeatable to the bit on another device; if others
# shall continue from your checkpoint? The cell below has a case in which Kahan's weight stands still, too: explain
# it.
#
# BEGIN SOLUTION
# *What a good answer contains.* 12 bytes a weight for nearest and stochastic (60 GB), 14 for Kahan (70 GB), 16 with
# masters (80 GB: nothing left for activations). The compensation is a bfloat16 number of its own and swallows updates
# that are small against it: it carries about 8 bits more, no further. In the cell it would have to grow to $2^{-8}$
# before the weight moves, and an update of $2^{-19}$ is lost once it has come to $2^{-11}$. So a learning rate that
# falls by 100 may bring Kahan to its limit; stochastic rounding has none, but waits become long and the noise stays
# as coarse as the format. Repeatable: stochastic rounding needs the generator's state in the checkpoint, and the same
# order of draws. A checkpoint of Kahan or of masters must have the second number as well: without it the next step
# jumps or stalls. A very good answer thinks of sharding, or of moments in fewer bits, before giving up the masters.
# END SOLUTION

# %%
weights = 5e9
for name, own in (("nearest", 2), ("stochastic", 2), ("kahan", 4), ("master", 6)):
    print(f"{name:10} {weights * (own + 2 + 8) / 1e9:.0f} GB")
weight, compensation = 1.0, 0.0
for _ in range(4096):
    weight, compensation = kahan_step(weight, compensation, 2.0**-19)
print(
    f"4096 updates of 2^-19 add up to {4096 * 2.0**-19:.4f}; Kahan's weight is {weight}, and lacks {-compensation:.4f}"
)
assert (weight, compensation) == (1.0, -(2.0**-11))

# %% [markdown]
# ## What to remember
#
# - Weights need more bits than products: an update is small against its weight, by nature.
# - A float32 master loses nothing that matters and costs 4 bytes a weight; Kahan's compensation costs 2 and buys 8
#   bits; rounding at random costs nothing, and is right on average only.
# - What ruins a training in 16 bits is not one rounding, but the same rounding in the same direction, every time.
