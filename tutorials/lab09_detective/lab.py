# %% [markdown]
# # Lab 09: Detective: five broken trainings
#
# About 90 minutes. Labs 05 to 07 come first: what a loss scaler does, swallowed updates, and autocast regions.
#
# After this lab you can
#
# - record a broken training and ask the question that fits it: what was not finite first, what was flushed, which
#   update was swallowed, what multiplied an error;
# - stop a training at the operation, the step and the rows of the batch where it breaks;
# - tell the cause from what became of it, also where nothing is infinite and nothing NaN;
# - prove operation by operation, with the stepper, that a training step computes what it claims;
# - confirm a suspect: mend that one thing, and see the training recover.
#
# Five trainings are broken, each in its own way. The rule of the house is the same for all: *look* at what is seen
# (the symptom), *record* it, *ask*, *name* one operation, *mend just that one*, and run again. A suspect whose mending
# changes nothing was innocent.

# %%
import warnings

import matplotlib.pyplot as plt
import numpy as np

import minimp as mp

F, nn = mp.functional, mp.nn
train, test = mp.data.digits("train"), mp.data.digits("test")


def batches_of(steps, seed=0, rows=64):
    """Return so many batches, each the numbers of the rows that it takes from the training digits."""
    return np.random.default_rng(seed).integers(0, len(train), (steps, rows))


# %% [markdown]
# ## Part 1: the training that unlearns (15 minutes)
#
# The digits come from a sensor that counts up to 300, in place of 0 to 1. "No harm", says the author, "the network
# normalises them": after its first layer each row is divided by the root of its mean square.


# %%
class RootMeanSquare(nn.Module):
    """Divide each row by the root of its mean square."""

    def forward(self, x):  # (N, C) -> (N, C)
        """Return x over its size."""
        return x / (x * x).mean(dim=1, keepdim=True).sqrt()


class Counter(nn.Module):
    """A classifier of digits with a norm in the middle."""

    def __init__(self, norm, seed=0):
        super().__init__()
        mp.manual_seed(seed)
        self.inner, self.norm, self.outer = nn.Linear(64, 64), norm, nn.Linear(64, 10)

    def forward(self, x):  # (N, 64) -> (N, 10)
        """Return the scores of the classes."""
        return self.outer(self.norm(F.relu(self.inner(x))))


def counter_step(norm):
    """Return a training step of such a classifier, in mixed precision."""
    model = Counter(norm)
    return mp.TrainStep(model, F.cross_entropy, mp.optim.Adam(model.parameters(), lr=1e-2), "mixed-fp16")


counts = [(np.float32(300) * train.inputs[rows], train.targets[rows]) for rows in batches_of(160)]
step = counter_step(RootMeanSquare())
with mp.trace.record(modules="norm") as trace:  # statistics of the norm's operations alone
    reports = [step(*batch) for batch in counts]
losses = [report.loss for report in reports]
best = int(np.argmin(losses))
print(
    f"loss {losses[0]:.2f}, best {losses[best]:.2f} at step {best + 1}, in the last 20 {np.mean(losses[-20:]):.2f}"
)
print(f"steps skipped: {sum(report.skipped for report in reports)}; loss scale: {reports[-1].loss_scale:.0f}")
assert np.mean(losses[-20:]) > 1.5 * losses[best]
assert np.isfinite(losses).all()
assert not any(report.skipped for report in reports)

# %% [markdown]
# The symptom: it learns, and then it unlearns. Every loss is finite, every gradient is, the scaler is content. Is
# there nothing infinite, then? Ask the record:

# %%
print(trace.first_nonfinite())

# %% [markdown]
# A trace is a list of *events*, `trace.events`. An event is one operation (`phase` "forward"), its gradient
# ("backward") or a stage of the training step ("stage"). It has an `op`, a `title` (the op with its phase: `mul`,
# `mul backward`), the `module` that it ran in, the `step`, and `inputs` and `outputs` with statistics: counts of `nan`
# and `inf`, `amax`, and so on. `trace.first_nonfinite()` gives None, or an object whose `event` is the event that made
# the first infinity or NaN, `cause` says how, and `chain` lists what led to it, the nearest first.
#
# ### Exercise 1a (warm-up, 5 minutes)
#
# Write `first_bad(trace)`: the tuple `(title, module, step)` of the event that made the first value that is infinite
# *or* NaN; None if there is none.


