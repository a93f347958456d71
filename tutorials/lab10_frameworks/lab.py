# %% [markdown]
# # Lab 10: Does my framework do this right?
#
# About 65 minutes. You need lab 05 (loss scaling); lab 07 (autocast) helps.
#
# After this lab you can
#
# - look up which format an operation has under a framework's autocast, and since which release;
# - write down a library's loss scaler from its rule, and tell nine libraries' apart by what they do;
# - show, with a program of five lines, that a rule is a defect, and say what would be right;
# - run the comparison with an installed PyTorch and read its report.
#
# PyTorch need not be installed: the rules are on record here, with the version in which each was seen. Where it is
# installed, two cells compare live, and say so. No graded answer depends on it.

# %%
from importlib.util import find_spec

import matplotlib.pyplot as plt

import minimp as mp
from minimp import policy, scaler

live = find_spec("torch") is not None
print(
    "PyTorch is",
    "installed: compared live where the lab says so" if live else "not installed: rules on record",
)

# %% [markdown]
# ## Part 1: rules have a date (15 minutes)
#
# A *policy* is a table: operation to class. The classes are PyTorch's: `fp32` computes in float32,
# `lower_precision_fp` in the region's 16 bits, `promote` in float32 if any input is; an operation that is
# `unlisted` takes what it is given. `at` goes back to a release.

# %%
cuda = mp.policies["torch-cuda"]
print(cuda.at("2.11").diff(cuda))
print(cuda.at("2.11").explain("rms_norm", ["float16"]))
assert [row.op for row in cuda.history() if row.release == "2.12"] == ["rms_norm"]

# %% [markdown]
# So RMS normalisation of float16 numbers was computed in float16 up to 2.11 and is computed in float32 from 2.12
# on: the same program, other results.
#
# ### Exercise 1a (warm-up, 5 minutes)
#
# Write `since(op)`: the release from which on `torch-cuda` lists an operation as it does now, as a string such as
# `"2.4"`; None if nothing changed since the first release on record. The rows of `cuda.history()` come oldest
# first; each has `op` and `release`.


# %%
def since(op):
    """Return the release that gave an operation its class of today, or None."""
    # BEGIN SOLUTION
    found = [row.release for row in cuda.history() if row.op == op]
    return found[-1] if found else None
    # END SOLUTION


# %% [markdown]
# ### Exercise 1b (10 minutes)
#
# Releases are one axis, devices another. Write `disagree(ops)`: those of a list of operations that have different
# classes in the tables of `torch-cuda` and `torch-cpu`, sorted. A policy is asked like a dict: `p[op]`; to be
# unlisted is a class as well, and means that the inputs decide.


# %%
def disagree(ops):
    """Return the operations whose class differs between PyTorch's CUDA and CPU tables."""
    # BEGIN SOLUTION
    cpu = mp.policies["torch-cpu"]
    return sorted(op for op in ops if cuda[op] != cpu[op])
    # END SOLUTION


# %%
print("softmax, matmul, exp, sum: these differ", disagree(["softmax", "matmul", "exp", "sum"]))
assert disagree(["softmax", "matmul", "exp", "sum"]) == ["exp", "softmax", "sum"]

# %% [markdown]
# A model that is fine on a GPU may thus compute its softmax in bfloat16 on a CPU. Held against an installed
# PyTorch, on the CPU:

# %%
if live:
    import torch

    with torch.autocast("cpu", torch.bfloat16):
        theirs = torch.softmax(torch.ones(2, 2, dtype=torch.bfloat16), dim=1).dtype
    told = mp.policies["torch-cpu"].explain("softmax", ["bfloat16"], low="bfloat16").result.name
    print(f"live, PyTorch {torch.__version__}: {theirs}; minimp's table: {told}")
    assert str(theirs) == f"torch.{told}"

# %% [markdown]
# ## Part 2: nine libraries move the scale (20 minutes)
#
# Most libraries halve the loss scale after a bad step (a gradient was infinite or NaN) and double it after enough
# good ones in a row. The details differ, and are on record; what is odd stands below each row:

# %%
print(scaler.presets_table())
libraries = {name.removesuffix("-fp16-optimizer").removesuffix("-ampscaler") for name in scaler.PRESETS} - {
    "static"
}
print(len(libraries), "libraries:", ", ".join(sorted(libraries)))
assert len(libraries) == 9

# %% [markdown]
# `scaler.replay` lets presets loose on one history of verdicts (True: the step was bad). Here: 40 bad steps, as of
# a model that is broken for good, then many good ones.

# %%
history = [True] * 40 + [False] * 60
scales = scaler.replay(history, ["torch", "jmp", "chainer"], growth_interval=10)
figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
for (name, row), style in zip(scales.items(), ("-", "--", ":"), strict=True):
    axes.plot(row, style, color="black", label=name)
axes.set(yscale="log", xlabel="step", ylabel="loss scale")
axes.set_yscale("log", base=2)
axes.legend(fontsize=9)
mp.labs.show(figure, "lab10_scales")
assert scales["torch"][39] == 2.0 ** (16 - 40)
assert scales["jmp"][39] == scales["chainer"][39] == 1.0

# %% [markdown]
# PyTorch's has no floor. At a scale of $2^{-24}$ it makes gradients *smaller* than float16 can hold, and does so
# silently.
#
# ### Exercise 2a (10 minutes)
#
# Write `torch_scales(verdicts, scale, growth_interval)`: the list of scales after each step, by PyTorch's rule. A
# bad step halves the scale and begins the count of good steps anew; `growth_interval` good steps in a row double
# it, and begin the count anew too. (Leave the ends of the range of float32 aside.)


