# %% [markdown]
# # Lab 04: FP16 everywhere: what breaks and why
#
# About 75 minutes. Labs 00 and 01 come first: the range of float16, and swamping.
#
# After this lab you can
#
# - name the three ways in which a training in float16 breaks: too large, too small, too close;
# - rewrite a cross-entropy and a norm so that float16 survives them;
# - predict from the shape of a batch which gradients become zero, and from a learning rate which weights stand still;
# - ask a trace which of the three it was.
#
# Everything here is trained *wholly* in float16, on purpose. Labs 05 to 07 bring the remedies.

# %%
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np

import minimp as mp

F = mp.functional
train, test = mp.data.digits("train"), mp.data.digits("test")


def linear_layers(*widths, seed=0):
    """Return fully connected layers with ReLU between them."""
    mp.manual_seed(seed)
    layers = []
    for before, after in pairwise(widths):
        layers += [mp.nn.Linear(before, after), mp.nn.ReLU()]
    return mp.nn.Sequential(*layers[:-1])


def rounded(x):
    """Return numbers rounded to float16, as float64."""
    return mp.formats.round(np.asarray(x, np.float64), mp.float16)


# %% [markdown]
# ## Part 1: too large (20 minutes)
#
# float16 ends at 65504; from 65520 on a result becomes infinite. That is not far away:

# %%
every_code = np.arange(0x7C00, dtype=np.uint16)
all_positive = every_code.view(np.float16).astype(np.float64)  # every finite one, in order
assert rounded(np.nextafter(65520.0, 0.0)) == all_positive[-1] == 65504
assert np.isinf(rounded(65520.0))
assert np.isinf(rounded(300.0**2))
assert rounded(0.0001**2) == 0
assert round(float(np.log(65520.0)), 1) == 11.1
assert rounded(np.exp(11.0)) == 59872
assert np.isinf(rounded(np.exp(12.0)))
print(f"exp(11) is {rounded(np.exp(11.0)):.0f}, exp(12) is {rounded(np.exp(12.0))}")

# %% [markdown]
# ### Exercise 1a (warm-up, 5 minutes)
#
# What is the largest float16 number whose exponential is finite in float16? And the largest whose square is? Set
# `largest_exp` and `largest_square`. You may search: `all_positive` holds all candidates.

# %%
# BEGIN SOLUTION
with np.errstate(over="ignore"):
    largest_exp = max(all_positive[np.isfinite(rounded(np.exp(all_positive)))])
largest_square = max(all_positive[np.isfinite(rounded(all_positive**2))])
# END SOLUTION

# %% [markdown]
# So scores above 11.1 are dangerous. Here is the cross-entropy as the textbook has it, $\log \sum_j e^{s_j} - s_t$
# for scores $s$ and the true class $t$, and a classifier of digits trained with it: in float32, and wholly in
# float16.


# %%
def textbook_log_sum_exp(scores):  # (N, K) -> (N,)
    """Return log(sum(exp(scores))) of each row, as the formula says."""
    return scores.exp().sum(dim=1).log()


def loss_with(log_sum_exp):
    """Return the cross-entropy that uses such a function."""

    def cross_entropy(scores, targets):  # (N, K) and (N,) -> ()
        chosen = mp.tensor(np.eye(10)[targets], dtype=scores.dtype)
        return (log_sum_exp(scores) - (scores * chosen).sum(dim=1)).mean()

    return cross_entropy


def train_classifier(recipe, loss, steps=300, lr=3e-3, seed=0):
    """Train; return the training step with its model, and the loss of every step until one is not finite."""
    model = linear_layers(64, 128, 128, 10, seed=seed)
    step = mp.TrainStep(model, loss, mp.optim.Adam(model.parameters(), lr=lr), recipe)
    batches = mp.data.DataLoader(train, 64, shuffle=True, seed=seed).cycle()
    losses = []
    while len(losses) < steps and np.isfinite(losses[-1:]).all():
        losses.append(step(*next(batches)).loss)
    return step, losses


def accuracy(model):
    """Return the share of test digits that the model tells right."""
    with mp.no_grad():
        scores = model(mp.tensor(test.inputs, dtype=model[0].weight.dtype)).numpy()
    return float(np.mean(scores.argmax(1) == test.targets))