# %%
def first_bad(trace):
    """Return (title, module, step) of the first event with a value that is not finite, or None."""
    # BEGIN SOLUTION
    found = trace.first_nonfinite()
    return None if found is None else (found.event.title, found.event.module, found.event.step)
    # END SOLUTION


# %%
print("the suspect:", first_bad(trace))
assert tuple(first_bad(trace))[:2] == ("mul", "norm")

# %% [markdown]
# So the square overflows: a number above 256 has a square above 65504. Its row then has an infinite size, and is
# divided by it: the whole row becomes *zero*, which is finite again. The infinity has vanished before anybody looked.
# Here are two rows, one with such a number:

# %%
two = mp.tensor([[300.0, 3.0], [200.0, 3.0]], dtype=mp.float16, requires_grad=True)
made = RootMeanSquare()(two)
made[:, 1].sum().backward()
print(f"results {made.tolist()}\ngradients {two.grad.tolist()}")
assert made.tolist()[0] == two.grad.tolist()[0] == [0.0, 0.0]
assert np.all(made.detach().numpy()[1])
assert np.all(two.grad.numpy()[1])

# %% [markdown]
# The classifier sees a blank row, and its gradient is zero, too. And the better it fits the others, the larger the
# numbers grow, the more rows go blank:

# %%
squares = trace.select(op="mul", module="norm", phase="forward")
spoilt = [event.overflowed for event in squares]
broke = next(i for i, count in enumerate(spoilt) if count)
print(
    f"squares that overflowed: {spoilt[broke]} in step {broke + 1}, {np.mean(spoilt[-20:]):.0f} in each of the last 20"
)
assert np.mean(spoilt[-20:]) > 5 * spoilt[broke]
assert 256**2 > mp.float16.max > 255**2

# %% [markdown]
# A colleague is sure that the loss scale is too large. Do not argue, *intervene*: the stepper (`mp.stepper.Session`,
# or `minimp step` in a terminal) holds a training step in its hand. It searches for a condition over several steps,
# goes back, and runs a step again with one thing changed.

# %%
session = mp.stepper.Session(counter_step(RootMeanSquare()), counts)
found = session.search("nonfinite")
print(f"stopped at step {session.number}, after {session.done} of 10 stages, at: {found.event.title}")
before, after = session.change(mp.stepper.Edit("scale", ("1",), step=session.number))
print(
    f"at a loss scale of {before.loss_scale:.0f}: first {before.first}; at {after.loss_scale:.0f}: {after.first}"
)
session.close()
assert after.loss_scale == 1
assert after.first == before.first  # innocent

# %% [markdown]
# The scale is innocent. Now mend the suspect, and nothing else: the square, in float32. That is one line.


# %%
class WideRootMeanSquare(RootMeanSquare):
    """The same, in float32."""

    def forward(self, x):  # (N, C) -> (N, C)
        """Return x over its size."""
        return super().forward(x.float())


step = counter_step(WideRootMeanSquare())
mended = [step(*batch).loss for batch in counts]
print(f"the last 20 losses: {np.mean(losses[-20:]):.2f} broken, {np.mean(mended[-20:]):.2f} mended")
assert np.mean(mended[-20:]) < 0.2 < np.mean(losses[-20:])

# %%
largest = [event.inputs[0].stats.amax for event in squares]
assert np.mean(largest[-20:]) > 1.2 * np.mean(largest[:20])
figure, (above, below) = plt.subplots(2, 1, figsize=(6.4, 5.2), sharex=True, layout="constrained")
above.plot(range(1, 161), largest, "-", color="black", label="largest number that is squared")
above.axhline(256, linestyle="--", color="0.4", label="256: beyond, float16 has no square")
above.set(ylabel="magnitude", ylim=(150, 800))
below.plot(range(1, 161), losses, "-", color="black", label="broken")
below.plot(range(1, 161), mended, "--", color="0.4", label="mended")
below.set(xlabel="step", ylabel="training loss", ylim=(0, 3))
for axes in (above, below):
    axes.axvline(broke + 1, linestyle=":", color="black", label=f"first overflow: step {broke + 1}")
    axes.legend(fontsize=9, loc="upper right")
mp.labs.show(figure, "lab09_unlearning")

