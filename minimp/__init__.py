"""minimp: mixed-precision training that can be read, stepped through and checked.

>>> import minimp as mp
>>> w = mp.tensor([[1.0, 2.0]], requires_grad=True)
>>> with mp.autocast("float16"):
...     loss = (w @ mp.tensor([[3.0], [4.0]])).sum()
>>> loss.backward()
>>> w.grad
tensor([[3., 4.]])
"""

from minimp import checks, data, formats, functional, memory, nn, optim
from minimp.backend import available_backends, use_backend
from minimp.door import OPS, cast, op
from minimp.formats import (
    bfloat16,
    float4_e2m1fn,
    float6_e2m3fn,
    float6_e3m2fn,
    float8_e4m3fn,
    float8_e4m3fnuz,
    float8_e5m2,
    float8_e5m2fnuz,
    float16,
    float32,
    float64,
    int8,
    tfloat32,
)
from minimp.modes import accumulate, enable_grad, is_grad_enabled, no_grad
from minimp.policy import autocast, get_autocast_dtype, is_autocast_enabled, policies
from minimp.rng import get_rng_state, manual_seed, set_rng_state
from minimp.tensors import Tensor, grad, tensor

__version__ = "0.1.0"
