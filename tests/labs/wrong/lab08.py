"""Wrong answers to lab 08: exercise -> (code in the place of the solution, a part of what the check must say)."""

PAIRS = "pairs = list(zip(widths[:-1], widths[1:], strict=True))\n"
COUNT = PAIRS + "count = sum(a * b + b for a, b in pairs)\n"
KEPT = '{{"relu": {}, "tanh": (4, 2), "gelu": {}, "leaky_relu": (5, 3), "softmax": {}}}'

WRONG = {
    "1a": (
        (
            PAIRS + "count = sum(a * b for a, b in pairs)\nreturn 4 * count, 4 * count, 4 * moments * count",
            "has a bias, too",
        ),
        (
            PAIRS + "count = sum(a * b + a for a, b in pairs)\nreturn 4 * count, 4 * count, 4 * moments * count",
            "comes out of a layer",
        ),
        (COUNT + "return 4 * count, 4 * count, 4 * count", "for each parameter, each in float32"),
    ),
    "1b": (
        (COUNT + "return 4 * count, 2 * count, 2 * count, 4 * moments * count", "the cast's derivative casts back"),
        (COUNT + "return 2 * count, 2 * count, 4 * count, 4 * moments * count", "they are the masters"),
        (COUNT + "return 4 * count, 2 * count, 4 * count, 2 * moments * count", "computes in float32"),
    ),
    "1c": (
        ('zero_recipe = mp.recipes["fp32"]', "all of it is float32"),
        ('zero_recipe = mp.recipes["mixed-fp16"]', "18 bytes"),
        ('zero_recipe = mp.recipes["fp16-scaled"]', "there is no master"),
    ),
    "2a": (
        (
            "each = 2 if mixed else 4\n"
            "return rows * (each * (sum(widths[:-1]) + sum(widths[1:-1])) + 4 * widths[-1] + 8)",
            "count it once",
        ),
        (
            "each = 2 if mixed else 4\nreturn rows * (each * sum(widths) + 8)",
            "log_softmax runs in float32",
        ),
        (
            "each = 2 if mixed else 4\nreturn rows * (each * sum(widths[1:-1]) + 4 * widths[-1] + 8)",
            "keeps its input, too",
        ),
    ),
    "2b": (
        ("kept_per_number = " + KEPT.format("(8, 4)", "(8, 4)", "(4, 6)"), "one array serves both"),
        ("kept_per_number = " + KEPT.format("(4, 2)", "(4, 2)", "(4, 6)"), "another"),
        ("kept_per_number = " + KEPT.format("(4, 2)", "(8, 4)", "(4, 2)"), "which is kept as well"),
    ),
    "3a": (
        ("return 1", "mind the low copies"),
        (COUNT + "return -(-count // sum(widths[:-1]))", "fewer was asked for"),
        (COUNT + "return 3 * count // sum(widths[:-1]) + 1", "masters take no more"),
    ),
    "4a": (
        ("return mp.nn.Sequential(*layers)(x)", "nothing is recomputed"),
        ("return mp.recompute(mp.nn.Sequential(*layers), x)", "comes back at once"),
        (
            "size = len(layers) // segments\n"
            "for start in range(0, len(layers), size):\n"
            "    part = layers[start : start + size]\n"
            "    x = mp.recompute(lambda x: mp.nn.Sequential(*part)(x), x)\n"
            "return x",
            "sees the layers of the last one",
        ),
    ),
    "4b": (
        (
            "for parts in range(1, rows + 1):\n"
            "    if rows % parts == 0 and (state + per_row * rows) / parts <= budget:\n        return parts",
            "state is held whole",
        ),
        (
            "for parts in range(1, rows + 1):\n"
            "    if state + per_row * rows / parts <= budget:\n        return parts",
            "parts are equal",
        ),
        (
            "for parts in range(1, rows + 1):\n"
            "    if rows % parts == 0 and state + per_row * rows / parts <= budget:\n        return parts\n"
            "return rows",
            "even one row at a time",
        ),
    ),
}  # fmt: skip
