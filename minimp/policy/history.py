"""What PyTorch changed in its autocast rules, release by release, from 1.10 to 2.13."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

from minimp.errors import SettingError
from minimp.policy.classes import CastClass

__all__ = ["CHANGES", "RELEASES", "Change", "History", "release_of", "rules_as_of"]

WIDTH = 100
RELEASES = {
    "1.10": "1.10.2", "1.11": "1.11.0", "1.12": "1.12.1", "1.13": "1.13.1", "2.0": "2.0.1", "2.1": "2.1.2",
    "2.2": "2.2.2", "2.3": "2.3.1", "2.4": "2.4.1", "2.5": "2.5.1", "2.6": "2.6.0", "2.7": "2.7.1",
    "2.8": "2.8.0", "2.9": "2.9.1", "2.10": "2.10.0", "2.11": "2.11.0", "2.12": "2.12.1", "2.13": "2.13.0",
}  # fmt: skip
"""Release -> the build that was read: its library carries each autocast kernel under a name (a symbol of
at::autocast::WrapFunction_) that spells the class, the device and the op, of CUDA's ops too."""

KEEP, LOWER, FP32 = CastClass.KEEP, CastClass.LOWER, CastClass.FP32
SET_FP32, PROMOTE = CastClass.SET_FP32, CastClass.PROMOTE
_UPSAMPLE = """
    _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d upsample_bilinear2d
    upsample_linear1d upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_trilinear3d
"""
_ROWS: tuple[tuple[str, str, CastClass, CastClass, str], ...] = (
    ("1.11", "cuda", LOWER, KEEP, "_convolution_nogroup"),
    ("1.12", "cuda", KEEP, LOWER, "einsum"),
    ("1.13", "cuda", KEEP, FP32, "logsumexp"),
    ("2.0", "cuda", KEEP, LOWER, "_scaled_dot_product_flash_attention scaled_dot_product_attention"),
    ("2.0", "cuda", KEEP, SET_FP32, "linalg_matrix_norm linalg_vector_norm"),
    ("2.2", "cuda", KEEP, LOWER, "linalg_vecdot"),
    ("2.4", "cuda", KEEP, FP32,
     _UPSAMPLE + "_upsample_bicubic2d_aa _upsample_bilinear2d_aa upsample_bicubic2d"),
    ("2.4", "cuda", KEEP, PROMOTE, "vdot"),
    ("2.12", "cuda", KEEP, FP32, "rms_norm"),
    ("1.11", "cpu", KEEP, FP32,
     "_upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d"),
    ("1.12", "cpu", KEEP, LOWER, "matmul"),
    ("1.12", "cpu", FP32, LOWER, "conv_tbc"),
    ("1.12", "cpu", KEEP, FP32, "_grid_sampler_2d_cpu_fallback grid_sampler_2d grid_sampler_3d"),
    ("1.12", "cpu", FP32, KEEP, _UPSAMPLE + """
        adaptive_max_pool1d adaptive_max_pool2d avg_pool1d avg_pool2d batch_norm
        binary_cross_entropy_with_logits celu col2im cross cummax cummin cumprod cumsum diag diagflat dot
        dropout elu fmod gelu glu group_norm hardshrink hardsigmoid hardswish histc im2col instance_norm
        log_sigmoid logcumsumexp lu_unpack multinomial poisson prelu searchsorted selu smooth_l1_loss
        softplus softshrink solve tril triu vander vdot
    """),
    ("1.13", "cpu", FP32, KEEP, "eig lstsq matrix_rank"),
    ("1.13", "cpu", KEEP, FP32, """
        binary_cross_entropy_with_logits cosine_embedding_loss cross_entropy_loss hinge_embedding_loss
        huber_loss l1_loss margin_ranking_loss multi_margin_loss nll_loss nll_loss2d poisson_nll_loss
        smooth_l1_loss soft_margin_loss triplet_margin_loss
    """),
    ("2.0", "cpu", FP32, LOWER, "conv_transpose1d conv_transpose2d conv_transpose3d"),
    ("2.0", "cpu", KEEP, LOWER, "mkldnn_rnn_layer"),
    ("2.0", "cpu", FP32, KEEP, "linalg_matrix_norm symeig"),
    ("2.1", "cpu", KEEP, LOWER, "prelu"),
    ("2.2", "cpu", KEEP, LOWER, "_native_multi_head_attention linalg_vecdot scaled_dot_product_attention"),
    ("2.6", "cpu", KEEP, LOWER, "_addmm_activation"),
)  # fmt: skip


