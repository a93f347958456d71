"""Wrong answers to lab 01, see :mod:`tests.labs.wrong.lab00`."""

WRONG = {
    "1a": (
        ("return 2.0**-bits", "that is a whole ulp"),
        ("return 2.0 ** -(bits + 2)", "the hidden bit counts once"),
        ("return 2.0 ** (bits + 1)", "2 to a negative power"),
    ),
    "1b": (
        ("return float((result - truth) / mp.formats.ulp(np.float64(truth), fmt))", "no sign"),
        ("return float(abs(result - truth) / mp.formats.ulp(np.float64(result), fmt))", "at the truth"),
        (
            "return float(abs(result - truth) / mp.formats.ulp(np.float64(truth), mp.float16))",
            "that was given",
        ),
    ),
    "2a": (
        (
            "return {(2, 2, -2, -2): 'nearest_even', (2, 3, -2, -3): 'nearest_away', (1, 2, -1, -2): 'toward_zero', "
            "(2, 3, -1, -2): 'down', (1, 2, -2, -3): 'up'}.get(tuple(results), 'none')",
            "follow the number line",
        ),
        (
            "return {(2, 3, -2, -3): 'nearest_even', (2, 2, -2, -2): 'nearest_away', (1, 2, -1, -2): 'toward_zero', "
            "(2, 3, -1, -2): 'up', (1, 2, -2, -3): 'down'}.get(tuple(results), 'none')",
            "2.5 becomes 2",
        ),
        (
            "return {(2, 2, -2, -2): 'nearest_even', (2, 3, -2, -3): 'nearest_away', (1, 2, -1, -2): 'toward_zero', "
            "(2, 3, -1, -2): 'up', (1, 2, -2, -3): 'down'}.get(tuple(results), 'toward_zero')",
            "no mode makes these",
        ),
    ),
    "3a": (
        ("return 2.0**bits", "there the ulp is 1"),
        ("return 2.0 ** (bits + 2)", "where the ulp becomes 2"),
        ("return 3.0 * 2**bits", "where the ulp becomes 2"),
    ),
    "3b": (
        (
            "return abs(update) < float(mp.formats.ulp(np.float64(weight), mp.float16)) / 2",
            "a tie goes to the even",
        ),
        ("return abs(update) <= float(mp.formats.ulp(np.float64(weight), mp.float16)) / 2", "twice as close"),
        ("return abs(update) < abs(weight) / 2048", "even neighbour"),
    ),
    "4a": (
        ("low = math.trunc(x)\nreturn float(low + (draw < x - low))", "math.floor"),
        ("low = math.floor(x)\nreturn float(low + (draw > x - low))", "not when above"),
        ("low = math.floor(x)\nreturn float(low + (draw <= x - low))", "a whole number stays"),
    ),
    "4b": (
        ("expected, variance = 2.0, 0.21", "on average it is right"),
        ("expected, variance = 2.3, 0.0", "p (1 - p)"),
        ("expected, variance = 2.3, 0.3", "p (1 - p)"),
    ),
}
