"""Number formats on plain NumPy arrays: what they are, rounding to them, their bits, arithmetic in them."""

from minimp.formats.accumulation import ACCUMULATES, matmul, parse_accumulate
from minimp.formats.anatomy import Inspection, inspect, ulp
from minimp.formats.codes import decode, encode
from minimp.formats.operations import OPERATIONS, arithmetic
from minimp.formats.rounding import OVERFLOWS, ROUNDINGS, representable
from minimp.formats.rounding import round_to as round  # noqa: A004 - the pinned name; it shadows only in here
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
int8 = FORMATS["int8"]

__all__ = [
    "ACCUMULATES",
    "FORMATS",
    "OPERATIONS",
    "OVERFLOWS",
    "ROUNDINGS",
    "Format",
    "Inspection",
    "arithmetic",
    "bfloat16",
    "decode",
    "encode",
    "float4_e2m1fn",
    "float6_e2m3fn",
    "float6_e3m2fn",
    "float8_e3m4",
    "float8_e4m3",
    "float8_e4m3fn",
    "float8_e4m3fnuz",
    "float8_e5m2",
    "float8_e5m2fnuz",
    "float16",
    "float32",
    "float64",
    "get",
    "inspect",
    "int8",
    "matmul",
    "parse_accumulate",
    "representable",
    "round",
    "tfloat32",
    "ulp",
]
