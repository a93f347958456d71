"""Wrong answers to lab 05: exercise -> (code in the place of the solution, a part of what the check must say)."""

STEP = "for p in parameters:\n    if p.grad is not None:\n"

WRONG = {
    "1a": (
        (
            "values = np.abs(values[values != 0])\ne, n = np.unique(np.log2(values).astype(int), return_counts=True)\n"
            "return dict(zip(e, n))",
            "round down",
        ),
        (
            "e, n = np.unique(np.floor(np.log2(np.abs(values))), return_counts=True)\nreturn dict(zip(e, n))",
            "zeros are left out",
        ),
        (
            "e, n = np.unique(np.frexp(values[values != 0])[1], return_counts=True)\nreturn dict(zip(e, n))",
            "3 lies from 2^1 on",
        ),
    ),
    "1b": (
        (
            "return (sum(n for e, n in counts.items() if e + power < -14),\n"
            "        sum(n for e, n in counts.items() if e + power >= 16))",
            "subnormal numbers are not zero",
        ),
        (
            "return (sum(n for e, n in counts.items() if e - power < -25),\n"
            "        sum(n for e, n in counts.items() if e - power >= 16))",
            "adds to the exponent",
        ),
        (
            "return (sum(n for e, n in counts.items() if e + power < -25),\n"
            "        sum(n for e, n in counts.items() if e + power > 16))",
            "2^16 is the first power",
        ),
    ),
    "2a": (
        ("return -25 - min(counts), 15 - max(counts)", "None"),
        (
            "low, high = -25 - min(counts), 14 - max(counts)\nreturn (low, high) if low <= high else None",
            "may come to 15",
        ),
        (
            "low, high = -14 - min(counts), 15 - max(counts)\nreturn (low, high) if low <= high else None",
            "it must come to -25",
        ),
        (
            "low, high = -25 - min(counts), 15 - max(counts)\nreturn (max(low, 0), high) if low <= high else None",
            "powers may be negative",
        ),
    ),
    "2b": (
        (
            "whole, power = sum(counts.values()), -200\n"
            "while sum(n for e, n in counts.items() if e + power < -25) > share * whole:\n    power += 1\n"
            "return 2.0**power",
            "the power was asked for",
        ),
        (
            "whole, power = sum(counts.values()), -200\n"
            "while sum(n for e, n in counts.items() if e + power < -25) >= share * whole and power < 200:\n"
            "    power += 1\nreturn power",
            "exactly that share is allowed",
        ),
        (
            "power = -200\n"
            "while sum(e + power < -25 for e in counts) > share * len(counts):\n    power += 1\nreturn power",
            "numbers that count",
        ),
        (
            "power = 0\n"
            "while sum(n for e, n in counts.items() if e + power < -25) > share * sum(counts.values()):\n"
            "    power += 1\nreturn power",
            "powers may be negative",
        ),
    ),
    "3a": (
        (
            "if found_inf:\n    return scale / 2, good_steps\n"
            "return (scale * 2, 0) if good_steps + 1 >= growth_interval else (scale, good_steps + 1)",
            "ends the row of good ones",
        ),
        (
            "if found_inf:\n    return scale / 2, 0\n"
            "return (scale * 2, good_steps + 1) if good_steps + 1 >= growth_interval else (scale, good_steps + 1)",
            "the count begins anew",
        ),
        (
            "if found_inf:\n    return scale / 2, 0\n"
            "return (scale * 2, 0) if good_steps == growth_interval else (scale, good_steps + 1)",
            "it doubles on the good step",
        ),
    ),
    "3b": (
        (
            "found_inf = any(not np.isfinite(p.grad.numpy()).all() for p in parameters if p.grad is not None)\n"
            "if not found_inf:\n    optimizer.step()\nreturn found_inf",
            "divided by the scale",
        ),
        (
            "found_inf = False\n" + STEP + "        g = p.grad.numpy() / scale\n"
            "        if np.isfinite(g).all():\n            p.grad = mp.tensor(g)\n"
            "        else:\n            found_inf, p.grad = True, None\n"
            "optimizer.step()\nreturn found_inf",
            "no parameter moves",
        ),
        (
            "found_inf = False\n" + STEP + "        g = p.grad.numpy() / scale\n"
            "        found_inf = found_inf or bool(np.isinf(g).any())\n        p.grad = mp.tensor(g)\n"
            "if not found_inf:\n    optimizer.step()\nreturn found_inf",
            "NaN is not finite",
        ),
    ),
    "4a": (
        ("return 1 / n", "one of the steps, too"),
        ("return 1 / (2 * n)", "one tooth"),
        ("return 2 / (n + 2)", "one tooth"),
    ),
}  # fmt: skip