# %% [markdown]
# ## Part 2: the NaN that came a step late (15 minutes)
#
# The second training learns a distance: pairs of the same digit shall be near, pairs of different digits at least 1
# apart. All of it is in float32; formats cannot be to blame.


# %%
def distance(a, b):  # (N, C) and (N, C) -> (N,)
    """Return the distance of each pair of rows."""
    difference = a - b
    return (difference * difference).sum(dim=1).sqrt()


class Twins(nn.Module):
    """The distance of two digits, after both went through the same layers."""

    def __init__(self, between, seed=0):
        super().__init__()
        mp.manual_seed(seed)
        self.embed = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 8))
        self.between = between

    def forward(self, pairs):  # (N, 2, 64) -> (N,)
        """Return the distance of each pair."""
        return self.between(self.embed(pairs[:, 0]), self.embed(pairs[:, 1]))


def contrast(distances, same):  # Hadsell, Chopra and LeCun 2006, without their halves
    """Return the mean of d^2 for the same digit, max(0, 1 - d)^2 for different ones."""
    same, short = mp.tensor(same), F.relu(1 - distances)
    return (same * distances * distances + (1 - same) * short * short).mean()


def twin_step(between):
    """Return a training step of the twins."""
    model = Twins(between)
    return mp.TrainStep(model, contrast, mp.optim.Adam(model.parameters(), lr=2e-3), "fp32")


left, right = batches_of(120, seed=10, rows=32), batches_of(120, seed=11, rows=32)
pairs = [
    (np.stack([train.inputs[i], train.inputs[j]], axis=1), np.float32(train.targets[i] == train.targets[j]))
    for i, j in zip(left, right, strict=True)
]
step = twin_step(distance)
losses = [step(*batch).loss for batch in pairs]
late = int(np.argmax(np.isnan(losses))) + 1  # the first step whose loss is NaN
print(
    f"loss of step {late - 1}: {losses[late - 2]:.3f}; of step {late}: {losses[late - 1]}, and NaN ever after"
)
assert np.isfinite(losses[: late - 1]).all()
assert np.isnan(losses[late - 1 :]).all()
assert late > 20

# %% [markdown]
# The symptom: NaN from one step to the next. Was that batch a bad one? Look at *when* the first NaN was made, not at
# when it was seen. `mp.trace.break_when(condition)` raises in the block at the operation for which a condition holds.
# The error (`mp.errors.BreakpointError`) has the `event`, and the `trace` that led there, which keeps the values of
# the event that it stopped at: `values(event)["in0"]`, `["out0"]` and so on.

# %%
try:
    with mp.trace.break_when("op == relu and zeros > 0"):
        twin_step(distance)(*pairs[0])
except mp.errors.MinimpError as fault:
    event = fault.event
    far = np.flatnonzero(fault.trace.values(event)["out0"] == 0)
    print(f"stopped at {event.title} of step {event.step}: rows {far} are more than 1 apart")

# %% [markdown]
# ### Exercise 2a (10 minutes)
#
# Write `caught(step, batches)`: train, batch by batch (`step(*batch)`), and stop at the first event with a value that
# is not finite. Return `(number, title, rows)`: the number of the training step, counted from 1, the event's title,
# and a list of those rows of its first output (`out0`, whose first axis is the batch) that hold something not finite.
# Return None if all went well. The weights must stay as they were before the bad step.


# %%
def caught(step, batches):
    """Return (number of the step, title of the event, rows) of the first value that is not finite, or None."""
    # BEGIN SOLUTION
    try:
        with mp.trace.break_when("nonfinite"):
            for batch in batches:
                step(*batch)
    except mp.errors.BreakpointError as stop:
        made = stop.trace.values(stop.event)["out0"]
        bad = ~np.isfinite(made).reshape(len(made), -1).all(axis=1)
        return stop.event.step, stop.event.title, np.flatnonzero(bad).tolist()
    return None
    # END SOLUTION


# %%
number, title, rows = caught(twin_step(distance), pairs)
print(f"{title}, in step {number}, rows {rows}; the loss of that step was {losses[number - 1]:.3f}")
for row in rows:
    print(f"row {row}: digit no. {left[number - 1][row]} beside digit no. {right[number - 1][row]}")
assert (number, title) == (late - 1, "sqrt backward")
assert all(left[number - 1][row] == right[number - 1][row] for row in rows)

