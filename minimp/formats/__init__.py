"""Number formats on plain NumPy arrays: what they are, rounding to them, their bits, arithmetic in them."""

from minimp.formats.accumulation import ACCUMULATES, matmul, parse_accumulate
from minimp.formats.anatomy import Inspection, inspect, ulp
from minimp.formats.codes import decode, encode
from minimp.formats.dice import Counter
from minimp.formats.flags import Flags
from minimp.formats.flavours import FLAVOURS
from minimp.formats.making import make
from minimp.formats.neighbours import next_down, next_up, ulp_distance, values
from minimp.formats.operations import OPERATIONS, arithmetic
from minimp.formats.overflows import OVERFLOWS
from minimp.formats.rounding import representable
from minimp.formats.rounding import round_to as round  # noqa: A004 - the pinned name; it shadows only in here
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
    "FLAVOURS",
    "FORMATS",
    "OPERATIONS",
    "OVERFLOWS",
    "ROUNDINGS",
    "Counter",
    "Flags",
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
    "float8_e8m0fnu",
    "float16",
    "float32",
    "float64",
    "get",
    "inspect",
    "int8",
    "make",
    "matmul",
    "next_down",
    "next_up",
    "parse_accumulate",
    "representable",
    "round",
    "tfloat32",
    "uint8",
    "ulp",
    "ulp_distance",
    "values",
]