# %%
def torch_scales(verdicts, scale, growth_interval):
    """Return the loss scale after each step, as PyTorch's GradScaler moves it."""
    # BEGIN SOLUTION
    made, good = [], 0
    for bad in verdicts:
        good = 0 if bad else good + 1
        if bad:
            scale /= 2
        elif good == growth_interval:
            scale, good = scale * 2, 0
        made.append(scale)
    return made
    # END SOLUTION


# %% [markdown]
# ### Exercise 2b (5 minutes)
#
# Flax (its `DynamicScale`) counts otherwise: a step doubles the scale if `growth_interval` good steps have come
# *before* it since the last change. How many steps does it take until the scale has doubled, of good steps alone,
# with `growth_interval=100`, in PyTorch and in Flax? And after how many further steps has it doubled again? Set
# `torch_steps` and `flax_steps`, pairs such as `(50, 50)`. `scaler.replay` knows.

# %%
# BEGIN SOLUTION
torch_steps = (100, 100)
flax_steps = (101, 101)
# END SOLUTION

# %% [markdown]
# ### Exercise 2c (5 minutes)
#
# Find a history that tells libraries apart. Set `telling`: a list of at most 8 verdicts after which the four scales
# of `torch`, `jmp`, `flax` and `chainer`, with `init_scale=2.0` and `growth_interval=2`, are four numbers of which
# each is more than a tenth larger than the next smaller one.

# %%
# BEGIN SOLUTION
telling = [True] * 2 + [False] * 5
# END SOLUTION

# %%
ends = {
    name: row[-1]
    for name, row in scaler.replay(
        telling, ["torch", "jmp", "flax", "chainer"], init_scale=2.0, growth_interval=2
    ).items()
}
print("after your history:", ends)

# %% [markdown]
# ## Part 3: defects (15 minutes)
#
# Some rules nobody meant. Those that are known have names; `faithful=True` brings them, so that you can look. In
# PyTorch a region keeps a weight's cast under the weight alone, not under the format too:

# %%
print(policy.defects["cache-ignores-format"])


def nested(faithful):
    """Multiply two weights in a bfloat16 region, then in a float16 region inside it."""
    a = mp.tensor([[257.0]], requires_grad=True)
    b = mp.tensor([[1.0]], requires_grad=True)
    with mp.autocast("bfloat16", policy="torch-cpu", faithful=faithful):
        outer = a @ b
        with mp.autocast("float16", policy="torch-cpu", faithful=faithful):
            inner = a @ b
    return outer.dtype.name, inner.dtype.name, inner.item()


for faithful in (False, True):
    print(
        f"faithful={faithful}: outer {nested(faithful)[0]}, inner {nested(faithful)[1]}, 257 is {nested(faithful)[2]}"
    )
assert nested(faithful=False) == ("bfloat16", "float16", 257.0)
assert nested(faithful=True) == ("bfloat16", "bfloat16", 256.0)

# %%
if live:
    a, b = torch.tensor([[257.0]], requires_grad=True), torch.tensor([[1.0]], requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        _ = a @ b
        with torch.autocast("cpu", torch.float16):
            theirs = a @ b
    print(f"live, PyTorch {torch.__version__}: the inner product is {theirs.dtype}")

# %% [markdown]
# ### Exercise 3a (10 minutes)
#
# In a region, operations such as `cat` compute in float32 if any input is. PyTorch looks at the inputs in their
# order. Write `outcome(first, second, faithful)`: the name of the result's format when two tensors of these formats
# (names) go through `mp.functional.cat` in a bfloat16 region of `torch-cpu`, or `"refused"` if that raises
# `mp.errors.FormatError`.


# %%
def outcome(first, second, faithful):
    """Return the format of cat's result, or "refused"."""
    # BEGIN SOLUTION
    parts = [mp.tensor([1.0], dtype=name) for name in (first, second)]
    with mp.autocast("bfloat16", policy="torch-cpu", faithful=faithful):  # as above
        try:
            return mp.functional.cat(parts).dtype.name
        except mp.errors.FormatError:
            return "refused"
    # END SOLUTION


# %%
for faithful in (False, True):
    print(
        f"faithful={faithful}: float32 then float16: {outcome('float32', 'float16', faithful)}; "
        f"float16 then float32: {outcome('float16', 'float32', faithful)}"
    )

# %% [markdown]
# ## Part 4: an open question (15 minutes)
#
# If PyTorch is installed, run `minimp check torch --only formats,scaler --reasons` in a terminal; if not, read
# `print(policy.defects)`. Choose one documented difference or defect. Write a report as you would send it to the
# framework's maintainers: a program of at most ten lines, what it does, what you expected and why, and whom it hurts.
# Then argue the other side: why might they leave it as it is?
#
# BEGIN SOLUTION
# *What a good answer contains.* A program that anyone can run, with version and device; the observed output beside
# the expected one, with numbers; a sentence of the framework's own documentation, or a law (order of inputs should
# not matter; leaving a region should restore what was there), that the behaviour breaks; a realistic victim: for
# the cache, a weight used in two nested regions. The other side: nested regions of two formats are rare; a check
# per cast costs time; programs may rely on it. A very good answer proposes a change that keeps correct programs as
# they are, and a test.
# END SOLUTION

# %% [markdown]
# ## What to remember
#
# - Which format an operation has depends on library, device and release. Look it up; `explain` gives the rule.
# - Loss scalers agree on the idea and differ at the edges: floors, ceilings, and when the count begins anew.
# - A claim about a framework needs a program, a version, and what would be right.