# %% [markdown]
# A digit was drawn beside itself. Its distance is 0, which is right, and the loss is finite. But the slope of the root
# at 0 is infinite, and what comes in from above is 0 (the pair is as near as can be): $0 \cdot \infty$ is NaN. It is
# one pair of 32, but its NaN is added to every weight's gradient, and the *next* loss shows it. `mp.detect_anomaly()`
# stops there, too, and tells the line of the forward:

# %%
step = twin_step(distance)
for batch in pairs[: number - 1]:
    step(*batch)
try:
    with mp.detect_anomaly():
        step(*pairs[number - 1])
except mp.errors.AnomalyError as fault:
    print("\n".join(str(fault).splitlines()[:2]))
    anomaly = fault.event.title
step(*pairs[number - 1])
spoilt = np.concatenate([np.isnan(p.detach().numpy()).ravel() for p in step.model.parameters()])
print(f"after that step {np.mean(spoilt):.0%} of the weights are NaN")
assert anomaly == title
assert spoilt.all()

# %% [markdown]
# ### Exercise 2b (5 minutes)
#
# Write `safe_distance(a, b)`: the same distances (within a thousandth, for those above 0.05), whose gradient is finite
# for *all* rows. One line of `distance` is changed. Mind that backward multiplies the slope in even where you throw
# the result away.


# %%
def safe_distance(a, b):  # (N, C) and (N, C) -> (N,)
    """Return the distance of each pair of rows, with a gradient for equal rows too."""
    # BEGIN SOLUTION
    difference = a - b
    return ((difference * difference).sum(dim=1) + 1e-8).sqrt()
    # END SOLUTION


# %%
step = twin_step(safe_distance)
mended = [step(*batch).loss for batch in pairs]
print(f"120 steps: loss {mended[0]:.3f} at first, {np.mean(mended[-20:]):.3f} in the last 20")
assert np.isfinite(mended).all()
assert np.mean(mended[-20:]) < 0.5 * mended[0]

# %% [markdown]
# ## Part 3: three that stand still (20 minutes)
#
# The third network has a stem and a norm, and two heads on them: one tells the class, one draws the digit again. The
# drawing counts little in the loss, a hundred-thousandth, so as not to disturb. Everything is in float16.


# %%
class TwoHeads(nn.Module):
    """Scores of the classes, and the digit drawn again."""

    def __init__(self, seed=0):
        super().__init__()
        mp.manual_seed(seed)
        self.stem, self.norm = nn.Linear(64, 128).requires_grad_(False), nn.LayerNorm(128)
        self.classify, self.redraw = nn.Linear(128, 10), nn.Linear(128, 64)

    def forward(self, x):  # (N, 64) -> (N, 10), (N, 64)
        """Return both heads' results."""
        found = self.norm(F.relu(self.stem(x)))
        return self.classify(found), self.redraw(found)


def both_losses(made, rows):
    """Return the loss of both heads; the targets are the numbers of the rows."""
    scores, drawn = made
    again = F.mse_loss(drawn, mp.tensor(train.inputs[rows], dtype=drawn.dtype))
    return F.cross_entropy(scores, train.targets[rows]) + 1e-5 * again


def train_two_heads(recipe):
    """Train; return the step, the share of test digits told right, the error of the drawings."""
    model = TwoHeads()
    step = mp.TrainStep(model, both_losses, mp.optim.Adam(model.parameters(), lr=2e-4), recipe)
    for rows in batches_of(250):
        step(train.inputs[rows], rows)
    with mp.no_grad():
        scores, drawn = model(mp.tensor(test.inputs, dtype=model.norm.weight.dtype))
    told = float(np.mean(scores.numpy().argmax(1) == test.targets))
    return step, told, float(np.mean((drawn.numpy().astype(np.float32) - test.inputs) ** 2))


def traced(step):
    """Return the trace of one more training step."""
    with mp.trace.record() as trace:
        step(train.inputs[:64], np.arange(64))
    return trace


_, told_32, drawn_32 = train_two_heads("fp32")
halves, told_16, drawn_16 = train_two_heads("fp16")
print(f"float32: {told_32:.1%} told right, error of the drawings {drawn_32:.3f}")
print(f"float16: {told_16:.1%} told right, error of the drawings {drawn_16:.3f}")
trace = traced(halves)
print(trace)
assert abs(told_16 - told_32) < 0.02
assert drawn_16 > 5 * drawn_32
assert trace.first_nonfinite() is None

