"""Wrong answers to lab 03, see :mod:`tests.labs.wrong.lab00`."""

CLASS = """\
class Silu(mp.Function):
    @staticmethod
    def forward(ctx, x):
        s = mp.functional.sigmoid(x)
        ctx.save_for_backward(x)
        ctx.s = s.detach()
        return x * s

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        s = {s}
        return {result}
"""
LOSS = """\
rows, n = np.arange(len(z)), len(z)
{shift}
logs = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
def pullback(u):
    grad = np.exp(logs)
    {hot}
    return u * grad{over}
return -logs[rows, targets].mean(), pullback
"""
SHIFT, HOT = "z = z - z.max(axis=1, keepdims=True)", "grad[rows, targets] -= 1"
SIDES = """\
left = np.sum(u * (op(x + h * v)[0] - op(x - h * v)[0])) / (2 * h)
right = np.sum(op(x)[1](u) * v)
"""
AGAIN = "mp.functional.sigmoid(x)"
WRONG = {
    "1a": (
        ("return (f(x + h * v) - f(x)) / h", "one-sided"),
        ("return (f(x + h * v) - f(x - h * v)) / h", "2 * h apart"),
        ("return (f(x + h) - f(x - h)) / (2 * h)", "move along v"),
    ),
    "1b": (
        (SIDES + "return (left - right) / max(abs(left), abs(right))", "no sign"),
        (SIDES + "return abs(left - right)", "relative"),
        (SIDES + "return abs(left - right) / abs(left)", "not always by the first"),
    ),
    "2a": (
        ("s = 1 / (1 + np.exp(-x))\nreturn x * s, lambda u: s + x * s * (1 - s)", "multiply by u"),
        ("s = 1 / (1 + np.exp(-x))\nreturn x * s, lambda u: u * s", "the sigmoid moves with x too"),
        ("s = 1 / (1 + np.exp(-x))\nreturn x * s, lambda u: u * s * (1 - s)", "the sigmoid alone"),
    ),
    "2b": (
        ("return x @ w.T + b, lambda u: (u @ w, u.T @ x, u)", "once for every row"),
        ("return x @ w.T + b, lambda u: (u @ w, x.T @ u, u.sum(axis=0))", "u.T @ x"),
        ("return x @ w.T + b, lambda u: (u @ w, u.T @ x, u.mean(axis=0))", "no mean"),
    ),
    "3a": (
        (LOSS.format(shift="", hot=HOT, over=" / n"), "largest score first"),
        (LOSS.format(shift=SHIFT, hot=HOT, over=""), "divide by the number of rows"),
        (LOSS.format(shift=SHIFT, hot="pass", over=" / n"), "at the target's place"),
    ),
    "4a": (
        (CLASS.format(s=AGAIN, result="s + x * s * (1 - s)"), "multiply by grad"),
        (CLASS.format(s=AGAIN, result="grad * s"), "two terms"),
        (CLASS.format(s="ctx.s", result="grad * (s + x * s * (1 - s))"), "is a constant"),
    ),
    "4b": (
        (
            "return float(np.mean(mp.formats.round(gradients * scale, mp.float16) == 0))",
            "leave out the zeros",
        ),
        (
            "there = gradients[gradients != 0]\nreturn float(np.mean(np.abs(there * scale) < 2.0**-14))",
            "only what rounds to zero",
        ),
        (
            "there = gradients[gradients != 0]\nreturn float(np.mean(mp.formats.round(there, mp.float16) == 0))",
            "before rounding",
        ),
    ),
}
