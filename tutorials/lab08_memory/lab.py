# %% [markdown]
# # Lab 08: Memory
#
# About 75 minutes. Labs 06 (master weights) and 07 (autocast) come first; bring pencil and paper.
#
# After this lab you can
#
# - predict the bytes of a training step by cause, before anything runs: weights, masters, low copies, gradients,
#   optimizer state, activations;
# - say what each layer keeps for backward, and which layers cost nothing;
# - say when mixed precision saves memory, and when it costs some;
# - say what recomputing and micro-batches buy, and at what price.
#
# Every exercise is the same game: you predict, then the ledger is asked. It counts bytes and knows no tolerance: your
# prediction is equal, or it is wrong.

# %%
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np

import minimp as mp
from minimp import models

nn, F = mp.nn, mp.functional
digits = mp.data.digits("train")

# %% [markdown]
# ## Part 1: what a step holds (20 minutes)
#
# Here is one step of training a small classifier, 64 inputs, 128 hidden numbers, 10 scores, on 32 rows, with Adam.
# `mp.memory.measure` takes the step and counts. It has two columns: *logical*, what hardware with real 16-bit numbers
# would hold, and *physical*, what this Python process holds. We look at the logical column alone: it is the same on
# every machine.


# %%
def mlp(*widths, between=nn.ReLU):
    """Return linear layers of these widths, with `between()` between them."""
    layers = [nn.Linear(widths[0], widths[1])]
    for before, after in pairwise(widths[1:]):
        layers += [between(), nn.Linear(before, after)]
    return nn.Sequential(*layers)


def measured(model, recipe, rows, optimizer=mp.optim.Adam):
    """Take a step on real digits, and return what it held."""
    step = mp.TrainStep(model, F.cross_entropy, optimizer(model.parameters()), recipe)
    return mp.memory.measure(step, digits.inputs[:rows], digits.targets[:rows])


held = measured(mlp(64, 128, 10), "fp32", 32)
for cause, count in held.logical.as_dict().items():
    if count:
        print(f"{cause:12} {count:9,} bytes: {mp.memory.CAUSES[cause]}")
print(f"{'in all':12} {held.total:9,} bytes")
assert (held.elements, held.total) == (9610, 179_872)

# %% [markdown]
# (A word on "in all": not every cause is at its height at the same moment. Activations are highest when the forward
# ends, gradients when the backward ends. The sum is a bound.)
#
# ### Exercise 1a (warm-up, 5 minutes)
#
# Write `fp32_state(widths, moments)`: the bytes of weights, of gradients and of optimizer state, as a tuple, for linear
# layers (with biases) of these widths in float32. `moments` says how many numbers the optimizer keeps for each
# parameter: 0 for plain SGD, 1 with momentum, 2 for Adam.


# %%
def fp32_state(widths, moments):
    """Return bytes of weights, gradients and optimizer state in float32."""
    # BEGIN SOLUTION
    count = sum(before * after + after for before, after in pairwise(widths))
    return 4 * count, 4 * count, 4 * moments * count
    # END SOLUTION


# %%
yours = tuple(fp32_state((64, 128, 10), 2))
assert yours == (held.logical.parameters, held.logical.gradients, held.logical.optimizer)
print(f"predicted {yours}: the ledger agrees")

# %% [markdown]
# ### Exercise 1b (5 minutes)
#
# Now in mixed precision (the recipe `mixed-fp16`: autocast to float16, float32 weights as masters). Write
# `mixed_state(widths, moments)`: the bytes of the masters, of their low copies, of gradients and of optimizer state.
# Remember the labs before: in which format is `p.grad`, and in which does the update compute?


# %%
def mixed_state(widths, moments):
    """Return bytes of masters, low copies, gradients and optimizer state in mixed precision."""
    # BEGIN SOLUTION
    count = sum(before * after + after for before, after in pairwise(widths))
    return 4 * count, 2 * count, 4 * count, 4 * moments * count
    # END SOLUTION