in_float32, losses_32 = train_classifier("fp32", loss_with(textbook_log_sum_exp))
in_float16, losses_16 = train_classifier("fp16", loss_with(textbook_log_sum_exp))
print(f"float32: {len(losses_32)} steps, {accuracy(in_float32.model):.1%} of the test digits right")
print(f"float16: the loss of step {len(losses_16)} is {losses_16[-1]}")
assert accuracy(in_float32.model) > 0.9
assert 20 < len(losses_16) < 300
assert not np.isfinite(losses_16[-1])

# %% [markdown]
# It trained well for a while: the better it got, the larger the scores. Who was it? A *trace* writes down every
# operation with what rounding did to its result, and knows the first infinity.

# %%
with mp.trace.record(keep=100) as trace:  # the last 100 operations of the same training
    train_classifier("fp16", loss_with(textbook_log_sum_exp))
print(trace.first_nonfinite())
assert trace.first_nonfinite().event.op == "exp"

# %% [markdown]
# ### Exercise 1b (10 minutes)
#
# Write `log_sum_exp(scores)`, the same function of a float16 tensor (N, K), so that it is finite for *any* finite
# scores whose result float16 can hold. Use $\log \sum_j e^{s_j} = c + \log \sum_j e^{s_j - c}$: for which $c$ can no
# exponential overflow, and not all of a row become zero? Tensors have `exp`, `log`, `sum(dim=1)` and
# `amax(dim=1, keepdim=True)`.


# %%
def log_sum_exp(scores):  # (N, K) -> (N,)
    """Return log(sum(exp(scores))) of each row, safely."""
    # BEGIN SOLUTION
    largest = scores.amax(dim=1, keepdim=True)
    return (scores - largest).exp().sum(dim=1).log() + largest.sum(dim=1)
    # END SOLUTION


# %%
saved, losses_saved = train_classifier("fp16", loss_with(log_sum_exp))
print(f"float16 with your function: {len(losses_saved)} steps, {accuracy(saved.model):.1%} right")
assert len(losses_saved) == 300
assert accuracy(saved.model) > 0.9

# %% [markdown]
# ### Exercise 1c (5 minutes)
#
# A norm squares its numbers: 300 overflows, and 0.0001 becomes zero. Write `norm(values)`: the Euclidean norm of a
# float16 tensor (N,), computed in float16, right wherever float16 can hold the result. All zeros have the norm 0.
# Divide by something first, and multiply at the end. `values.abs().amax()` and `sqrt()` may help.


# %%
def norm(values):  # (N,) -> ()
    """Return the square root of the sum of squares, without overflow or underflow on the way."""
    # BEGIN SOLUTION
    largest = values.abs().amax()
    if float(largest) == 0:
        return largest
    parts = values / largest
    return (parts * parts).sum().sqrt() * largest
    # END SOLUTION


# %% [markdown]
# ## Part 2: too small (20 minutes)
#
# Gradients are small numbers, and float16 ends below as well: from $2^{-25}$ down, everything is rounded to zero.
#
# ### Exercise 2a (5 minutes)
#
# Write `flushed_share(values)`: of the numbers of an array that are not zero, the share that becomes zero in float16.
# An array without any such number has share 0.


# %%
def flushed_share(values):
    """Return the share of the non-zero values that float16 rounds to zero."""
    # BEGIN SOLUTION
    sizes = np.abs(np.asarray(values, np.float64))
    nonzero = sizes[sizes > 0]
    return float(np.mean(nonzero <= 2.0**-25)) if nonzero.size else 0.0
    # END SOLUTION


# %% [markdown]
# An auto-encoder learns to give back the digits that it was shown, through 16 numbers in its middle. Its loss is the
# mean squared error, a mean over $N = 256 \cdot 64$ pixels. Large batches are often computed in $n$ parts whose
# gradients add up, and the loss of each is divided by $n$; here $n = 4096$.

# %%
PARTS = 4096


def train_autoencoder(recipe, steps=200, seed=0):
    """Train; return the training step and the loss of every step."""
    model = linear_layers(64, 128, 16, 128, 64, seed=seed)
    optimizer = mp.optim.Adam(model.parameters(), lr=1e-3)
    step = mp.TrainStep(model, F.mse_loss, optimizer, recipe, micro_batches=PARTS)
    drawn = np.random.default_rng(seed).integers(0, len(train), (steps, 256))
    return step, [step(train.inputs[rows], train.inputs[rows]).loss for rows in drawn]


coder_32, coder_losses_32 = train_autoencoder("fp32")
coder_16, coder_losses_16 = train_autoencoder("fp16")
print(f"last loss: {coder_losses_32[-1]:.3f} in float32, {coder_losses_16[-1]:.3f} in float16")
assert coder_losses_16[-1] > 2 * coder_losses_32[-1]
assert np.isfinite(coder_losses_16).all()  # nothing looks wrong, it only does not learn