# %% [markdown]
# The symptom: the classes are fine, the drawings are as they were at the start, and everything is finite. (The log
# shows the sum of both losses, in which the drawing is invisible.) Which parameters do not move, and *why not*?
# `trace.swallowed()` has a row for each parameter that has a gradient: how many of its updates were not zero, and how
# many of those were swallowed (lab 04). A parameter without a gradient has no row.

# %%
print(trace.swallowed())

# %% [markdown]
# ### Exercise 3a (10 minutes)
#
# Write `why_still(trace, names)`: a dict from each of the parameters' names to one of four words: `"no gradient"` (no
# row), `"zero gradient"` (not one update that is not zero), `"swallowed"` (more than nine tenths of the updates that
# are not zero were), or `"moves"`. A row's keys are the column names.


# %%
def why_still(trace, names):
    """Return name -> "no gradient", "zero gradient", "swallowed" or "moves"."""
    # BEGIN SOLUTION
    rows = {row["parameter"]: row for row in trace.swallowed()}

    def word(name):
        if name not in rows:
            return "no gradient"
        if rows[name]["non-zero"] == 0:
            return "zero gradient"
        return "swallowed" if rows[name]["share"] > 0.9 else "moves"

    return {name: word(name) for name in names}
    # END SOLUTION


# %%
names = [name for name, _ in halves.model.named_parameters()]
for name, word in why_still(trace, names).items():
    print(f"{name:16} {word}")
assert why_still(trace, names)["norm.weight"] == "swallowed"
assert why_still(trace, names)["redraw.weight"] == "zero gradient"
assert why_still(trace, names)["stem.weight"] == "no gradient"
assert mp.formats.ulp(np.array(0.999), mp.float16) / 2 > 0.0002

# %% [markdown]
# Three stand still for three reasons, and each has another remedy. The stem is frozen, on purpose. The norm's gain is
# about 1 and the learning rate 0.0002, below half an ulp on either side (lab 06). But the drawing head gets a gradient
# that is zero. Where did that gradient die? Its layer has zeros all over, and so has everything between the layer and
# the loss; but zeros that came in are no loss of *this* operation. An event knows what it flushed itself:
# `event.flushed` counts results that were not 0 before it rounded them and are 0 now; `side.stats.nonzero` counts, for
# each of its `outputs` (None where there is none), those that are not 0.
#
# ### Exercise 3b (10 minutes)
#
# Write `where_it_died(trace)`: `(title, module)` of the first event of *backward* that itself flushed more than half
# of its results that were not 0; None if none did. `trace.select(phase="backward")` has the events in order.


# %%
def where_it_died(trace):
    """Return (title, module) of the first gradient that was flushed where it was made, or None."""
    # BEGIN SOLUTION
    for event in trace.select(phase="backward"):
        kept = sum(side.stats.nonzero for side in event.outputs if side is not None)
        if event.flushed > kept:
            return event.title, event.module
    return None
    # END SOLUTION


# %%
print("flushed by:", where_it_died(trace))
assert where_it_died(trace)[0] == "mse_loss backward"

# %% [markdown]
# Two suspects, two remedies: a loss scale for gradients that are flushed, float32 masters for updates that are
# swallowed. Mend one at a time. minimp has both recipes, and one that does both:

# %%
for recipe in ("fp16", "fp16-scaled", "fp16-master", "mixed-fp16"):
    step, _, drawn = train_two_heads(recipe)
    trace = traced(step)
    words = why_still(trace, ["redraw.weight", "norm.weight"])
    head, gain = words["redraw.weight"], words["norm.weight"]
    print(f"{recipe:12} error of the drawings {drawn:.3f}; drawing head: {head}; gain: {gain}")
    assert (drawn < 2 * drawn_32) == (recipe in ("fp16-scaled", "mixed-fp16"))
    assert (gain == "swallowed") == (recipe in ("fp16", "fp16-scaled"))

