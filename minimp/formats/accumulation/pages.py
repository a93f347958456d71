"""What there is to say about each accumulation, as data; ``explanations`` sets the pages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

__all__ = ["PAGES", "Page"]


@dataclass(frozen=True)
class Page:
    """One page.

    Attributes:
        title: what it is called.
        what: what it is.
        recurrence: its equation, lines as they stand.
        order: the order of the terms.
        rounding: where is rounded.
        expected: how the error behaves: bias, growth, stagnation.
        users: who adds like that, and when.
        cost: what it costs where it runs.
        terms: a sum to work out, a few numbers that show the point; their start comes first.
        lesson: what to see in it.
        sources: where all this is from.
        example: the name that stands for the row, where the row's own has a letter for a number.
        factors: the factors' format in the examples.
    """

    title: str
    what: str
    recurrence: str
    order: str
    rounding: str
    expected: str
    users: str
    cost: str
    terms: tuple[float, ...]
    lesson: str
    sources: str
    example: str = ""
    factors: str = "float16"


_SQUARE_ROOT = (
    "Rounding errors of mixed signs mostly cancel: the error grows like sqrt(K) u, far below the bound, as"
    " long as terms and sum are of like size (Higham and Mary 2019)."
)
_SPREAD = (1.0, 2.0**-12, 2.0**-12, 2.0**-24, 2.0**-24)

_ROWS = {
    "exact": Page(
        "the exact sum, rounded once",
        "Nothing is lost on the way: the sum of all products is formed exactly, and rounded to the output.",
        "y = fl(c + a_1 b_1 + ... + a_K b_K)",
        "None: exact sums do not depend on it.",
        "Once, at the end.",
        "At most half an ulp of the output, whatever K and however much cancels.",
        "An oracle for the others. Accumulators wide enough to do it in hardware were proposed by Kulisch;"
        " software does it for reproducible results.",
        "Here: each factor in slices of 20 bits, whose products float64 adds exactly, some 20 to 50 times an"
        " sgemm.",
        _SPREAD,
        "Every term is still there at the end.",
        "Ozaki, Ogita, Oishi and Rump 2012 (Numer. Algorithms 59:95); Kulisch 2013, Computer Arithmetic and"
        " Validity",
    ),
    "float32": Page(
        "float32, any order",
        "Products and sums in float32, in whatever order the library finds fast. Its bits may differ from one"
        " machine, one shape or one thread count to the next; its bound does not.",
        "s = fl32(... fl32(a_i b_i) + fl32(a_j b_j) ...) over some tree",
        "Not stated; c is added last.",
        "Each product (not in a fused multiply-add) and each sum, to float32.",
        _SQUARE_ROOT,
        "Every BLAS on a CPU; cuBLAS with CUBLAS_COMPUTE_32F; frameworks' float16 and bfloat16 products on"
        " CPUs, which widen first.",
        "One fused multiply-add a term: the yardstick for all others.",
        (1.0, 2.0**-24, 2.0**-24, 2.0**-24),
        "What is far below half an ulp of the sum can be lost, or not: it depends on the order.",
        "Higham 2002, Accuracy and Stability of Numerical Algorithms, 2nd ed., 4.2; Higham and Mary 2019"
        " (SIAM J. Sci. Comput. 41:A2815)",
    ),
    "float32:sequential": Page(
        "a float32 running sum",
        "The loop that one would write first: one sum in float32, k = 1 ... K.",
        "s_0 = c;  s_k = fl32(s_(k-1) + fl32(a_k b_k))",
        "k ascending, from c.",
        "Each product and each sum, to float32; products of float16 factors are exact there.",
        _SQUARE_ROOT + " Positive terms much smaller than the sum lose more.",
        "Reference loops; NumPy's own float16 matrix product, which then rounds once.",
        "A chain of K dependent additions: nothing to run in parallel within one sum.",
        (1.0, 2.0**-24, 2.0**-24, 2.0**-24),
        "Half an ulp is a tie and goes to even: each of the three small terms is lost.",
        "Higham 2002, 4.2; Rump 2012 (BIT 52:201)",
    ),
    "float64": Page(
        "float64, any order",
        "Products and sums in float64. Products of two float32 numbers, or anything narrower, are exact.",
        "s = fl64(... fl64(a_i b_i) + fl64(a_j b_j) ...) over some tree",
        "Not stated; c is added last.",
        "Each sum, to float64; the output once more.",
        "Beside any narrower output the error is invisible, unless terms cancel to 2^-29 or less of S.",
        "The reference of most error measurements; float64 models.",
        "Twice sgemm on a CPU; 32 to 64 times on a gaming GPU.",
        _SPREAD,
        "float64 keeps 29 bits more than float32.",
        "Higham 2002, 4.2",
    ),
    "float16": Page(
        "everything in float16",
        "What fp16 arithmetic gives without a wider accumulator: each product and each sum a float16.",
        "s_0 = c;  s_k = fl16(s_(k-1) + fl16(a_k b_k))",
        "k ascending, from c.",
        "Each product and each sum, to float16 (u = 2^-11); sums from 65520 overflow.",
        "Stagnation: a term below half an ulp of the sum is lost, every time. Sums of ones stop at 2048. With"
        " positive data the error is a bias that grows like K u, not sqrt(K) u.",
        "Code that adds in the dtype of its data; fp16 units without wide accumulators. A lesson more than a"
        " recipe: this is why matrix units accumulate in float32.",
        "Two instructions a term; half the registers of float32.",
        (2048.0, 1.0, 1.0, 3.0),
        "2048 + 1 is a tie and goes to the even 2048; 2048 + 3 is a tie as well, between 2050 and 2052.",
        "IEEE 754-2019, 4.3.1; Micikevicius et al. 2018 (ICLR), 3.3; Higham 2002, 4.2",
    ),
    "float16:fma": Page(
        "float16 sums, fused multiply-add",
        "The product is not rounded: each step rounds the exact s + a b once, to float16.",
        "s_0 = c;  s_k = fl16(s_(k-1) + a_k b_k)",
        "k ascending, from c.",
        "Each sum, to float16, once; float32 addition first would round twice, and can end elsewhere.",
        "As `float16`, less the products' errors; the sums' stagnation stays.",
        "Half-precision fused multiply-adds on GPUs (HFMA) and on Arm CPUs (FMLA), and cuBLAS with"
        " CUBLAS_COMPUTE_16F as far as it uses them.",
        "One instruction a term, two terms at a time where registers hold pairs of halves.",
        (2048.0, 1.0, 1.0, 3.0),
        "Terms that are float16 numbers already see no difference to `float16`.",
        "IEEE 754-2019, 5.4.1; Boldo and Melquiond 2008 (IEEE Trans. Comput. 57:462), for how it is done"
        " here",
    ),
    "bfloat16": Page(
        "everything in bfloat16",
        "Each product and each sum a bfloat16: 8 significant bits, float32's range.",
        "s_0 = c;  s_k = flb(s_(k-1) + flb(a_k b_k)),  flb to bfloat16",
        "k ascending, from c.",
        "Each product and each sum, to bfloat16 (u = 2^-8).",
        "Stagnation from 256 terms of like size on: sums of ones stop at 256. No overflow to speak of.",
        "Arrays summed in their own dtype: ml_dtypes' bfloat16 sum of 4096 ones is 256. Matrix units never do"
        " this: they take bfloat16 and add in float32.",
        "Two instructions a term where a CPU has bfloat16 arithmetic; elsewhere float32 and a rounding.",
        (256.0, 1.0, 1.0, 3.0),
        "256 + 1 is a tie and goes to the even 256.",
        "Kalamkar et al. 2019, arXiv:1905.12322; ml_dtypes#63",
        factors="bfloat16",
    ),
    "chunked:B": Page(
        "chunks of B in float32, their sum in float16",
        "The sum is cut into chunks of B terms, so that neither a chunk nor the sum of chunks is long:"
        " stagnation sets in K/B times later than in one running sum.",
        "t_j = float32 running sum from +0 over chunk j's B products\ns_0 = c;  s_j = fl16(s_(j-1) + t_j)",
        "k ascending inside a chunk, chunks ascending; the last may be shorter.",
        "Inside a chunk to float32; once a chunk to float16.",
        "Like ceil(K/B) float16 roundings. B about sqrt(K) balances the two levels where both are narrow;"
        " with float32 inside, the larger B the better.",
        "Wang et al. train in FP8 with chunks of 64. DeepSeek-V3 turns it round for Hopper's FP8: short sums"
        " of 128 terms in the matrix unit, and their sum in float32.",
        "One rounding a chunk: next to nothing for B of 32 or more.",
        (2048.0, 1.0, 1.0, 1.0, 1.0),
        "Two ones make a chunk of 2, which 2048 takes; alone they would be lost.",
        "Wang, Choi, Brand, Chen and Gopalakrishnan 2018 (NeurIPS), 3.1; Blanchard, Higham and Mary 2020;"
        " DeepSeek-V3 2024, arXiv:2412.19437, 3.3",
        example="chunked:2",
    ),
    "pairwise": Page(
        "a balanced float32 tree over neighbours",
        "Neighbours are added, then neighbouring sums, until one is left: a term meets about log2 K"
        " roundings, not K.",
        "s(i, i) = fl32(a_i b_i);  s(i, j) = fl32(s(i, m) + s(m+1, j))\ny = fl32(s(1, K) + c)",
        "A tree over neighbours; complete subtrees are powers of two from the left. c is added last.",
        "Each product and each sum, to float32.",
        "Error within log2 K u, about sqrt(log2 K) u in practice: K hardly matters.",
        "NumPy's sum along a contiguous axis (from 128 terms on), Julia's sum; reductions in shared memory or"
        " by warp shuffles on GPUs.",
        "As many additions as a running sum, log2 K partial sums in waiting.",
        (0.0, 1.0, 2.0**-24, 2.0**-24, 2.0**-24),
        "A small term is lost beside the 1, but the other two are added to each other first.",
        "Higham 2002, 4.2 and (4.6); Higham 1993 (SIAM J. Sci. Comput. 14:783)",
    ),
    "kahan": Page(
        "Kahan's compensated sum",
        "What each addition loses is computed, exactly in nearly all cases, and taken off the next term.",
        "y_k = fl(fl(a_k b_k) - e_(k-1));  s_k = fl(s_(k-1) + y_k)\n"
        "e_k = fl(fl(s_k - s_(k-1)) - y_k);  s_0 = c, e_0 = 0;  all to float32",
        "k ascending, from c.",
        "Each of the four operations, to float32; an infinite sum is not compensated.",
        "Some ulps, whatever K: 2 u + O(K u^2). A compiler that reorders sums removes it (-ffast-math).",
        "Long sums in simulations; weight updates in bfloat16, where the correction is stored beside the"
        " weight (Zamirai et al. 2020).",
        "Four dependent additions a term.",
        (1.0, 2.0**-24, 2.0**-24, 2.0**-24),
        "The first small term is lost, kept as the correction, and comes in with the second.",
        "Kahan 1965 (CACM 8:40); Higham 2002, 4.3; Goldberg 1991 (ACM Comput. Surv. 23:5), theorem 8; Zamirai"
        " et al. 2020, arXiv:2010.06192",
    ),
    "splitk:S": Page(
        "split-K: S float32 running sums",
        "K is cut into S runs, which different parts of a GPU add at the same time; their sums are added at"
        " the end.",
        "t_r = float32 running sum over run r's ceil(K/S) products (t_1 from c, the others from +0)\n"
        "y = fl32(... fl32(t_1 + t_2) + ... + t_R)",
        "k ascending inside a run, then the runs first to last.",
        "Each product and each sum, to float32.",
        "A term meets K/S + S roundings in place of K: mostly better than one running sum, and different from"
        " it in the last bits, which is how many notice.",
        "cuBLAS, CUTLASS and Triton where M and N are small and K is long; stream-K kernels. Where runs are"
        " added by atomics the order, and so the result, changes from run to run.",
        "S times the partial results to write and read.",
        (1.0, 2.0**-24, 2.0**-24, 2.0**-24, 2.0**-24),
        "The second run adds two small terms before it meets the 1.",
        "CUTLASS documentation, efficient GEMM; Blanchard, Higham and Mary 2020 (SIAM J. Sci. Comput."
        " 42:A1541)",
        example="splitk:2",
    ),
}

_STEP = (
    "acc <- cut( 2^(emax - F) sum_i trunc(t_i 2^(F - emax)) ),  t_i: acc and L exact products\n"
    "emax = max of e(a) + e(b) over the products, and of acc's exponent"
)
_UNIT_SOURCES = (
    "Fasi, Higham, Mikaitis and Pranesh 2021 (PeerJ CS 7:e330); MMA-Sim 2.1; MATLAB-tensor-core models"
)


def _unit_page(name: str, chips: str, more: str, lesson: str) -> Page:
    return Page(
        f"the matrix unit of {name}",
        f"A step takes L products and the accumulator at once, aligns all to the largest exponent, cuts each"
        f" F bits below it, and adds what is left exactly. {more}",
        _STEP,
        "Blocks of L, k ascending, from c; inside a block no order: integers are added.",
        "Cut toward zero, never rounded: each term F bits below emax, each step's sum to its format.",
        "A bias toward zero, which does not cancel: it grows like K with data of one sign. A sum may even"
        " fall when a term rises (it is not monotone).",
        chips,
        "None: it is what the fastest instruction does.",
        (2.0**23, -(2.0**23), -0.5, -0.25, -0.125),
        lesson,
        _UNIT_SOURCES,
    )


_KEPT = "The last place kept beside 2^23 is {}: what lies below it is cut off before anything is added."
_UNITS = {
    "volta": _unit_page(
        "Volta",
        "V100 (2017), the first: float16 factors only.",
        "No bit is kept beyond float32's.",
        _KEPT.format("1"),
    ),
    "turing": _unit_page(
        "Turing", "T4 (2018): float16 factors.", "One bit more than float32's.", _KEPT.format("1/2")
    ),
    "ampere": _unit_page(
        "Ampere",
        "A100, A30, A2 (from 2020): float16, bfloat16, and TensorFloat-32 in blocks half as long.",
        "One bit more than float32's.",
        _KEPT.format("1/2"),
    ),
    "ada": _unit_page(
        "Ada",
        "L40S and its family (from 2022): as Ampere, and FP8.",
        "FP8 keeps 13 bits only, in the accumulator too.",
        _KEPT.format("1/2"),
    ),
    "hopper": _unit_page(
        "Hopper",
        "H100, H200 (2022). FP8 sums of some thousand terms lose so much that DeepSeek-V3 adds every 128 in"
        " float32 outside the unit; cuBLAS does where use_fast_accum is off.",
        "Two bits more than float32's; FP8 keeps 13 bits only, in the accumulator too.",
        _KEPT.format("1/4"),
    ),
    "blackwell": _unit_page(
        "Blackwell",
        "B200 (2024): float16, bfloat16, TensorFloat-32, FP8, FP6 and FP4 (tcgen05.mma).",
        "Two bits more than float32's, for FP8 too.",
        _KEPT.format("1/4"),
    ),
}
PAGES: Mapping[str, Page] = MappingProxyType(
    _ROWS | {f"tensorcore:{name}": page for name, page in _UNITS.items()}
)