# %% [markdown]
# No infinity, no NaN, no error: the loss only stops falling early. This is the nastiest of the three. The float32 run
# knows how large the gradients *should* be:

# %%
gradients = np.concatenate([p.grad.numpy().ravel() for p in coder_32.model.parameters()])
exponents = np.log2(np.abs(gradients[gradients != 0]))
figure, axes = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
axes.hist(exponents, bins=np.arange(-50, -8), color="0.8", edgecolor="black")
for place, style, text in (
    (-25, "-", "below: zero"),
    (-14, "--", "below: fewer digits"),
):
    axes.axvline(place, color="black", linestyle=style, label=f"$2^{{{place}}}$, {text}")
axes.set(xlabel="exponent of the gradient (its log2)", ylabel="gradients")
axes.legend(fontsize=9)
mp.labs.show(figure, "lab04_gradients")
assert np.mean(exponents < -25) > 0.4
assert np.mean(exponents < -14) > 0.95

# %% [markdown]
# ### Exercise 2b (10 minutes)
#
# The first gradient of backward is that of the mean squared error: $2 d / (N n)$ for an error $d$ of one pixel. Up to
# which size of $d$ is it zero in float16? Write `lost_up_to(elements, parts)` for $N$ and $n$; think of what a tie
# does.


# %%
def lost_up_to(elements, parts):
    """Return the largest error of a pixel whose gradient becomes zero."""
    # BEGIN SOLUTION
    return 2.0**-25 * elements * parts / 2
    # END SOLUTION


# %%
print(f"N = {256 * 64}, n = {PARTS}: errors up to {lost_up_to(256 * 64, PARTS)} are lost")
print("and a pixel lies between 0 and 1. The trace of one step agrees:")
with mp.trace.record() as trace:
    coder_16(train.inputs[:256], train.inputs[:256])
print(trace.underflow("op"))
first = next(row for row in trace.underflow("op") if row["op"] == "mse_loss backward")
assert first["share"] > 0.9

# %% [markdown]
# ## Part 3: too close (15 minutes)
#
# Adam changes every weight by about the learning rate, whatever the gradient is. Lab 01 told when a change is lost:
# below half an ulp of the weight. With 10 stored bits, weights between a power of two $P$ and $2P$ have an ulp of
# $P / 1024$.
#
# ### Exercise 3a (10 minutes)
#
# Write `stands_still_above(lr)`: the smallest power of two $P$ such that no float16 weight *above* $P$ moves when
# `lr` is added or subtracted. (At exactly half an ulp, every other weight moves: that is not "none".)


# %%
def stands_still_above(lr):
    """Return the power of two above which no weight moves by lr."""
    # BEGIN SOLUTION
    power = 2.0**-40
    while power <= 2048 * lr:
        power *= 2
    return power
    # END SOLUTION


# %%
LR = 1e-5
x, y = train.inputs[:64], train.targets[:64]
model = linear_layers(64, 128, 128, 10)
optimizer = mp.optim.Adam(model.parameters(), lr=LR)
step = mp.TrainStep(model, F.cross_entropy, optimizer, "fp16")
above = all_positive[all_positive > stands_still_above(LR)]
assert np.array_equal(rounded(above + LR), above)
assert np.array_equal(rounded(above - LR), above)
sizes = np.abs(np.concatenate([p.detach().numpy().ravel() for p in model.parameters()]).astype(np.float64))
predicted = float(np.mean(sizes > stands_still_above(LR)))
optimizer.measure_updates = True
step(x, y)
measured = optimizer.last_update.swallowed_share
print(f"updates of the first step that are swallowed: {predicted:.1%} predicted, {measured:.1%} measured")
assert abs(predicted - measured) < 0.03
assert measured > 0.5

# %% [markdown]
# The next steps do not help: a weight that did not move gets the same tiny update once more.

# %%
slow_32, slow_losses_32 = train_classifier("fp32", F.cross_entropy, steps=1500, lr=LR)
slow_16, slow_losses_16 = train_classifier("fp16", F.cross_entropy, steps=1500, lr=LR)
print(
    f"1500 steps of {LR}: {accuracy(slow_32.model):.1%} in float32, {accuracy(slow_16.model):.1%} in float16"
)
assert accuracy(slow_32.model) > accuracy(slow_16.model) + 0.25