# %% [markdown]
# Each remedy cures its own and leaves the other as it was: that is what it looks like when the diagnosis is right.
#
# ## Part 4: everything finite, nothing flushed (15 minutes)
#
# The fourth network learns a sound: from the time $t$, between 0 and 1, to the signal, which has tones of 30 and 90
# oscillations. It is shown sines and cosines of $2 \pi 2^k t$, for $k$ from 0 to 7 (Tancik et al. 2020): a matrix
# product and a sine. In mixed precision with bfloat16 products, its error stays ten times too large.

# %%
OCTAVES = np.float32(2 * np.pi * 2.0 ** np.arange(8))[:, None]  # (8, 1)


def encode(t, frequencies):  # (N, 1) and (K, 1) -> (N, 2 K)
    """Return sines and cosines of the time, at all frequencies."""
    angles = F.linear(t, mp.tensor(frequencies))
    return F.cat([angles.sin(), angles.cos()], dim=1)


class Sound(nn.Module):
    """A signal over time."""

    def __init__(self, encoding, seed=0):
        super().__init__()
        mp.manual_seed(seed)
        self.encoding, self.hidden, self.out = encoding, nn.Linear(16, 64), nn.Linear(64, 1)

    def forward(self, t):  # (N, 1) -> (N, 1)
        """Return the signal at these times."""
        return self.out(F.relu(self.hidden(self.encoding(t, OCTAVES))))


def heard(count, seed):
    """Return random times, and the signal at them."""
    t = np.random.default_rng(seed).random((count, 1), dtype=np.float32)
    return t, np.float32(0.5 * np.sin(2 * np.pi * 30 * t) + 0.5 * np.sin(2 * np.pi * 90 * t + 1))


def train_sound(recipe, encoding=encode):
    """Train; return the step, and the mean loss of the last 50 of 300 steps."""
    model = Sound(encoding)
    step = mp.TrainStep(model, F.mse_loss, mp.optim.Adam(model.parameters(), lr=5e-3), recipe)
    losses = [step(*heard(256, seed)).loss for seed in range(300)]
    return step, float(np.mean(losses[-50:]))


_, error_32 = train_sound("fp32")
brains, error_16 = train_sound("mixed-bf16")
with mp.trace.record(shadow=True) as trace:  # everything is computed in float64, too
    brains(*heard(256, 0))
print(f"mean squared error: {error_32:.4f} in float32, {error_16:.4f} with bfloat16 products")
print(trace)
assert error_16 > 10 * error_32
assert trace.first_nonfinite() is None
assert not any(event.flushed for event in trace.events)
assert all(row["share"] < 0.01 for row in trace.swallowed())

# %% [markdown]
# All finite, nothing flushed, nothing swallowed: all witnesses so far are silent. Only a *shadow* helps, the same
# computed in float64. It tells of every result how large its relative error is, and splits it: what this operation
# *made* by its own rounding, and what it inherited. With 8 bits a rounding makes up to 1 part in 256; that is the price
# of the format, and nobody is to blame for it. To blame is who *multiplies* it.

# %%
forward = [
    event for event in trace.select(phase="forward") if event.module in ("", "hidden", "out", "(Sound)")
]
forward = [event for event in forward if event.errors and event.errors[0] is not None and event.op != "cast"]
made = [event.errors[0].made.relative for event in forward]
total = [event.errors[0].total.relative for event in forward]
assert max(made) < 1 / 256
places = np.arange(len(forward))
figure, axes = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
axes.bar(
    places - 0.2,
    np.maximum(made, 1e-4),
    0.4,
    color="white",
    edgecolor="black",
    hatch="///",
    label="made here",
)
axes.bar(
    places + 0.2,
    np.maximum(total, 1e-4),
    0.4,
    color="0.4",
    edgecolor="black",
    label="in the result, all told",
)
axes.set(
    yscale="log", ylabel="relative error (of norms)", ylim=(1e-4, 3), xlabel="operations of forward, in order"
)
axes.set_xticks(places, [event.op for event in forward], rotation=30, ha="right")
axes.legend(fontsize=9, loc="upper left")
mp.labs.show(figure, "lab09_errors")
print(trace.amplifiers())

# %% [markdown]
# ### Exercise 4a (10 minutes)
#
# Write `amplifier(trace)`: `(title, where)` of the *first* event into which a relative error below 1 % enters, and
# out of which more than 10 % leaves; None if there is none. `trace.amplifiers()` has rows with `event` (its number),
# `op` (its title), `where`, `times`, `entering` and `leaving`; it is sorted by `times`, not by event.


