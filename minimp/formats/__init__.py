"""Number formats on plain NumPy arrays: what they are, rounding to them, their bits, arithmetic in them."""

from minimp.formats.accumulation.bounds import ErrorBound, error_bound
from minimp.formats.accumulation.explanations import explain
from minimp.formats.accumulation.orders import ACCUMULATES, matmul, parse_accumulate
from minimp.formats.accumulation.sums import sum_of as sum  # noqa: A004 - as round
from minimp.formats.blocks.arrays import BlockArray, dequantize, quantize
from minimp.formats.blocks.report import BlockReport, block_report, compare_blocks
from minimp.formats.blocks.table import BLOCK_FORMATS, SCALE_RULES, BlockFormat, block_format
from minimp.formats.casting import decode, encode, round  # noqa: A004 - the pinned name; it shadows only in here
from minimp.formats.dice import Counter
from minimp.formats.flags import Flags
from minimp.formats.flavours import FLAVOURS
from minimp.formats.inspection.anatomy import Inspection, inspect, inspect_code, ulp
from minimp.formats.inspection.calculation import Calculation, Step
from minimp.formats.inspection.expressions import evaluate
from minimp.formats.making import make
from minimp.formats.neighbours import next_down, next_up, ulp_distance, values
from minimp.formats.operations import OPERATIONS, arithmetic
from minimp.formats.overflows import OVERFLOWS
from minimp.formats.packing import pack, packed_bytes, unpack
from minimp.formats.pictures.losses import Losses, compare_losses, losses
from minimp.formats.pictures.number_line import NumberLine, number_line
from minimp.formats.pictures.plots import plot_number_line, plot_rounding_error
from minimp.formats.rounding import representable
from minimp.formats.roundings import ROUNDINGS
from minimp.formats.table import FORMATS, Format, get

float64 = FORMATS["float64"]
float32 = FORMATS["float32"]
tfloat32 = FORMATS["tfloat32"]
float16 = FORMATS["float16"]
bfloat16 = FORMATS["bfloat16"]
float8_e3m4 = FORMATS["float8_e3m4"]
float8_e4m3 = FORMATS["float8_e4m3"]
float8_e4m3fn = FORMATS["float8_e4m3fn"]
float8_e4m3fnuz = FORMATS["float8_e4m3fnuz"]
float8_e5m2 = FORMATS["float8_e5m2"]
float8_e5m2fnuz = FORMATS["float8_e5m2fnuz"]
float6_e2m3fn = FORMATS["float6_e2m3fn"]
float6_e3m2fn = FORMATS["float6_e3m2fn"]
float4_e2m1fn = FORMATS["float4_e2m1fn"]
float8_e8m0fnu = FORMATS["float8_e8m0fnu"]
int8 = FORMATS["int8"]
uint8 = FORMATS["uint8"]

__all__ = [
    "ACCUMULATES",
    "BLOCK_FORMATS",
    "FLAVOURS",
    "FORMATS",
    "OPERATIONS",
    "OVERFLOWS",
    "ROUNDINGS",
    "SCALE_RULES",
    "BlockArray",
    "BlockFormat",
    "BlockReport",
    "Calculation",
    "Counter",
    "ErrorBound",
    "Flags",
    "Format",
    "Inspection",
    "Losses",
    "NumberLine",
    "Step",
    "arithmetic",
    "bfloat16",
    "block_format",
    "block_report",
    "compare_blocks",
    "compare_losses",
    "decode",
    "dequantize",
    "encode",
    "error_bound",
    "evaluate",
    "explain",
    "float4_e2m1fn",
    "float6_e2m3fn",
    "float6_e3m2fn",
    "float8_e3m4",
    "float8_e4m3",
    "float8_e4m3fn",
    "float8_e4m3fnuz",
    "float8_e5m2",
    "float8_e5m2fnuz",
    "float8_e8m0fnu",
    "float16",
    "float32",
    "float64",
    "get",
    "inspect",
    "inspect_code",
    "int8",
    "losses",
    "make",
    "matmul",
    "next_down",
    "next_up",
    "number_line",
    "pack",
    "packed_bytes",
    "parse_accumulate",
    "plot_number_line",
    "plot_rounding_error",
    "quantize",
    "representable",
    "round",
    "sum",
    "tfloat32",
    "uint8",
    "ulp",
    "ulp_distance",
    "unpack",
    "values",
]