@dataclass(frozen=True)
class Change:
    """One op whose class a release changed.

    Attributes:
        release: the first release with the new class.
        device: ``"cuda"`` or ``"cpu"``.
        op: its name, whatever the overload.
        before, after: its classes; ``unlisted``: the release registers nothing for it.
        source: where both were read.
    """

    release: str
    device: str
    op: str
    before: CastClass
    after: CastClass
    source: str


def _changes() -> Iterator[Change]:
    names = list(RELEASES)
    for release, device, before, after, ops in _ROWS:
        builds = RELEASES[names[names.index(release) - 1]], RELEASES[release]
        for op in sorted(ops.split()):
            source = "the autocast kernels in the libraries of PyTorch {} and {}".format(*builds)
            yield Change(release, device, op, before, after, source)


CHANGES = tuple(_changes())
"""Every change of a class, an op a row, by device and release."""


@dataclass(frozen=True)
class History:
    """The changes of one policy; its string is a report.

    Attributes:
        policy: the policy's name.
        rows: the changes, the oldest release first.
        releases: those that were read, from the oldest to the one that the policy has.
    """

    policy: str
    rows: tuple[Change, ...]
    releases: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Change]:
        return iter(self.rows)

    def __str__(self) -> str:
        """Show what each release changed, within 100 columns."""
        first, last = self.releases[0], self.releases[-1]
        lines = wrap(f"{self.policy} from PyTorch {first} to {last}: {len(self)} changes of a class; the "
                     "releases between those named changed none", WIDTH)  # fmt: skip
        groups: dict[tuple[str, str], list[str]] = {}
        for row in self.rows:
            title = f"  {row.before.value} -> {row.after.value}:"
            groups.setdefault((row.release, title), []).append(row.op)
        release = ""
        for (named, title), ops in groups.items():
            lines += [] if named == release else [f"{named} (read: {RELEASES[named]})"]
            release = named
            lines += wrap(f"{title} {' '.join(ops)}", WIDTH, subsequent_indent="      ",
                          break_on_hyphens=False)  # fmt: skip
        return "\n".join(lines)


def release_of(policy: str, text: Any, known: tuple[str, ...]) -> str:
    """Return the release that a version names: "2.11", "2.11.0" or "2.11.0+cpu" is 2.11.

    Raises:
        SettingError: it was not read, or is a number: 2.10 would be 2.1.
    """
    if isinstance(text, int | float):
        raise SettingError(f"expected a release in quotes, got the number {text}", op=f"policy {policy}",
                           help="write .at('2.10'): as a number that is 2.1")  # fmt: skip
    version = str(text).split("+")[0]
    for release in known:
        if version in (release, RELEASES[release]):
            return release
    if not known:
        raise SettingError(f"policy {policy} has no history", help="those of PyTorch as they are have one")
    nearest = ".".join(version.split(".")[:2])
    advice = f"the build of {nearest} that was read is {RELEASES.get(nearest)}; write .at({nearest!r})"
    raise SettingError(
        f"policy {policy}: the rules of {version!r} were not read; known are {known[0]} to {known[-1]}",
        help=advice if nearest in known else f"one of: {', '.join(known)}",
    )  # fmt: skip


def rules_as_of(
    rules: Mapping[str, CastClass], changes: tuple[Change, ...], release: str, known: tuple[str, ...]
) -> dict[str, CastClass]:
    """Return the rules with all that changed after a release taken back."""
    later = known[known.index(release) + 1 :]
    found = dict(rules)
    for row in reversed(changes):
        if row.release in later:
            found[row.op] = row.before
    return found