# %%
def amplifier(trace):
    """Return (title, where) of the first event that turns a small error into a large one, or None."""
    # BEGIN SOLUTION
    rows = [row for row in trace.amplifiers() if row["entering"] < 0.01 and row["leaving"] > 0.1]
    first = min(rows, key=lambda row: row["event"], default=None)
    return None if first is None else (first["op"], first["where"])
    # END SOLUTION


# %%
print("the amplifier:", amplifier(trace))
assert amplifier(trace)[0] == "sin"
assert mp.formats.ulp(np.array(500.0), mp.bfloat16) == 2

# %% [markdown]
# With 8 bits an angle of 500 is a multiple of 2. It may be off by 1, a sixth of a turn, and the sine of it is a guess.
# The sine does its work well; it must not be given such an angle.
#
# ### Exercise 4b (5 minutes)
#
# Write `safe_encode(t, frequencies)`, to be called inside an autocast region, for a float32 tensor `t`: as `encode`,
# but with the angles and their sines in float32 (errors below a thousandth). The layers after it shall stay in
# bfloat16. A block of `mp.autocast("bfloat16", enabled=False)` leaves the region.


# %%
def safe_encode(t, frequencies):  # (N, 1) and (K, 1) -> (N, 2 K)
    """Return sines and cosines of the time, also inside of an autocast region."""
    # BEGIN SOLUTION
    with mp.autocast("bfloat16", enabled=False):
        return encode(t, frequencies)
    # END SOLUTION


# %%
step, error_mended = train_sound("mixed-bf16", safe_encode)
with mp.trace.record(shadow=True) as trace:
    step(*heard(256, 0))
formats = {event.module: event.outputs[0].format for event in trace.select(op="linear", phase="forward")}
print(
    f"mean squared error: {error_32:.4f} in float32, {error_16:.4f} broken, {error_mended:.4f} mended; {formats}"
)
assert error_mended < 2 * error_32
assert amplifier(trace) is None
assert formats["hidden"] == formats["out"] == "bfloat16"

# %% [markdown]
# ## Part 5: the lie (15 minutes)
#
# The last network has an operation of its own: a bump, $y = e^{-x^2}$, with its gradient derived by hand. (In an
# operation of one's own `ctx.wide` reads an array in float32 and `ctx.round` rounds once, to the format in force.) It
# learns neither in float32 nor in mixed precision.


# %%
@mp.op()
def bump(ctx, x):
    """e^(-x^2)."""
    ctx.save(x)
    return ctx.round(np.exp(-(ctx.wide(x) ** 2)))


@bump.gradient
def _(ctx, grad):
    (x,) = ctx.saved
    x = ctx.wide(x)
    return ctx.round(ctx.wide(grad) * 2 * x * np.exp(-(x**2)))


class Bump(nn.Module):
    """A bump of each element."""

    def forward(self, x):
        """Return e^(-x^2)."""
        return bump(x)


def train_bumps(recipe, steps=150):
    """Train; return the step and its losses."""
    mp.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), Bump(), nn.Linear(64, 10))
    step = mp.TrainStep(model, F.cross_entropy, mp.optim.SGD(model.parameters(), lr=1.0), recipe)
    return step, [step(train.inputs[rows], train.targets[rows]).loss for rows in batches_of(steps)]


for recipe in ("fp32", "mixed-fp16"):
    step, losses = train_bumps(recipe)
    print(f"{recipe:10} loss {losses[0]:.2f} at first, {np.mean(losses[-20:]):.2f} in the last 20")
    assert np.mean(losses[-20:]) > losses[0]
with mp.trace.record(shadow=True) as trace:
    step(train.inputs[:64], train.targets[:64])
print(trace)
assert trace.first_nonfinite() is None
assert not any(
    event.errors and event.errors[0] and event.errors[0].total.relative > 0.1 for event in trace.events
)

# %% [markdown]
# The shadow is silent, and it must be: it computes the *same rules* in float64. A trace is an honest witness of what
# was computed, not of what should have been. That needs a proof: is each gradient the derivative of its forward (lab
# 03), each result within its bound, each stage what its equation says? The stepper proves what it stands at:
# `session.check()` is true if all claims hold, and prints the one that does not. `session.next_op()` goes to the next
# operation, gradient or stage, and returns it, a *moment* with an `event`. A step is over after its ten stages, at the
# end of the last:


# %%
def moments_of(session):
    """Walk through the training step; yield each moment at which the session then stands."""
    while session.done < 10 or not session.at_end:
        yield session.next_op()


with mp.stepper.Session(step, [(train.inputs[:64], train.targets[:64])]) as session:
    titles = [moment.event.title for moment in moments_of(session)]
print(f"{len(titles)} moments: {', '.join(titles[:8])}, ...")

# %% [markdown]
# ### Exercise 5a (10 minutes)
#
# Write `refuted(session)`: walk through one training step with `moments_of`, and return `(title, module)` of the first
# moment whose check fails; None if everything holds. (The check of a whole stage repeats what its operations found.)


# %%
def refuted(session):
    """Return (title, module) of the first operation, gradient or stage that does not hold, or None."""
    # BEGIN SOLUTION
    for moment in moments_of(session):
        if not session.check():
            return moment.event.title, moment.event.module
    return None
    # END SOLUTION


# %%
with mp.stepper.Session(step, [(train.inputs[:64], train.targets[:64])]) as session:
    print("refuted:", refuted(session))
    print(session.check())
    assert session.moment.event.title == "bump backward"

# %% [markdown]
# Expected and got differ in their sign alone: $y' = -2 x\, e^{-x^2}$. The layers below went uphill. One character:


# %%
@bump.gradient
def _(ctx, grad):
    (x,) = ctx.saved
    x = ctx.wide(x)
    return ctx.round(ctx.wide(grad) * -2 * x * np.exp(-(x**2)))


step, mended = train_bumps("mixed-fp16")
print(f"the last 20 losses: {np.mean(losses[-20:]):.2f} broken, {np.mean(mended[-20:]):.2f} mended")
assert np.mean(mended[-20:]) < 0.5
with mp.stepper.Session(step, [(train.inputs[:64], train.targets[:64])]) as session:
    assert refuted(session) is None

# %% [markdown]
# ## Part 6: an open question (10 minutes)
#
# Design a sixth broken training for your neighbour: some twenty lines, a few seconds, with one fault in one place. It
# must really fail (compare it with its mended self), the symptom must not be at the place of the fault, and one
# question to the trace or the stepper must find it. Hand over the broken code alone; keep, sealed, the symptom, the
# question, the operation, and the line that mends it. The cell below has a way to begin.
#
# BEGIN SOLUTION
# *What a good answer contains.* Code that runs, a measured difference between broken and mended over more than one
# seed, and one fault only: mending it alone brings the training back. Symptom and fault lie apart (an infinity that is
# divided away; a gradient that dies in the loss while a head stands still; a mean over a padded row 0 / 0 that is
# masked afterwards; running statistics of a norm in 16 bits, seen in evaluation alone; labels above 2048 that went
# through float16). It says which question finds the fault *and which do not*, with what they answer. The cell below: a
# probability that is exactly 0 is masked after its logarithm; forward is finite, backward multiplies 0 by infinity. A
# very good answer says why its fault would survive a review, and which cheap check at run time would have caught it on
# the first day: `mp.detect_anomaly` for a step, a count of swallowed updates, a proof of each operation of one's own.
# END SOLUTION

# %%
shares = mp.tensor([[0.5, 0.5, 0.0]], requires_grad=True)
entropy = -(shares * F.where(shares > 0, shares.log(), mp.tensor(0.0))).sum()
with mp.trace.record() as trace, warnings.catch_warnings():
    warnings.simplefilter("ignore")
    entropy.backward()
print(f"entropy {float(entropy.detach()):.4f}, gradient {shares.grad.tolist()}: {first_bad(trace)}")
assert np.isnan(shares.grad.numpy()).any()
assert np.isfinite(float(entropy.detach()))

# %% [markdown]
# ## What to remember
#
# - Where a fault is seen is seldom where it was made: ask for the *first* infinity or NaN, and stop there. Infinities
#   can vanish (a division by one), and NaN shows one step late.
# - Finite is not right: ask what was flushed, what was swallowed, and, with a shadow, what multiplied an error.
# - A trace tells what was computed. Whether that is what you meant, only a proof tells: difference quotients, bounds.
# - Mend one thing, and run again. A suspect whose mending changes nothing was innocent.
