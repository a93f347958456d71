"""Wrong answers to lab 12: exercise -> (code in the place of the solution, a part of what the check must say)."""

_WIDENED = "low, high = min(low, 0.0), max(high, 0.0)\nif low == high:\n    return 1.0, 0\n"

WRONG = {
    "1a": (
        (
            "scale = (high - low) / (quant_max - quant_min) or 1.0\nreturn scale, round(quant_min - low / scale)",
            "widen it first",
        ),
        (
            f"{_WIDENED}scale = (high - low) / (quant_max - quant_min + 1)\n"
            "return scale, round(quant_min - low / scale)",
            "255 steps between",
        ),
        (
            f"{_WIDENED}scale = (high - low) / (quant_max - quant_min)\nreturn scale, round(-low / scale)",
            "codes begin at quant_min",
        ),
    ),
    "1b": (
        (
            "return np.clip((x / scale).astype(np.int32) + zero_point, quant_min, quant_max)",
            "a cast to integer cuts off",
        ),
        (
            "return (np.clip(np.rint(x / scale), quant_min, quant_max) + zero_point).astype(np.int32)",
            "clamp after the zero point was added",
        ),
        (
            "dtype = np.int8 if quant_min < 0 else np.uint8\n"
            "return (np.rint(x / scale) + zero_point).astype(np.int64).astype(dtype)",
            "codes wrapped around",
        ),
    ),
    "1c": (
        ("return np.full(np.shape(x), scale / 2)", "the error grows with the number"),
        (
            "return np.maximum(scale / 2, np.maximum(scale * quant_min - x, x - scale * quant_max))",
            "the zero point moves both ends",
        ),
        (
            "ends = scale * (quant_min - zero_point), scale * (quant_max - zero_point)\n"
            "return np.maximum(scale, np.maximum(ends[0] - x, x - ends[1]))",
            "half a step away at most",
        ),
    ),
    "2a": (
        ("return raw - zero_w * row_sums[:, None] - zero_x * column_sums", "taken off twice"),
        (
            "return raw - zero_x * row_sums[:, None] - zero_w * column_sums + depth * zero_x * zero_w",
            "multiplied by the weights' zero point",
        ),
        (
            "return raw - zero_w * row_sums - zero_x * column_sums + depth * zero_x * zero_w",
            "row sums belong to rows",
        ),
    ),
    "3a": (
        (
            "wide = np.asarray(sums, np.int64) * m0\n"
            "return np.clip((wide >> (31 + n)) + zero_point, quant_min, quant_max)",
            "a shift rounds down",
        ),
        (
            "wide = np.asarray(sums, np.int64) * m0 / 2.0 ** (31 + n)\n"
            "return np.clip(np.floor(wide + 0.5) + zero_point, quant_min, quant_max).astype(np.int32)",
            "float64 has 53 bits",
        ),
        (
            "wide = (sums * np.int32(m0)).astype(np.int64)\n"
            "return np.clip(((wide + (1 << (30 + n))) >> (31 + n)) + zero_point, quant_min, quant_max)",
            "multiply in int64",
        ),
        (
            "return np.clip(((sums * m0 + (1 << (30 + n))) >> (31 + n)) + zero_point, quant_min, quant_max)",
            "multiply in int64",
        ),
    ),
    "4a": (
        (
            "return min(clips, key=lambda clip: np.max(np.abs(x - reading(x, clip, bits))))",
            "the least of the largest errors",
        ),
        (
            "def error(clip):\n    inside = x[np.abs(x) <= clip]\n"
            "    return np.mean((inside - reading(inside, clip, bits)) ** 2)\n\nreturn min(clips, key=error)",
            "clipped numbers have errors, too",
        ),
        (
            "return min(clips, key=lambda clip: np.mean(np.abs(x - reading(x, clip, bits))))",
            "squares are asked for",
        ),
        (
            "return min(clips, key=lambda clip: np.mean((x - reading(x, clip)) ** 2))",
            "hand it on to reading",
        ),
    ),
    "5a": (
        (
            "largest = w.reshape(len(w), -1).max(axis=1)\nreturn np.where(largest > 0, largest / 127, 1.0)",
            "the largest may be negative",
        ),
        ("return np.full(len(w), np.abs(w).max() / 127)", "a scale of its own"),
        ("return np.abs(w).max(axis=tuple(range(1, w.ndim))) / 127", "divided by a scale of 0"),
    ),
    "6a": (
        ("return min(found, key=lambda row: row.both.sqnr_db).path", "worst alone, in decibels"),
        ("return max(list(found)[1:], key=lambda row: row.upto.metric).path", "the column is 'without'"),
        ("return min(list(found)[1:], key=lambda row: row.without.metric).path", "without this one the rest is worst"),
        ("return max(list(found)[1:], key=lambda row: row.without.sqnr_db).path", "ask for the accuracy"),
    ),
}  # fmt: skip