# %%
mixed = measured(mlp(64, 128, 10), "mixed-fp16", 32)
account = mixed.logical
yours = tuple(mixed_state((64, 128, 10), 2))
assert yours == (account.masters, account.low_copies, account.gradients, account.optimizer)
print(f"predicted {yours}: the ledger agrees")
single = fp32_state((64, 128, 10), 2)
print(f"bytes a parameter with Adam: fp32 {sum(single) / 9610:.0f}, mixed {sum(yours) / 9610:.0f}")
print(f"the whole step on 32 rows: fp32 {held.total:,}, mixed {mixed.total:,}")
assert sum(single) == 16 * 9610
assert sum(yours) == 18 * 9610
assert (mixed.total, mixed.total > held.total) == (186_804, True)

# %% [markdown]
# So mixed precision has made this training *larger*: 18 bytes for each parameter in the place of 16. What it saves is
# elsewhere, and Part 3 will weigh it.
#
# ### Exercise 1c (5 minutes)
#
# "Mixed precision with Adam takes 16 bytes a parameter", one often reads. The account is that of Rajbhandari et al.
# (ZeRO, 2020, section 3.1): 2 for a 16-bit weight, 2 for a 16-bit gradient, 4 for the master, 8 for Adam's two
# moments; with $1.5 \cdot 10^9$ parameters, 24 GB. There the *model* is 16-bit, and the optimizer keeps the masters.
# Set `zero_recipe` to a minimp recipe that holds exactly this. `recipe.with_(name=value)` changes choices of a recipe;
# `help(mp.Recipe)` lists them.

# %%
assert 16 * 1.5e9 == 24e9
# BEGIN SOLUTION
zero_recipe = mp.recipes["mixed-fp16"].with_(param_dtype=mp.float16)
# END SOLUTION

# %%
zero = measured(mlp(64, 128, 10), zero_recipe, 32).logical
parts = {name: getattr(zero, name) / 9610 for name in ("parameters", "gradients", "masters", "optimizer")}
print(f"bytes a parameter by your recipe: {parts}, in all {sum(parts.values()):.0f}")
assert list(parts.values()) == [2, 2, 4, 8]
assert zero.low_copies == 0

# %% [markdown]
# ## Part 2: what is kept for backward (20 minutes)
#
# The rest are *activations*: arrays that the forward makes and backward needs. Which ones, the derivatives say. A
# linear layer $y = x W^T + b$ needs $x$ for the gradient of $W$. ReLU needs to know where it let something through: its
# result says so. Here is what each op of our classifier keeps, from the loss back to the input:


# %%
def kept(loss):
    """Print what each op behind a loss keeps for backward."""
    node, seen = loss.node, {}
    while node is not None:
        arrays = [array for array in node.saved if hasattr(array, "nbytes")]
        for array in arrays:
            seen.setdefault(id(array), len(seen) + 1)
        told = [f"array {seen[id(a)]}: {a.shape} {a.dtype}" for a in arrays]
        print(f"{node.op.name:12} {'; '.join(told) or 'nothing'}")
        node = next((source for source in node.inputs if hasattr(source, "saved")), None)


model = mlp(64, 128, 10)
print("float32")
kept(F.cross_entropy(model(mp.tensor(digits.inputs[:32])), digits.targets[:32]))
print("under autocast")
with mp.autocast("float16"):
    kept(F.cross_entropy(model(mp.tensor(digits.inputs[:32])), digits.targets[:32]))

# %% [markdown]
# Read it slowly. The labels are 64-bit integers. The array of shape (10, 128) is the last layer's weight, or its low
# copy: it was counted above. (Why does the first layer not keep its weight?) And one array comes twice, with ReLU and
# with the linear layer after it: *it is the same memory*. The ledger counts each memory once.
#
# ### Exercise 2a (10 minutes)
#
# Write `activation_bytes(widths, rows, mixed)`: the bytes that such a network with ReLU between its layers, under
# cross-entropy, keeps for backward. `mixed` says whether it runs under autocast to float16.


# %%
def activation_bytes(widths, rows, mixed):
    """Return the bytes kept for backward by linear layers with ReLU under cross-entropy."""
    # BEGIN SOLUTION
    each = 2 if mixed else 4
    inputs = each * sum(widths[:-1])  # of every linear layer; ReLU's results are among them
    probabilities = 4 * widths[-1]  # the logarithm of the softmax, in float32 under autocast too
    label = 8
    return rows * (inputs + probabilities + label)
    # END SOLUTION


