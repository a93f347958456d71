"""Wrong answers to lab 04: exercise -> (code in the place of the solution, a part of what the check must say)."""

WRONG = {
    "1a": (
        ("largest_exp, largest_square = float(np.log(65504)), 255.875", "no float16 number"),
        ("largest_exp, largest_square = 11.0, 255.875", "there are larger ones"),
        ("largest_exp, largest_square = 11.0859375, 256.0", "infinite already"),
    ),
    "1b": (
        ("return scores.exp().sum(dim=1).log()", "an exponential overflowed"),
        ("top = scores.amax()\nreturn (scores - top).exp().sum(dim=1).log() + top", "the largest of each row"),
        (
            "return (scores - scores.amax(dim=1, keepdim=True)).exp().sum(dim=1).log()",
            "must be added again",
        ),
    ),
    "1c": (
        ("return (values * values).sum().sqrt()", "squares of 256 and more overflow"),
        ("parts = values / 1024\nreturn (parts * parts).sum().sqrt() * 1024", "small squares are flushed"),
        (
            "top = values.abs().amax()\nparts = values / top\nreturn (parts * parts).sum().sqrt() * top",
            "0 / 0 is NaN",
        ),
    ),
    "2a": (
        (
            "sizes = np.abs(values[values != 0])\nreturn np.mean(sizes < 2.0**-14) if sizes.size else 0.0",
            "a subnormal number is not zero",
        ),
        (
            "sizes = np.abs(values[values != 0])\nreturn np.mean(sizes < 2.0**-24) if sizes.size else 0.0",
            "the nearest number is 2^-24",
        ),
        ("return np.mean((np.abs(values) <= 2.0**-25) & (values != 0))", "not zero already"),
    ),
    "2b": (
        ("return 2.0**-25 * elements * parts", "the derivative of d squared is 2 d"),
        ("return 2.0**-25 / (elements * parts) / 2", "solved for d"),
        ("return 2.0**-25 * elements * parts * 2", "multiplied where it must be divided"),
    ),
    "3a": (
        ("return 2048 * lr", "a power of two was asked for"),
        ("power = 2.0**-40\nwhile power < 2048 * lr:\n    power *= 2\nreturn power", "every other weight moves"),
        ("power = 2.0**-40\nwhile power <= 1024 * lr:\n    power *= 2\nreturn power", "half an ulp counts"),
    ),
    "4a": (
        (
            "def share(rows, what):\n    whole = sum(row['non-zero'] for row in rows)\n"
            "    return sum(row[what] for row in rows) / whole if whole else 0.0\n"
            "if trace.first_nonfinite() is not None:\n    return 'too large'\n"
            "if share(list(trace.underflow('op')), 'flushed') > 0.5:\n    return 'too small'\n"
            "return 'too close' if share(list(trace.swallowed()), 'swallowed') > 0.5 else 'fine'",
            "count backward alone",
        ),
        (
            "if trace.overflow():\n    return 'too large'\nreturn 'fine'",
            "a NaN counts too",
        ),
        (
            "if trace.first_nonfinite() is not None:\n    return 'too large'\n"
            "if any(row['share'] > 0.5 for row in trace.underflow('op')):\n    return 'too small'\n"
            "return 'too close' if any(row['swallowed'] for row in trace.swallowed()) else 'fine'",
            "more than half",
        ),
    ),
}  # fmt: skip
