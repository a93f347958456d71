"""Known differences of loss scalers, of autocast's cache and of training runs."""

from __future__ import annotations

from minimp.frameworks.documented.difference import Difference

__all__ = ["SCALER_DIFFERENCES"]

OF_CASTS = "torch 2.13.0, aten/src/ATen/autocast_mode.cpp, cached_cast"
IN_TORCH = "torch 2.13.0, torch/amp/grad_scaler.py"


def _scaler(
    name: str, subjects: tuple[str, ...], cases: str, reason: str, source: str = IN_TORCH
) -> Difference:
    return Difference(name, "torch", "scaler", subjects, cases, reason, source)


def _cache(
    name: str, subjects: tuple[str, ...], cases: str, reason: str, source: str = OF_CASTS
) -> Difference:
    return Difference(name, "torch", "cache", subjects, cases, reason, source)


SCALER_DIFFERENCES: tuple[Difference, ...] = (
    _scaler(
        "a-scale-of-nan", ("constructor", "update"), "*[nN]a[nN]",
        "torch takes NaN, after which every gradient is NaN and every step is skipped; here NaN is refused",
    ),
    _scaler(
        "no-device", ("constructor",), "device=*",
        "torch's scaler is made for a device, and one for CUDA warns and is disabled where there is none; "
        "ours is where the gradients are, and has no such argument",
    ),
    _scaler(
        "named-tuples", ("scale",), "a named tuple",
        "torch hands the type one iterator, which a named tuple does not take; here it comes back as one",
    ),
    _scaler(
        "mappings-and-strings", ("scale",), "a [ds][it][cr]*",
        "torch wraps a dict or a string in a lazy map, which fails when it is used; here scale() refuses it",
    ),
    _scaler(
        "unscaled-out-of-place", ("unscale_",), "another name on the gradient",
        "torch writes into the gradient tensor, and other names on it see that; here .grad becomes a new "
        "tensor, since arrays are not changed once others can see them",
    ),
    _scaler(
        "no-sparse-tensors", ("unscale_",), "sparse gradients",
        "minimp has no sparse tensors, so there are no sparse gradients to unscale",
    ),
    _scaler(
        "half-loaded-states", ("state_dict",), "one without a tracker",
        "torch has taken four entries over when it finds the fifth missing; here a state dict that is "
        "refused changes nothing",
    ),
    _scaler(
        "factors-set-later", ("settings",), "set_*_factor(*[52])",
        "torch's constructor refuses growth that shrinks and backing off that grows, its setters do not; "
        "here both do",
    ),
    _cache(
        "no-grad-before-2.13", ("First used under no_grad",), "*, cache='torch-before-2.13'",
        "torch's way up to 2.12, as chosen: a cast first made under no_grad is kept without a gradient, and "
        "the weight gets none from its later uses",
        "pytorch#165068, which changed it",
    ),
    _cache(
        "cache-ignores-format",
        ("An inner region in the other low format", "The weight's square in such an inner region"),
        "*, cache='torch'",
        "torch hands the inner region the outer one's casts: a product with a fresh one fails, and a square "
        "is computed in the outer format; here casts are handed out only in the format asked for, unless "
        "faithful=True",
    ),
    _cache(
        "cache-ignores-changes", ("The weight changed inside the region",), "*, cache='torch'",
        "torch goes on with the cast of the old values; here a weight whose array was replaced is cast anew, "
        "unless faithful=True",
    ),
    Difference(
        "convolutions-summed-in-float16", "torch", "training", ("convolution",), "float16, weight gradient *",
        "where oneDNN has no float16, torch adds a convolution's weight gradient on the CPU up image "
        "by image in float16, which may overflow on the way; here the sum is rounded once, at its end",
        "torch 2.13.0 on a processor without AVX512-FP16",
    ),
    Difference(
        "factors-in-float32", "jax", "scalers", ("flax DynamicScale",), "factors 1.7 and 0.3",
        "Flax rounds the factors to float32 before it multiplies by them; here they are float64, as in "
        "torch, and the product is rounded once. Powers of two are the same in both",
        "Flax 0.12.8, flax/training/dynamic_scale.py",
    ),
    Difference(
        "unscaled-by-division", "jax", "scalers", ("flax value_and_grad",), "S = 3.7",
        "Flax divides gradients by S, here they are multiplied by 1/S, as in torch; the compiler may make "
        "one of the other. Where S is a power of two both are exact",
        "Flax 0.12.8, flax/training/dynamic_scale.py",
    ),
    Difference(
        "floor-lost-by-jit", "jax", "scalers", ("jmp.DynamicLossScale",), "a floor * through jax.jit",
        "jmp leaves min_loss_scale out of what it hands through jax.jit and other tree functions, so it "
        "becomes 1 again; here the floor is part of the rule, and of the state dict",
        "jmp 0.0.4, jmp/_src/loss_scale.py, DynamicLossScale.tree_flatten",
    ),
    Difference(
        "scale-in-float16-fails", "jax", "scalers", ("jmp.DynamicLossScale",), "a scale given in float16, *",
        "jmp takes a scale in any format, as its README does, but adjust() compares it with a float32 floor "
        "and raises; here the scale is a number, kept in float32",
        "jmp 0.0.4, jmp/_src/loss_scale.py, DynamicLossScale.adjust",
    ),
)  # fmt: skip
"""Each known difference of these sections."""
