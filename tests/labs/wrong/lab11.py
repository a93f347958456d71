"""Wrong answers to lab 11: exercise -> (code in the place of the solution, a part of what the check must say)."""

_FP8 = "my_scales = mp.fp8.FixedScaling("
_BLOCKS = (
    "blocks = np.asarray(x, np.float64).reshape(len(x), -1, 32)\n"
    "amax = np.abs(blocks).max(axis=2, keepdims=True)\n"
)
_BACK = "return (mp.formats.round(blocks / s, fmt, overflow='saturate') * s).reshape(x.shape)"

WRONG = {
    "1a": (
        (
            "x = x[x != 0]\nr = mp.formats.round(x, fmt)\nn = max(x.size, 1)\n"
            "return float(np.sum(r == 0) / n), float(np.sum(np.isinf(r)) / n)",
            "E4M3 has no infinity",
        ),
        (
            "x = x[x != 0]\nn = max(x.size, 1)\nr = mp.formats.round(x, fmt)\n"
            "return float(np.sum(r == 0) / n), float(np.sum(np.abs(x) > fmt.max) / n)",
            "half a step above 448",
        ),
        (
            "r = mp.formats.round(x, fmt)\nreturn float(np.mean(r == 0)), float(np.mean(~np.isfinite(r)))",
            "a zero that was zero before",
        ),
    ),
    "2a": (
        ("return mp.formats.round(x * scale, fmt, overflow='saturate')", "still scaled"),
        ("return mp.formats.round(x / scale, fmt, overflow='saturate') * scale", "the wrong way round"),
        ("return mp.formats.round(x * scale, fmt) / scale", "overflow='saturate'"),
    ),
    "2b": (
        (
            "n = np.sum((x - q) ** 2)\nreturn 20 * np.log10(np.sum(x**2) / n) if n else math.inf",
            "20 belongs to amplitudes",
        ),
        (
            "n = np.sum(np.abs(x - q))\nreturn 10 * np.log10(np.sum(np.abs(x)) / n) if n else math.inf",
            "not of magnitudes",
        ),
        (
            "return 10 * np.log10(np.sum((x - q) ** 2) / np.sum(x**2))",
            "not noise over signal",
        ),
    ),
    "2c": (
        (
            "amax = np.abs(x).max()\nreturn 2.0 ** (np.round(np.log2(fmt.max / amax)) - margin) if amax else 1.0",
            "not the nearest",
        ),
        (
            "amax = np.abs(x).max()\nreturn 2.0 ** (np.floor(np.log2(fmt.max / amax)) + margin) if amax else 1.0",
            "it makes the scale smaller",
        ),
        (
            "amax = np.abs(x).max()\nreturn fmt.max / amax / 2.0**margin if amax else 1.0",
            "no power of two",
        ),
    ),
    "3a": (
        ("return fmt.max", "may go down to the smallest normal"),
        ("return fmt.max / fmt.smallest_subnormal", "with one digit left"),
        ("return fmt.smallest_normal / fmt.max", "the inverse"),
    ),
    "3b": (
        (
            f"{_BLOCKS}s = np.where(amax > 0, amax, fmt.max) / fmt.max\n{_BACK}",
            "the scale is a power of two",
        ),
        (
            f"{_BLOCKS}amax = np.where(amax > 0, amax, 1.0)\n"
            f"s = 2.0 ** (np.ceil(np.log2(amax)) - fmt.emax)\n{_BACK}",
            "round the exponent down",
        ),
        (
            "amax = np.abs(x).max(axis=1, keepdims=True)\ns = np.ldexp(1.0, np.frexp(amax)[1] - 1 - fmt.emax)\n"
            "return mp.formats.round(x / s, fmt, overflow='saturate') * s",
            "a scale of their own",
        ),
    ),
    "4a": (
        (
            "return [1.0] + [fmt.max / 2.0**margin / max(amaxes[max(0, t - length + 1) : t + 1])\n"
            "                for t in range(1, len(amaxes))]",
            "does not know its own amax",
        ),
        (
            "return [1.0] + [fmt.max / 2.0**margin / max(amaxes[:t]) for t in range(1, len(amaxes))]",
            "are forgotten",
        ),
        (
            "return [1.0] + [fmt.max / 2.0**margin / amaxes[t - 1] for t in range(1, len(amaxes))]",
            "not the most recent",
        ),
    ),
    "5a": (
        (f"{_FP8}input=2.0**-4, weight=2.0**-6, grad=2.0**-24)", "a scale below 1 makes it smaller"),
        (f"{_FP8}input=2.0**4, grad=2.0**16)", "weight needs a larger scale"),
        (f"{_FP8}input=2.0**20, weight=2.0**20, grad=2.0**20)", "it is too large"),
    ),
}  # fmt: skip
