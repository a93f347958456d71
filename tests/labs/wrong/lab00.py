"""Wrong answers to lab 00: exercise -> (code in the place of the solution, a part of what the check must say)."""

WRONG = {
    "1a": (
        ("return code >> 15, (code >> 10) & 0b1111, code & 0b1111111111", "the exponent has 5 bits"),
        ("return code >> 15, (code >> 10) & 0b11111, code & 0b11111111111", "the fraction has 10 bits"),
        ("return code >> 14, (code >> 10) & 0b11111, code & 0b1111111111", "the sign is the first bit alone"),
    ),
    "1b": (
        ("return code >> 15, (code >> 10) & 31, code & 1023", "that is float16's layout"),
        ("return code >> 15, (code >> 8) & 255, code & 127", "8 bits of exponent"),
        ("return code >> 15, (code >> 7) & 255, code & 255", "7 of fraction"),
    ),
    "2a": (
        (
            "sign, exponent, fraction = code >> 15, code >> 10 & 31, code & 1023\n"
            "return (-1) ** sign * (1 + fraction / 1024) * 2.0 ** (exponent - 15)",
            "no hidden 1",
        ),
        (
            "sign, exponent, fraction = code >> 15, code >> 10 & 31, code & 1023\n"
            "if exponent == 0:\n    return (-1) ** sign * fraction * 2.0**-24\n"
            "return (-1) ** sign * (1024 + fraction) * 2.0 ** (exponent - 25)",
            "all ones is infinity",
        ),
        (
            "import numpy\nvalue = float(numpy.uint16(code).view(numpy.float16))\n"
            "return 0.0 if value == 0 else value",
            "minus zero keeps its sign",
        ),
    ),
    "2b": (
        ("finite_codes, subnormal_codes, nan_codes = 65536 - 2, 2046, 2046", "infinities do not"),
        ("finite_codes, subnormal_codes, nan_codes = 63488, 2048, 2046", "zero is not counted"),
        ("finite_codes, subnormal_codes, nan_codes = 63488, 2046, 1023", "with both signs"),
    ),
    "3a": (
        ("_, e = math.frexp(x)\nreturn 2.0 ** (e - 11)", "stays the same"),
        ("return max(2.0 ** (math.frexp(x)[1] - 10), 2.0**-24) if x >= 2**-14 else 2.0**-24", "m of frexp is 0.5"),
        ("return 2.0**-24 if x < 2**-14 else 2.0**-10", "over 1024"),
    ),
    "3b": (
        ("whole_from, even_from = 512.0, 1024.0", "numbers with a half"),
        ("whole_from, even_from = 2048.0, 4096.0", "at 1024 the spacing is 1"),
        ("whole_from, even_from = 1024.0, 1025.0", "the spacing must be 2"),
    ),
    "4a": (
        (
            "step = 2.0 ** max(math.frexp(abs(x))[1] - 11, -24)\n"
            "near = math.floor(abs(x) / step + 0.5) * step\n"
            "return math.copysign(math.inf if near > 65504 else near, x)",
            "ties go to the even neighbour",
        ),
        (
            "step = 2.0 ** max(math.frexp(abs(x))[1] - 11, -24)\n"
            "return math.copysign(round(abs(x) / step) * step, x)",
            "from 65520 on it is infinite",
        ),
        (
            "step = 2.0 ** (math.frexp(abs(x))[1] - 11)\nnear = round(abs(x) / step) * step\n"
            "return math.copysign(math.inf if near > 65504 else near, x)",
            "2**-24",
        ),
    ),
}  # fmt: skip