# %%
assert activation_bytes((64, 128, 10), 32, mixed=False) == held.activations == 26_112
assert activation_bytes((64, 128, 10), 32, mixed=True) == mixed.activations == 13_824
print(f"kept for backward: {held.activations:,} bytes in float32, {mixed.activations:,} under autocast")

# %% [markdown]
# ### Exercise 2b (5 minutes)
#
# What if something else stands in the place of ReLU? Fill in `kept_per_number`: from name to a pair: how many bytes
# that layer and the linear layer after it keep for each hidden number, in float32 and under autocast. Think of what
# each derivative needs:
#
# - `tanh`: the derivative is $1 - y^2$, with $y$ the result;
# - `gelu`: the derivative is a function of the *input*, and cannot be had from the result;
# - `leaky_relu`: which side of zero the input was on. minimp keeps one byte for that;
# - `softmax`: the derivative needs the result. Autocast runs softmax in float32, and the product after it reads
#   float16.

# %%
# BEGIN SOLUTION
kept_per_number = {
    "relu": (4, 2),
    "tanh": (4, 2),
    "gelu": (8, 4),
    "leaky_relu": (5, 3),
    "softmax": (4, 6),
}
# END SOLUTION


# %% [markdown]
# Nothing needs to be trained to ask the ledger. `mp.memory.forecast` runs a step on arrays that have a shape but no
# contents, and counts it just so:


# %%
def forecast(make, recipe, rows, optimizer=mp.optim.Adam, **options):
    """Return what a step would hold, for a network of 64 inputs that `make` makes."""
    return mp.memory.forecast(make, recipe, optimizer, (rows, 64), (rows,), F.cross_entropy, **options)


LAYERS = {
    "relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU, "leaky_relu": nn.LeakyReLU,
    "softmax": lambda: nn.Softmax(dim=-1),
}  # fmt: skip
assert forecast(lambda: mlp(64, 128, 10), "mixed-fp16", 32).logical == mixed.logical


def kept_for_each(between, recipe):
    """Return the bytes kept for each hidden number, from hidden layers of 100 and 200."""
    small, large = (
        forecast(lambda width=width: mlp(64, width, 10, between=between), recipe, 1).activations
        for width in (100, 200)
    )
    return (large - small) // 100


for name, between in LAYERS.items():
    found = [kept_for_each(between, recipe) for recipe in ("fp32", "mixed-fp16")]
    assert tuple(found) == tuple(kept_per_number[name])
    print(f"{name:12} {found[0]} bytes a number in float32, {found[1]} under autocast")

# %% [markdown]
# Softmax keeps *more* under autocast than in float32: the float32 result for its own derivative, and a float16 copy of
# it for that of the product. In attention written out by hand, softmax gives one number for each pair of positions.
# A fused attention (`F.scaled_dot_product_attention`) keeps no such numbers at all:


# %%
class Attention(nn.Module):
    """One layer of self-attention in 4 heads, written out or fused, and scores for 64 symbols."""

    def __init__(self, width=64, fused=False):
        super().__init__()
        self.fused, self.inside, self.out = fused, nn.Linear(width, 3 * width), nn.Linear(width, 64)

    def forward(self, x):
        """Map (N, T, width) to (N, T, 64)."""
        rows, length, width = x.shape
        parts = F.chunk(self.inside(x), 3, dim=-1)
        q, k, v = (part.reshape((rows, length, 4, width // 4)).transpose(1, 2) for part in parts)
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = F.softmax(q @ k.transpose(-1, -2) * (width // 4) ** -0.5, dim=-1) @ v
        return self.out(y.transpose(1, 2).reshape((rows, length, width)))


def next_symbol(scores, targets):
    """Return the mean cross-entropy over all positions."""
    return F.cross_entropy(scores.flatten(0, 1), targets.reshape((-1,)))


def attention_keeps(length, recipe, fused):
    """Return the bytes that one sequence keeps for backward."""
    shapes = (1, length, 64), (1, length)
    return mp.memory.forecast(
        lambda: Attention(fused=fused), recipe, mp.optim.SGD, *shapes, next_symbol
    ).activations


print("length   written out: float32     mixed    fused: float32     mixed")
for length in (64, 128, 256, 512):
    out = [attention_keeps(length, recipe, fused=False) for recipe in ("fp32", "mixed-fp16")]
    fused = [attention_keeps(length, recipe, fused=True) for recipe in ("fp32", "mixed-fp16")]
    print(f"{length:6} {out[0]:22,} {out[1]:9,} {fused[0]:17,} {fused[1]:9,}")
assert out[1] > 1.3 * out[0]  # mixed precision costs, at this length
assert fused[1] < 0.6 * fused[0]
assert fused[0] == 2 * attention_keeps(256, "fp32", fused=True)  # as the length, not as its square

# %% [markdown]
# ## Part 3: when does mixed precision save? (10 minutes)
#
# Per parameter it adds 2 bytes. Per row it saves about half of what is kept for backward. So the batch decides:

# %%
CAUSES = {
    "parameters": ("weights", "0.75", ""), "masters": ("masters", "0.75", "//"),
    "low_copies": ("low copies", "1.0", "xx"), "gradients": ("gradients", "0.55", ""),
    "optimizer": ("optimizer", "0.9", "\\\\"), "activations": ("activations", "1.0", ".."),
}  # fmt: skip
figure, axes = plt.subplots(figsize=(7.4, 3.8), layout="constrained")
bars = [(rows, recipe) for rows in (8, 50, 400) for recipe in ("fp32", "mixed-fp16")]
counts = [forecast(lambda: mlp(64, 128, 10), recipe, rows).logical.as_dict() for rows, recipe in bars]
bottom = np.zeros(len(bars))
for cause, (label, grey, hatch) in CAUSES.items():
    height = np.array([count[cause] for count in counts]) / 1000
    axes.bar(range(len(bars)), height, 0.7, bottom, color=grey, hatch=hatch, edgecolor="black", label=label)
    bottom += height
axes.set_xticks(range(len(bars)), [f"{recipe}\n{rows} rows" for rows, recipe in bars])
axes.set(ylabel="bytes held (thousands)")
axes.legend(fontsize=9, ncols=2, loc="upper left")
mp.labs.show(figure, "lab08_causes")
totals = [sum(count.values()) for count in counts]
assert totals[1] > totals[0]
assert totals[3] - totals[2] == 20  # at 50 rows they differ by 20 bytes
assert totals[5] < 0.8 * totals[4]

# %% [markdown]
# ### Exercise 3a (8 minutes)
#
# Write `break_even(widths)`: the smallest number of rows from which on mixed precision holds *fewer* bytes in all than
# float32, for linear layers of these widths with ReLU. Find a closed form on paper; the optimizer does not matter
# (why?).


# %%
def break_even(widths):
    """Return the smallest number of rows for which mixed precision holds fewer bytes."""
    # BEGIN SOLUTION
    count = sum(before * after + after for before, after in pairwise(widths))
    return count // sum(widths[:-1]) + 1  # 2 bytes more a parameter, 2 less for each number a layer reads
    # END SOLUTION


# %% [markdown]
# The ledger finds the same by bisection, without knowing any formula:


# %%
def first_saving(saving, most=2**20):
    """Return the smallest number from which on `saving(number)` is true, by bisection."""
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if saving(middle) else (middle, high)
    return high


def mixed_saves(widths):
    """Return a function: whether mixed precision holds fewer bytes for so many rows."""

    def saves(rows):
        plain, low = (
            mp.memory.forecast(
                lambda: mlp(*widths), recipe, mp.optim.Adam, (rows, widths[0]), (rows,), F.cross_entropy
            ).total
            for recipe in ("fp32", "mixed-fp16")
        )
        return low < plain

    return saves


for widths in ((64, 128, 10), (256, 256, 256), (256,) * 9):
    found = first_saving(mixed_saves(widths))
    print(f"widths {widths}: you say {break_even(widths)} rows, the ledger {found}")
    assert break_even(widths) == found
assert break_even((64, 128, 10)) == 51
assert break_even((256, 256, 256)) == break_even((256,) * 9) == 258

# %%
figure, panels = plt.subplots(1, 2, figsize=(8.6, 3.4), layout="constrained")
rows = [1, 64, 128, 192, 256, 320, 384]
for axes, widths in zip(panels, ((64, 128, 10), (64, 256, 256, 10)), strict=True):
    for recipe, style in (("fp32", "o--"), ("mixed-fp16", "s-")):
        total = [forecast(lambda widths=widths: mlp(*widths), recipe, n).total / 1e6 for n in rows]
        axes.plot(rows, total, style, color="black", markersize=4, label=recipe)
    crossing = break_even(widths)
    axes.axvline(crossing, color="0.4", linestyle=":", label=f"mixed saves from {crossing} rows on")
    axes.set(xlabel="rows of a batch", ylabel="bytes held, with Adam (millions)", ylim=(0, None))
    axes.set_title("-".join(map(str, widths)), fontsize=10)
    axes.legend(fontsize=9, loc="lower right")
mp.labs.show(figure, "lab08_break_even")

# %% [markdown]
# A dotted line marks each crossing. For layers of one width it lies just above that width, *however deep the network*:
# depth adds parameters and activations alike. Where weights are used many times for each row, as in a convolution or
# at every position of a sequence, few rows are enough:


# %%
def saves_from(make, shapes, loss_fn, kind="float32"):
    """Return the smallest batch for which mixed precision holds fewer bytes; `shapes` makes those of a batch."""

    def saves(rows):
        inputs, targets = shapes(rows)
        plain, low = (
            mp.memory.forecast(make, recipe, mp.optim.Adam, (inputs, kind), targets, loss_fn).total
            for recipe in ("fp32", "mixed-fp16")
        )
        return low < plain

    return first_saving(saves, most=1024)


images = saves_from(lambda: models.cnn((1, 8, 8), 10), lambda n: ((n, 1, 8, 8), (n,)), F.cross_entropy)
print(f"convolutions on 8 x 8 digits: from a batch of {images} on")
windows = {
    length: saves_from(
        lambda: models.gpt((128,), 80, width=64, layers=2),
        lambda n, length=length: ((n, length), (n, length)), next_symbol, "int64",
    )
    for length in (8, 32, 128)
}  # fmt: skip
for length, batch in windows.items():
    print(f"a small GPT on windows of {length:3} characters: from a batch of {batch} on")
assert windows == {8: 8, 32: 2, 128: 1}
assert images == 4

# %% [markdown]
# ## Part 4: holding less, and what it costs (15 minutes)
#
# *Recomputing* (Chen et al. 2016): `mp.recompute(function, x)` runs a part of the network and keeps of it nothing but
# the input `x`. When backward arrives there, the part runs once more.
#
# ### Exercise 4a (8 minutes)
#
# Write `run_in_segments(layers, x, segments)`: run the list of layers on `x`, cut into so many segments of equal
# length (it divides evenly), each one under `mp.recompute`. Return the result. Mind that each part runs *later*, too:
# a function made in a loop sees the loop's variables as they are then. (`nn.Sequential(*part)` is a function that
# keeps its own layers.)


# %%
def run_in_segments(layers, x, segments):
    """Run layers one after the other, keeping for backward only the input of each segment."""
    # BEGIN SOLUTION
    size = len(layers) // segments
    for start in range(0, len(layers), size):
        x = mp.recompute(nn.Sequential(*layers[start : start + size]), x)
    return x
    # END SOLUTION


# %% [markdown]
# How much is held now? When the forward ends, the inputs of the segments. But in backward one segment after the other
# comes back to life. Here we look at both moments, on 36 layers (each a ReLU and a product), and count in arrays of one
# layer's size:


# %%
def nodes_behind(result):
    """Return every recorded op behind a result."""
    found, stack = {}, [result.node]
    while stack:
        node = stack.pop()
        if id(node) not in found:
            found[id(node)] = node
            stack += [source for source in node.inputs if hasattr(source, "saved")]
    return list(found.values())


def watch(run, number=36, width=16, rows=32):
    """Run layers forward and backward; return what is kept after the forward, the most later, and products run."""
    mp.manual_seed(0)
    layers = [nn.Sequential(nn.ReLU(), nn.Linear(width, width)) for _ in range(number)]
    weights = {id(p.array) for layer in layers for p in layer.parameters()}
    seen, nodes = [], []

    def look(_):
        arrays = mp.memory.saved_arrays(nodes)
        seen.append(sum(array.size for key, array in arrays.items() if key not in weights) / (rows * width))

    for layer in layers:
        layer[0].register_forward_hook(lambda _, __, result: result.register_hook(look) and None)
    x = mp.tensor(np.ones((rows, width)), dtype="float32", requires_grad=True)
    with mp.trace.record() as trace:
        loss = run(layers, x).sum()
        nodes += nodes_behind(loss)
        look(None)
        loss.backward()
    forwards = sum(event.phase in ("forward", "recompute") and event.op == "linear" for event in trace.events)
    backwards = sum(event.phase == "backward" and event.op == "linear" for event in trace.events)
    return seen[0], max(seen), forwards + 2 * backwards  # backward: a product for x, another for the weight


everything = watch(lambda layers, x: nn.Sequential(*layers)(x))
cuts = (1, 2, 3, 4, 6, 9, 12, 18, 36)
found = {cut: watch(lambda layers, x, cut=cut: run_in_segments(layers, x, cut)) for cut in cuts}
print(f"nothing recomputed   {everything[0]:3.0f} arrays held, {everything[2]} products")
for cut, (after, most, products) in found.items():
    print(f"{cut:2} segments: {after:3.0f} after the forward, {most:3.0f} at most later, {products} products")
    assert (after, most) == (cut, cut - 1 + 36 // cut)
    assert products == 4 * 36
assert everything == (36, 36, 3 * 36)

# %%
figure, axes = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
axes.plot(cuts, [found[cut][1] for cut in cuts], "o-", color="black", label="at most, in backward")
axes.plot(cuts, [found[cut][0] for cut in cuts], "s--", color="0.35", label="after the forward")
axes.axhline(everything[1], color="black", linestyle=":", label="nothing recomputed")
axes.set(xlabel="segments of 36 layers", ylabel="arrays held for backward", ylim=(0, None))
axes.legend(fontsize=9, loc="lower right")
mp.labs.show(figure, "lab08_segments")
assert min(found, key=lambda cut: found[cut][1]) == 6
assert (found[6][1], found[1][1], found[36][1]) == (11, 36, 36)

# %% [markdown]
# With $n$ layers in $s$ segments: the inputs of the $s - 1$ segments that still wait, and $n / s$ arrays of the one
# that is alive. That is least at $s = \sqrt n$, here 11 arrays in the place of 36. One segment, or one for each layer,
# saves *nothing*, and is paid for like the others: 4 products for every 3, a third more arithmetic. (The line
# `activations` of the ledger counts when the forward ends; so it sees the lower curve only.)
#
# *Micro-batches*: cut the batch into equal parts, run forward and backward for one after the other, and add up the
# gradients. No arithmetic is added, and only one part's activations are held at a time:


# %%
def gradients(parts):
    """Return all gradients of 32 rows in one array, added up over equal parts."""
    mp.manual_seed(0)
    model = mlp(64, 128, 10)
    for rows in np.split(np.arange(32), parts):
        (F.cross_entropy(model(mp.tensor(digits.inputs[rows])), digits.targets[rows]) / parts).backward()
    return np.concatenate([p.grad.numpy().ravel() for p in model.parameters()])


apart = np.abs(gradients(4) - gradients(1)).max() / np.abs(gradients(1)).max()
print(f"gradients in 4 parts and in one differ by {apart:.0e} of the largest: sums in another order")
assert apart < 1e-5

# %% [markdown]
# What is held for each row shrinks, what is held for each parameter does not.
#
# ### Exercise 4b (5 minutes)
#
# Write `parts_needed(state, per_row, rows, budget)`: into how many equal parts must a batch of `rows` be cut, if a step
# holds `state` bytes, and `per_row` bytes for each row, and may hold `budget` bytes in all? The smallest number that
# divides `rows`; None if even one row at a time is too much.


# %%
def parts_needed(state, per_row, rows, budget):
    """Return the smallest number of equal parts that fits the budget, or None."""
    # BEGIN SOLUTION
    for parts in range(1, rows + 1):
        if rows % parts == 0 and state + per_row * rows // parts <= budget:
            return parts
    return None
    # END SOLUTION


# %%
whole = forecast(lambda: mlp(64, 128, 10), "mixed-fp16", 960)
per_row = whole.activations // 960
for budget in (400_000, 250_000, 174_000, 170_000):
    parts = parts_needed(whole.total - whole.activations, per_row, 960, budget)
    if parts is None:
        print(f"{budget:9,} bytes: not even row by row")
        continue
    cut = forecast(lambda: mlp(64, 128, 10), "mixed-fp16", 960 // parts, micro_batches=parts)
    print(f"{budget:9,} bytes: {parts} parts; the ledger holds {cut.total:,}")
    assert cut.total <= budget
assert (whole.total, parts) == (587_700, None)

# %% [markdown]
# ## Part 5: an open question (10 minutes)
#
# Here is a larger training: a GPT of 6 layers on 32 windows of 256 characters. In float32 with Adam it holds 904 MB (of
# $10^6$ bytes). You have 100 MB. Fit it in, and defend your choice: which measures, in which order, and what does each
# cost in arithmetic, in accuracy or in work? The function `needs` is your instrument; no measure is enough alone. Two
# things want an explanation: below which budget can no number of micro-batches help? And why does float32 hold *less*
# than mixed precision once both work window by window and recompute?
#
# BEGIN SOLUTION
# *What a good answer contains.* Most of it is activations, so those come first, and what costs least comes first among
# them. Micro-batches add no arithmetic and change nothing but the order of sums (on a GPU small parts keep it less
# busy; batch normalisation would see smaller batches). Recomputing adds a third of the arithmetic and changes no bit.
# Mixed precision changes the numbers and needs loss scaling; it saves on activations alone. Plain SGD saves 8 bytes a
# parameter, but is another training, with another learning rate: a last resort. Both puzzles have one answer: what is
# held for each parameter stays, 16 bytes in float32 and 18 in mixed precision. No cut of the batch goes below it, and
# once activations are few, the low copies outweigh what is saved. A very good answer notes that activations and
# gradients are not at their height together, so that the true peak lies lower, and says what one would measure next:
# the time of a step.
# END SOLUTION


# %%
class Recomputed(nn.Module):
    """A block that is run again in backward."""

    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, x):
        """Map as the block does."""
        return mp.recompute(self.block, x)


def needs(recipe="fp32", *, optimizer=mp.optim.Adam, parts=1, recompute=False):
    """Return the bytes that a step of the GPT holds."""

    def make():
        model = models.gpt((256,), 80, width=256, layers=6)
        if recompute:
            model.blocks = nn.ModuleList([Recomputed(block) for block in model.blocks])
        return model

    shape = (32 // parts, 256)
    return mp.memory.forecast(
        make, recipe, optimizer, (shape, "int64"), shape, next_symbol, micro_batches=parts
    ).total


print(f"float32, Adam            {needs():13,} bytes")
print(f"mixed precision          {needs('mixed-fp16'):13,} bytes")
print(f"plain SGD                {needs(optimizer=mp.optim.SGD):13,} bytes")
print(f"recomputing              {needs(recompute=True):13,} bytes")
print(f"8 parts                  {needs(parts=8):13,} bytes")
print(f"32 parts                 {needs(parts=32):13,} bytes")
alone = [
    needs("mixed-fp16"), needs(optimizer=mp.optim.SGD), needs(recompute=True), *(needs(parts=n) for n in (2, 8, 32)),
]  # fmt: skip
both = [needs(recipe, parts=32, recompute=True) for recipe in ("fp32", "mixed-fp16")]
print(f"recomputing, 32 parts    {both[0]:13,} bytes in float32, {both[1]:,} in mixed precision")
assert round(needs() / 1e6) == 904
assert min(alone) > 100e6
assert both[0] < both[1] < 100e6

# %% [markdown]
# ## What to remember
#
# - Count before you run. Per parameter with Adam: 16 bytes in float32, 18 under autocast, 16 where the model itself is
#   16-bit. Mixed precision saves on activations, not on state.
# - A derivative says what is kept: ReLU's result is the next layer's input and costs nothing, GELU costs an array more,
#   a softmax under autocast keeps more than in float32.
# - So mixed precision holds less from some batch size on: about the layers' width in an MLP, few rows where weights
#   are used at many places.
# - Recomputing: about $2 \sqrt n$ arrays in the place of $n$, for a third more arithmetic. Micro-batches: as much less
#   as you like, down to the state.
