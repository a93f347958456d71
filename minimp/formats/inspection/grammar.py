"""The small language of ``minimp.formats.evaluate``: text to tree, by recursive descent.

::

    sum     = product { ("+" | "-") product }
    product = signed { ("*" | "/") signed }
    signed  = { "+" | "-" } atom
    atom    = number | name "(" sum { "," sum } ")" | "(" sum ")"
    name    = "sqrt" | "fma" | "abs" | a number format

A number is decimal (0.1, 1e-7), hexadecimal with a point or an exponent (0x1.8p-3), inf or nan. Every fault
is shown at its place in the text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NoReturn

from minimp.errors import DataError, FormatError
from minimp.formats.table import Format, get

__all__ = ["FUNCTIONS", "NUMBERS", "Node", "parse", "pointing", "read_hexadecimal"]

FUNCTIONS: Mapping[str, int] = {"sqrt": 1, "fma": 3, "abs": 1}
"""The functions and how many arguments each takes."""
INFIX = {"+": "add", "-": "sub", "*": "mul", "/": "div"}
LOOKALIKES = str.maketrans("−×·÷", "-**/")
"""What text copied from a page may hold in the place of - * /."""
MOST_CHARACTERS, MOST_NESTED = 500, 40
LONGEST_EXPONENT = 5000
"""Of a decimal or binary number; far outside of float64, and still quick as an exact fraction."""
NO_EXPRESSION = "write numbers, formats and + - * / ( ), for example fp16(0.1) + fp16(0.2)"


@dataclass(frozen=True)
class Node:
    """A piece of the text.

    Attributes:
        operation: ``number``, ``cast``, ``neg``, ``add``, ``sub``, ``mul``, ``div``, or a function's name.
        start, end: its place, text[start:end].
        operands: the pieces it works on.
        value: of a number: the exact fraction, or a float for inf, nan and -0.
        format: of a cast: the format.
    """

    operation: str
    start: int
    end: int
    operands: tuple[Node, ...] = ()
    value: Fraction | float | None = None
    format: Format | None = None


@dataclass(frozen=True)
class Token:
    """A word of the text: its kind (``number``, ``name``, ``symbol`` or ``end``), its letters, its place."""

    kind: str
    letters: str
    start: int
    end: int


_HEXADECIMAL = re.compile(r"([+-]?)0x([0-9a-f]*)\.?([0-9a-f]*)(?:p([+-]?[0-9]{1,5}))?")
_TOKENS = re.compile(
    r"(?P<space>\s+)"
    r"|(?P<number>0[xX][0-9a-fA-F_]*\.?[0-9a-fA-F_]*(?:[pP][+-]?\d+)?"
    r"|(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:[eE][+-]?\d+)?)"
    r"|(?P<name>[^\W\d]\w*)"
    r"|(?P<symbol>[-+*/(),])",
    re.ASCII,
)
NUMBERS: Mapping[str, float] = {"inf": float("inf"), "infinity": float("inf"), "nan": float("nan")}


def pointing(text: str, start: int, end: int) -> str:
    """Return the text on a line of its own, its part from start to end marked below.

    >>> print(pointing("1 + x", 4, 5))
    <BLANKLINE>
        1 + x
            ^
    """
    shown = "".join(each if each.isprintable() else " " for each in text)
    first = max(0, min(start - 20, len(shown) - 80)) if len(shown) > 80 else 0
    before, after = "..." * (first > 0), "..." * (len(shown) > first + 80)
    width = max(1, min(end, first + 80) - start)
    margin = " " * (len(before) + start - first)
    return f"\n    {before}{shown[first : first + 80]}{after}\n    {margin}{'^' * width}"


def parse(text: Any, names: Mapping[str, Format] | None = None) -> Node:
    """Read an expression.

    Args:
        text: the expression.
        names: formats under names of one's own, beside those that ``minimp.formats.get`` knows.

    Raises:
        DataError: it is no expression, or longer than 500 characters, or nested deeper than 40.
        FormatError: an unknown name.
    """
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"expected an expression, got {text!r}", op="evaluate", help=NO_EXPRESSION)
    if len(text) > MOST_CHARACTERS:
        said = f"expected at most {MOST_CHARACTERS} characters, got {len(text)}"
        raise DataError(said, op="evaluate", help="calculate it in parts")
    return _Parser(text, names or {}).whole()


class _Parser:
    """Reads one text from left to right; `at` is the next token's index."""

    def __init__(self, text: str, names: Mapping[str, Format]) -> None:
        self.text, self.names = text, {name.lower(): each for name, each in names.items()}
        self.tokens, self.at, self.depth = self._split(text.translate(LOOKALIKES)), 0, 0

    def _split(self, text: str) -> list[Token]:
        tokens, place = [], 0
        while place < len(text):
            found = _TOKENS.match(text, place)
            if found is None:
                self._refuse(f"unexpected {text[place]!r}", place, place + 1)
            if found.lastgroup != "space":
                tokens.append(Token(str(found.lastgroup), found[0], place, found.end()))
            place = found.end()
        return [*tokens, Token("end", "", len(text.rstrip()), len(text.rstrip()) + 1)]

    def _refuse(self, what: str, start: int, end: int, advice: str = NO_EXPRESSION) -> NoReturn:
        raise DataError(what + pointing(self.text, start, end), op="evaluate", help=advice)

    @property
    def next(self) -> Token:
        return self.tokens[self.at]

    def take(self, *symbols: str) -> Token | None:
        """Take the next token if it is one of these symbols."""
        if self.next.kind == "symbol" and self.next.letters in symbols:
            self.at += 1
            return self.tokens[self.at - 1]
        return None

    def expect(self, symbol: str, where: str) -> Token:
        """Take this symbol, which must come."""
        token = self.take(symbol)
        if token is None:
            came = f"{self.next.letters!r}" if self.next.letters else "the end"
            self._refuse(f"expected {symbol!r} {where}, got {came}", self.next.start, self.next.end)
        return token

    def whole(self) -> Node:
        tree = self.sum()
        token = self.next
        if token.kind != "end":
            self._refuse(f"expected + - * or / before {token.letters!r}", token.start, token.end)
        return tree

    def sum(self) -> Node:
        self.depth += 1
        if self.depth > MOST_NESTED:
            self._refuse(f"nested deeper than {MOST_NESTED}", self.next.start, self.next.end, "use fewer ( )")
        tree = self.chain(self.product, "+", "-")
        self.depth -= 1
        return tree

    def product(self) -> Node:
        return self.chain(self.signed, "*", "/")

    def chain(self, part: Any, *symbols: str) -> Node:
        """Read parts with these symbols between them, grouped from the left."""
        tree: Node = part()
        while token := self.take(*symbols):
            right = part()
            tree = Node(INFIX[token.letters], tree.start, right.end, (tree, right))
        return tree

    def signed(self) -> Node:
        signs = []
        while token := self.take("+", "-"):
            signs.append(token)
        tree = self.atom()
        for token in reversed(signs):
            if token.letters == "+":
                tree = Node(tree.operation, token.start, tree.end, tree.operands, tree.value, tree.format)
            elif tree.operation == "number" and tree.value is not None:
                value = -tree.value if tree.value else -0.0 if str(tree.value)[0] != "-" else Fraction(0)
                tree = Node("number", token.start, tree.end, value=value)
            else:
                tree = Node("neg", token.start, tree.end, (tree,))
        return tree

    def atom(self) -> Node:
        token = self.next
        if self.take("("):
            inner = self.sum()
            last = self.expect(")", "to close the ( before")
            return Node(inner.operation, token.start, last.end, inner.operands, inner.value, inner.format)
        if token.kind == "number" or (token.kind == "name" and token.letters.lower() in NUMBERS):
            self.at += 1
            return Node("number", token.start, token.end, value=self.number(token))
        if token.kind != "name":
            came = f"{token.letters!r}" if token.letters else "the end"
            advice = "there are no powers: write x * x" if token.letters == "*" else NO_EXPRESSION
            self._refuse(f"expected a number or a format, got {came}", token.start, token.end, advice)
        return self.call()

    def call(self) -> Node:
        name = self.next
        self.at += 1
        word = name.letters.lower()
        fmt = None if word in FUNCTIONS else self.format(name)
        self.expect("(", f"after {name.letters}")
        operands = [self.sum()]
        while self.take(","):
            operands.append(self.sum())
        last = self.expect(")", f"to close {name.letters}(")
        takes = FUNCTIONS.get(word, 1)
        if len(operands) != takes:
            said = f"{name.letters} takes {takes} argument{'s' * (takes > 1)}, got {len(operands)}"
            self._refuse(said, name.start, last.end, "fma(a, b, c) is a * b + c, rounded once")
        return Node("cast" if fmt else word, name.start, last.end, tuple(operands), format=fmt)

    def format(self, name: Token) -> Format:
        if name.letters.lower() in self.names:
            return self.names[name.letters.lower()]
        try:
            return get(name.letters)
        except FormatError as fault:
            said = str(fault).partition("\n")[0]
            advice = f"the functions are {', '.join(FUNCTIONS)}"
            raise FormatError(
                said + pointing(self.text, name.start, name.end), op="evaluate", help=advice
            ) from None

    def number(self, token: Token) -> Fraction | float:
        plain = token.letters.lower().replace("_", "")
        if plain in NUMBERS:
            return NUMBERS[plain]
        exponent = re.search(r"(?:^[^x]*e|p)([+-]?\d+)$", plain)
        if exponent and abs(int(exponent[1])) > LONGEST_EXPONENT:
            self._refuse(f"an exponent beyond {LONGEST_EXPONENT}", token.start, token.end)
        if not plain.startswith("0x"):
            return Fraction(plain)
        found = read_hexadecimal(plain)
        if found is None:
            advice = f"{plain}p0 is the number {int(plain, 16)}" if len(plain) > 2 else NO_EXPRESSION
            self._refuse(f"{token.letters} may be a bit pattern or a number", token.start, token.end, advice)
        return found


def read_hexadecimal(plain: str) -> Fraction | float | None:
    """Return the exact value of a hexadecimal number with a point or an exponent, -0 as a float; else None.

    >>> read_hexadecimal("0x1.8p-3")
    Fraction(3, 16)

    plain: lower case, without underscores.
    """
    found = _HEXADECIMAL.fullmatch(plain)
    if not found or not (found[2] or found[3]) or (found[4] is None and "." not in plain):
        return None
    scale = Fraction(2) ** (int(found[4] or 0) - 4 * len(found[3]))
    magnitude = int(found[2] + found[3], 16) * scale
    if magnitude == 0:
        return -0.0 if found[1] == "-" else Fraction(0)
    return -magnitude if found[1] == "-" else magnitude
