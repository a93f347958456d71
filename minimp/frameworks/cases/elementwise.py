"""Calls of elementwise functions, statistics, scans and selections."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minimp.frameworks.cases.base import IMAGE, ONE, THREE, TWO, Case, method, named

__all__ = ["CASES"]

NAMES = (
    "acos", "asin", "atan", "ceil", "cos", "cosh", "elu", "erf", "expm1", "floor", "hardsigmoid", "hardswish",
    "hardtanh", "isinf", "isnan", "leaky_relu", "log10", "log1p", "log2", "logical_not", "mish", "round",
    "rsqrt", "sign", "silu", "sin", "sinh", "softplus", "std", "tan", "tril", "triu", "trunc", "var",
)  # fmt: skip
PAIRS = ("atan2", "logical_and", "logical_or", "logical_xor", "maximum", "minimum", "remainder")


def _bits(call: Callable[..., Any]) -> Callable[..., Any]:
    """Return a call on where the tensors are above 0."""
    return lambda _, *inputs: call(*(a > 0 for a in inputs))


CASES = (
    *(Case(name, named(name), ONE) for name in NAMES),
    *(Case(name, named(name), TWO) for name in PAIRS),
    *(Case(name, method(name), ONE) for name in ("all", "any", "count_nonzero", "argsort", "argmin", "prod")),
    Case("amin", method("amin", 1), ONE),
    Case("addcdiv", named("addcdiv"), THREE),
    Case("addcmul", named("addcmul"), THREE),
    Case("lerp", named("lerp"), THREE),
    Case("bitwise_not", lambda lib, a: lib.bitwise_not(a > 0), ONE),
    Case("bitwise_and", _bits(lambda a, b: a & b), TWO),
    Case("bitwise_or", _bits(lambda a, b: a | b), TWO),
    Case("bitwise_xor", _bits(lambda a, b: a ^ b), TWO),
    Case("clamp", method("clamp", 0, 1), ONE, "numbers"),
    Case("clamp", method("clamp"), TWO),
    Case("elu", named("selu"), ONE, "selu"),
    Case("elu", named("celu"), ONE, "celu"),
    Case("hardtanh", named("relu6"), ONE, "relu6"),
    Case("glu", named("glu"), ((2, 4),)),
    Case("log_sigmoid", named("logsigmoid"), ONE),
    Case("prelu", named("prelu"), ((2, 3), (3,))),
    Case("softmax", named("softmin", dim=1), ONE, "softmin"),
    Case("div", named("softsign"), ONE, "softsign"),
    Case("pow", named("square"), ONE, "square_by_name"),
    Case("masked_fill", lambda _, a: a.masked_fill(a > 0, 2.0), ONE),
    Case("where", lambda lib, a, b: lib.where(a > 0, a, b), TWO),
    Case("where", lambda lib, a: lib.where(a > 0, a, 2.0), ONE, "number"),
    Case("cumsum", method("cumsum", 0), ONE),
    Case("cumsum", lambda lib, a: a.cumsum(0, dtype=lib.float16), ONE, "dtype"),
    Case("cumprod", method("cumprod", 0), ONE),
    Case("prod", method("prod", 1), ONE, "dim"),
    Case("logsumexp", method("logsumexp", 1), ONE),
    Case("std", method("std", 1, unbiased=False), ONE, "dim"),
    Case("amax", method("max"), ONE, "max"),
    Case("getitem", lambda _, a: a.sort().values, ONE, "sort"),
    Case("getitem", lambda _, a: a.topk(2).values, ONE, "topk"),
    Case("getitem", lambda _, a: a.chunk(2)[0], ONE, "chunk"),
    Case("getitem", method("flip", 0), ONE, "flip"),
    Case("getitem", method("diagonal"), ONE, "diagonal"),
    Case("cat", method("roll", 1, 0), ONE, "roll"),
    Case("expand", method("repeat", 2, 1), ONE, "repeat"),
    Case("stack", lambda lib, a, b: lib.stack([a, b]), TWO),
    Case("linalg_vector_norm", named("normalize"), IMAGE, "normalize"),
    Case("linalg_vector_norm", named("cosine_similarity"), TWO, "cosine_similarity"),
    Case("linalg_vector_norm", named("pairwise_distance"), TWO, "pairwise_distance"),
)
