"""Wrong answers to lab 02, see :mod:`tests.labs.wrong.lab00`."""

KAHAN = """
total = c = 0.0
for term in terms:
    y = rounded(term {sign} c)
    t = rounded(total + y)
    {order}
return total
"""

WRONG = {
    "1a": (
        (
            "product_bits = lambda p, q: p + q - 1\nbf16_in_float32 = float32_in_float64 = True",
            "the longest product is that of the two largest",
        ),
        (
            "product_bits = lambda p, q: max(p, q)\nbf16_in_float32 = float32_in_float64 = True",
            "the longest product",
        ),
        (
            "product_bits = lambda p, q: p + q\nbf16_in_float32 = True\nfloat32_in_float64 = False",
            "48 bits fit into 53",
        ),
    ),
    "2a": (
        ("return rounded(sum(terms))", "not once at the end"),
        (
            "total = 0.0\nfor term in reversed(terms):\n    total = rounded(total + term)\nreturn total",
            "2048 + 1 is 2048",
        ),
        ("return float(np.sum(np.array(terms, np.float32)))", "2048 + 1 is 2048"),
    ),
    "2b": (
        (
            "n = len(terms)\nreturn math.inf if n * u >= 1 else n * u / (1 - n * u) * sum(map(abs, terms))",
            "K - 1 additions are rounded",
        ),
        (
            "n = len(terms) - 1\nreturn math.inf if n * u >= 1 else n * u / (1 - n * u) * abs(sum(terms))",
            "the sizes of the terms count",
        ),
        (
            "n = len(terms) - 1\nreturn n * u / abs(1 - n * u or 1) * sum(map(abs, terms))",
            "the bound says nothing",
        ),
        ("n = len(terms) - 1\nreturn n * u / (1 - n * u) * sum(map(abs, terms))", "a division by zero"),
    ),
    "3a": (
        (
            "total = 0.0\nfor term in terms:\n    total = rounded(total + term)\nreturn total",
            "that is the running sum",
        ),
        ("return math.fsum(terms)", "not rounded at every addition"),
        (
            "while len(terms) > 1:\n    even = terms[: len(terms) // 2 * 2]\n"
            "    terms = [rounded(a + b) for a, b in zip(even[::2], even[1::2])] + terms[len(even) :]\n"
            "return terms[0]",
            "halves",
        ),
    ),
    "3b": (
        (KAHAN.format(sign="-", order="c, total = 0.0, t").strip(), "nothing is carried over"),
        (
            KAHAN.format(sign="+", order="c, total = rounded(rounded(t - total) - y), t").strip(),
            "the sign of c",
        ),
        (
            KAHAN.format(sign="-", order="total = t; c = rounded(rounded(t - total) - y)").strip(),
            "before total changes",
        ),
        ("return rounded(math.fsum(terms))", "that is the exact sum"),
    ),
    "4a": (
        ("true_statements = {'a', 'b', 'c'}", "no bug is needed"),
        ("true_statements = {'b', 'c', 'd'}", "on both sides of a tie"),
        ("true_statements = {'c'}", "two reasons"),
    ),
}