# %%
figure, panels = plt.subplots(1, 3, figsize=(9.6, 3.2), layout="constrained")
for axes, title, full, half in (
    (panels[0], "too large", losses_32, losses_16[:-1]),
    (panels[1], "too small", coder_losses_32, coder_losses_16),
    (panels[2], "too close", slow_losses_32, slow_losses_16),
):
    axes.plot(full, "-", color="0.55", label="float32")
    axes.plot(half, "--", color="black", label="float16")
    axes.set(title=title, xlabel="step", ylabel="training loss")
    axes.legend(fontsize=9)
panels[0].plot(len(losses_16) - 1, losses_16[-2], "x", color="black", markersize=10)
mp.labs.show(figure, "lab04_three_ways")

# %% [markdown]
# ## Part 4: which of the three? (15 minutes)
#
# A trace of one training step answers three questions: `trace.first_nonfinite()` is None, or tells of an infinity or
# NaN; `trace.underflow("op")` is a table with a row for each operation; `trace.swallowed()` is one with a row for
# each parameter. A row of a table is a dict:

# %%
for row in list(trace.underflow("op"))[:2]:
    print({name: row[name] for name in ("op", "non-zero", "flushed")})
for row in list(trace.swallowed())[:2]:
    print({name: row[name] for name in ("parameter", "non-zero", "swallowed")})

# %% [markdown]
# ### Exercise 4a (10 minutes)
#
# Write `diagnose(trace)`. It returns `"too large"` if there is an infinity or NaN; else `"too small"` if more than
# half of all non-zero results of *backward* were flushed (those operations' names end with `backward`); else
# `"too close"` if more than half of all non-zero updates were swallowed; else `"fine"`.


# %%
def diagnose(trace):
    """Return what is wrong with a training step that was traced."""

    # BEGIN SOLUTION
    def share(rows, what):
        whole = sum(row["non-zero"] for row in rows)
        return sum(row[what] for row in rows) / whole if whole else 0.0

    if trace.first_nonfinite() is not None:
        return "too large"
    if share([row for row in trace.underflow("op") if row["op"].endswith("backward")], "flushed") > 0.5:
        return "too small"
    return "too close" if share(list(trace.swallowed()), "swallowed") > 0.5 else "fine"
    # END SOLUTION


# %%
for name, each, inputs, targets in (
    ("textbook loss", in_float16, x, y),
    ("auto-encoder", coder_16, train.inputs[:256], train.inputs[:256]),
    ("small steps", slow_16, x, y),
    ("your loss", saved, x, y),
):
    with mp.trace.record() as trace:
        each(inputs, targets)
    print(f"{name:14} {diagnose(trace)}")

# %% [markdown]
# ## Part 5: an open question (5 minutes)
#
# "Divide all inputs by 1000 and nothing overflows any more", says one friend. "Multiply the learning rate by 100 and
# nothing is swallowed", says another. "Compute the loss in float32, that is where it broke", says a third. For each
# of the three trainings of this lab: whose advice would have helped, whose would have made it worse? Try at least one
# of the nine cases in the cell below.
#
# BEGIN SOLUTION
# *What a good answer contains.* Smaller inputs help against the first failure at best for some steps (the scores grow
# until the loss is small, whatever the inputs were) and make gradients of the first layer smaller, towards the
# second. The larger learning rate does cure the third (the cell below trains well with it), but the rate is there for
# a reason: late in training it must be small. It does nothing for gradients that are zero. The float32 loss cures the
# first alone: in the second training the gradient that leaves the loss is rounded to float16 all the same, and in the
# third the loss is not involved. A very good answer notes that no single advice helps all three, and guesses the
# three remedies: float32 where numbers are large (lab 07), a scaled loss (lab 05), float32 weights (lab 06).
# END SOLUTION

# %%
fast_16, _ = train_classifier("fp16", F.cross_entropy, steps=300, lr=100 * LR)
print(f"300 steps of {100 * LR:.3f}: {accuracy(fast_16.model):.1%} in float16")
assert accuracy(fast_16.model) > 0.9

# %% [markdown]
# ## What to remember
#
# - Too large: exponentials from 11.1 on and squares from 256 on are infinite; subtract the maximum, divide by it.
# - Too small: at $2^{-25}$ and below a gradient is zero; nothing is reported, the model only does not learn.
# - Too close: an update below half an ulp of its weight is swallowed; under Adam weights stand still that are above
#   the next power of two after 2048 times the learning rate.
