"""Wrong answers to lab 06: exercise -> (code in the place of the solution, a part of what the check must say)."""

WRONG = {
    "1a": (
        ("return np.mean(low(weights + updates) == weights)", "an update of 0 is no update"),
        (
            "some = updates != 0\n"
            "return np.mean(np.abs(updates[some]) < 2.0**-8) if some.any() else 0.0",
            "a small weight has a small ulp",
        ),
        (
            "some = updates != 0\n"
            "return np.mean(low(weights + updates)[some] != weights[some]) if some.any() else 0.0",
            "0.002 are swallowed",
        )
    ),
    "2a": (
        ("new = low(master + update).astype(np.float32)\nreturn new, new", "must not be rounded"),
        ("new = (master + update).astype(np.float32)\nreturn new, new", "rounded to bfloat16"),
        ("return np.float32(low(master) + update), low(master + update)", "master + update"),
        ("new = np.float32(master + low(update))\nreturn new, low(new)", "only the weights are rounded"),
    ),
    "2b": (
        (
            "bytes_per_weight = {'nearest': 2, 'master': 4, 'kahan': 4, 'stochastic': 2}",
            "and the bfloat16 weights beside it",
        ),
        (
            "bytes_per_weight = {'nearest': 2, 'master': 6, 'kahan': 6, 'stochastic': 2}",
            "two bfloat16 numbers",
        ),
        (
            "bytes_per_weight = {'nearest': 2, 'master': 6, 'kahan': 4, 'stochastic': 4}",
            "nothing is kept",
        ),
    ),
    "3a": (
        (
            "wanted = update - compensation\nnew = low(weight + wanted)\n"
            "return new, low(wanted - (new - weight))",
            "the sign",
        ),
        (
            "new = low(weight + update)\nreturn new, low((new - weight) - update)",
            "less the compensation",
        ),
        (
            "wanted = update - compensation\nnew = low(weight + wanted)\nreturn new, (new - weight) - wanted",
            "both are rounded",
        ),
        (
            "wanted = update + compensation\nnew = low(weight + wanted)\nreturn new, low((new - weight) - wanted)",
            "taken off the next update",
        ),
    ),
    "4a": (
        ("return (x.view(np.uint32) + noise).view(np.float32)", "clear the lower 16 bits"),
        ("return (x.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)", "the noise must be added"),
        (
            "bits = x.view(np.uint32) + (noise >> 1)\nreturn (bits & np.uint32(0xFFFF0000)).view(np.float32)",
            "all 16 bits of noise",
        ),
    ),
    "4b": (
        ("return abs(update) / float(mp.formats.ulp(np.float64(weight), mp.bfloat16))", "1 over it"),
        ("return float(mp.formats.ulp(np.float64(weight), mp.bfloat16)) / abs(update)", "half as far"),
        ("return float(mp.formats.ulp(np.float64(weight), mp.bfloat16)) / 2 / abs(update)", "when rounding to nearest"),
        (
            "near = mp.formats.next_up if update > 0 else mp.formats.next_down\n"
            "return -(-abs(float(near(np.float64(weight), mp.bfloat16)) - weight) // abs(update))",
            "a mean need not be a whole number",
        ),
    ),
}  # fmt: skip
