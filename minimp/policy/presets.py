"""The policies by name: PyTorch's, whole and with their history, and those of other libraries."""

from __future__ import annotations

from minimp.policy.catalogue import CPU, CUDA, LACKING, REMARKS, UNLISTED, Table, classes_of
from minimp.policy.classes import CastClass
from minimp.policy.frameworks import POLICIES
from minimp.policy.history import CHANGES, RELEASES
from minimp.policy.table import Policies, Policy

__all__ = ["policies"]


def _torch(device: str, table: Table, low: str, note: str) -> Policy:
    """Return the policy of one device: each op of both devices' tables, KEEP where this one lacks it."""
    everything = sorted({*classes_of(CUDA), *classes_of(CPU), *UNLISTED.split()})
    classes = classes_of(table)
    return Policy(
        f"torch-{device}",
        {op: classes.get(op, CastClass.KEEP) for op in everything},
        f"PyTorch 2.13.0, {device.upper()}",
        note,
        lacking=LACKING,
        remarks=REMARKS if device == "cuda" else {},
        settings={
            "param_dtype": "float32", "dtype": f"{low} by default",
            "master_weights": "the parameters themselves",
            "loss_scale": "torch.amp.GradScaler, from 65536, for float16",
        },
        changes=tuple(row for row in CHANGES if row.device == device),
        releases=tuple(RELEASES),
    )  # fmt: skip


policies = Policies(
    _torch("cuda", CUDA, "float16",
           "float16 and bfloat16 have the same rules. binary_cross_entropy raises: use "
           "binary_cross_entropy_with_logits. 2.13 dropped six overloads with named dimensions; no class "
           "changed."),
    _torch("cpu", CPU, "bfloat16",
           "float16 and bfloat16 have the same rules. softmax, sum, exp and pow are not listed: they compute "
           "in the format they are given."),
    *POLICIES,
)  # fmt: skip
"""The policies by name."""
