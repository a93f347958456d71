"""The rules of other libraries: as their sources have them, and acting in a region and in a recipe."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import nn
from minimp.door import OPS
from minimp.errors import FormatError, SettingError
from minimp.modes import listen
from minimp.policy import CastClass, Policy, format_of
from minimp.policy.catalogue import ACTING, LACKING
from minimp.tape import Event

KEEP, LOWER, FP32, PROMOTE = CastClass.KEEP, CastClass.LOWER, CastClass.FP32, CastClass.PROMOTE
OTHERS = [name for name in mp.policies if not name.startswith("torch")]
LOW = ("float16", "bfloat16")
W, L = "float32", "low"

# The result of each op of the network below, by hand from each library's rule.
NETWORK: dict[str, dict[str, str]] = {
    "keras": {"conv2d": L, "batch_norm": L, "relu": L, "max_pool2d": L, "linear": L, "layer_norm": L,
              "gelu": L, "softmax": L, "mse_loss": W, "nll_loss": W},
    "jmp": {"conv2d": L, "batch_norm": L, "relu": L, "max_pool2d": L, "linear": L, "layer_norm": L, "gelu": L,
            "softmax": L, "mse_loss": W, "nll_loss": W},
    "paddle-o1": {"conv2d": L, "batch_norm": "low in float16", "relu": "low in float16",
                  "max_pool2d": "low in float16", "linear": L, "layer_norm": W, "gelu": W, "softmax": W,
                  "mse_loss": W, "nll_loss": W},
    "mindspore-o2": {"conv2d": L, "batch_norm": L, "relu": L, "max_pool2d": L, "linear": L, "layer_norm": L,
                     "gelu": L, "softmax": L, "mse_loss": W, "nll_loss": W},
    "apex-o0": dict.fromkeys(("conv2d", "batch_norm", "relu", "max_pool2d", "linear", "layer_norm", "gelu",
                              "softmax", "mse_loss", "nll_loss"), W),
    "apex-o1": {"conv2d": L, "batch_norm": L, "relu": L, "max_pool2d": L, "linear": L, "layer_norm": W,
                "gelu": W, "softmax": W, "mse_loss": W, "nll_loss": W},
    "apex-o2": {"conv2d": L, "batch_norm": L, "relu": L, "max_pool2d": L, "linear": L, "layer_norm": L,
                "gelu": L, "softmax": L, "mse_loss": W, "nll_loss": W},
    "apex-o3": {"conv2d": L, "batch_norm": L, "relu": L, "max_pool2d": L, "linear": L, "layer_norm": L,
                "gelu": L, "softmax": L, "mse_loss": W, "nll_loss": W},
    "chainer-mixed16": {"conv2d": L, "batch_norm": L, "relu": L, "max_pool2d": L, "linear": L,
                        "layer_norm": L, "gelu": L, "softmax": L, "mse_loss": L, "nll_loss": L},
}  # fmt: skip


class Net(nn.Module):
    """A convolution, its normalisation, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2)
        self.inner, self.scale = nn.Linear(8, 6), nn.LayerNorm(6)
        self.outer = nn.Linear(6, 3)

    def forward(self, x: Any) -> Any:
        """Return scores: (N, 1, 4, 4) -> (N, 3)."""
        h = mp.functional.max_pool2d(self.norm(self.conv(x)).relu(), 2)  # (N, 2, 2, 2)
        return self.outer(mp.functional.gelu(self.scale(self.inner(h.reshape(-1, 8)))))


def losses(net: Net, x: Any, labels: Any) -> Any:
    """Return a loss of all kinds of ops."""
    scores = net(x)
    soft = scores.softmax(-1)
    return mp.functional.cross_entropy(scores, labels) + mp.functional.mse_loss(soft, soft * 0.0)


def batch() -> tuple[Any, Any]:
    """Return four images and their labels."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((4, 1, 4, 4)).astype(np.float32), np.array([0, 1, 2, 0])


@pytest.mark.parametrize("low", LOW)
@pytest.mark.parametrize("policy", OTHERS)
def test_a_network_is_computed_as_the_library_says(policy: str, low: str) -> None:
    """Oracle: the table above; every parameter gets a finite gradient in its own format."""
    mp.manual_seed(0)
    net, (x, labels) = Net(), batch()
    events: list[Event] = []
    with mp.autocast(low, policy=policy), listen(events.append):
        loss = losses(net, x, labels)
    (loss * 8.0).backward()
    found: dict[str, str] = {}
    for event in events:
        name, (made,) = event.node.op.name, event.outputs
        if event.phase == "forward" and name in NETWORK[policy]:
            assert made is not None
            form = format_of(made.dtype)
            assert form is not None
            assert found.setdefault(name, form.name) == form.name
    words = {W: W, L: low, "low in float16": low if low == "float16" else W}
    assert found == {op: words[kind] for op, kind in NETWORK[policy].items()}
    for parameter in net.parameters():
        assert parameter.grad is not None
        assert parameter.grad.format is mp.float32
        assert np.isfinite(parameter.grad.numpy()).all()


@pytest.mark.parametrize("low", LOW)
@pytest.mark.parametrize("policy", OTHERS)
def test_a_recipe_trains_by_it(policy: str, low: str) -> None:
    """Oracle: the loss, which falls in three steps."""
    mp.manual_seed(0)
    net, (x, labels) = Net(), batch()
    recipe = mp.Recipe("theirs", compute_dtype=low, master_weights=True, loss_scale=8.0, policy=policy)
    step = mp.TrainStep(net, mp.functional.cross_entropy, mp.optim.SGD(net.parameters(), lr=0.05), recipe)
    seen = [float(step(x, labels).loss) for _ in range(4)]
    assert seen[-1] < seen[0]


# The lists as they stand in the libraries' sources: paddle/amp/amp_lists.py of 3.3.1; apex/amp/lists, where
# operators of tensors (sub is __sub__) and sequences count as CASTS.
PADDLE_WHITE = """
    conv2d einsum flash_attn fused_gemm_epilogue fused_rotary_position_embedding linear_v2 matmul
    matmul_v2 max_pool2d_with_index mul
"""
PADDLE_WHITE_IN_FLOAT16 = """
    fake_quantize_dequantize_abs_max fake_quantize_dequantize_moving_average_abs_max fused_attention
    fused_feedforward
"""
PADDLE_BLACK = """
    acos asin atanh bicubic_interp_v2 bilinear_interp_v2 c_softmax_with_cross_entropy
    c_softmax_with_multi_label_cross_entropy cosh cross_entropy cross_entropy2 cumprod cumsum dist
    erfinv exp expm1 frobenius_norm group_norm hsigmoid_loss huber_loss layer_norm linear_interp_v2
    log log10 log2 log_loss log_softmax lookup_table lookup_table_v2 margin_cross_entropy mean
    nearest_interp_v2 nll_loss pnorm pow reciprocal reduce_mean reduce_prod reduce_sum renorm rsqrt
    scatter sigmoid_cross_entropy_with_logits sinh softmax softmax_with_cross_entropy softmin
    softplus square tan tanh_shrink trilinear_interp_v2 triplet_margin_loss
"""
APEX_FP16 = """
    addbmm addmm addmv addr baddbmm bmm conv1d conv2d conv3d conv_tbc conv_transpose1d
    conv_transpose2d conv_transpose3d linear matmul mm mv prelu
"""
APEX_FP32 = """
    acos asin binary_cross_entropy_with_logits cosh cosine_embedding_loss cosine_similarity
    cross_entropy cumprod cumsum dist erfinv exp expm1 group_norm hinge_embedding_loss interpolate
    kl_div l1_loss layer_norm local_response_norm log log10 log2 log_softmax margin_ranking_loss
    mse_loss multi_margin_loss multilabel_margin_loss multilabel_soft_margin_loss nll_loss norm
    normalize poisson_nll_loss pow prod reciprocal renorm rsqrt sinh smooth_l1_loss soft_margin_loss
    softmax softmin softplus std sum tan triplet_margin_loss var
"""
APEX_PROMOTE = """
    add addcdiv addcmul atan2 bilinear cat cross div dot eq equal ge gt le lt mul ne stack sub
"""
RENAMED = {
    "bicubic_interp_v2": "upsample_bicubic2d", "bilinear_interp_v2": "upsample_bilinear2d",
    "cross_entropy": "cross_entropy_loss", "flash_attn": "scaled_dot_product_attention",
    "interpolate": " ".join(op for op in ACTING if "upsample" in op), "linear_interp_v2": "upsample_linear1d",
    "linear_v2": "linear", "lookup_table_v2": "embedding", "matmul_v2": "matmul",
    "nearest_interp_v2": "upsample_nearest1d upsample_nearest2d upsample_nearest3d",
    "norm": "linalg_vector_norm", "pnorm": "linalg_vector_norm", "reduce_mean": "mean", "reduce_prod": "prod",
    "reduce_sum": "sum", "scatter": "index_copy",
    "sigmoid_cross_entropy_with_logits": "binary_cross_entropy_with_logits",
    "softmax_with_cross_entropy": "cross_entropy_loss", "trilinear_interp_v2": "upsample_trilinear3d",
}  # fmt: skip
"""The library's name -> minimp's, where they differ."""


@pytest.mark.parametrize(
    ("policy", "lists", "also"),
    [
        ("paddle-o1", {LOWER: PADDLE_WHITE, FP32: PADDLE_BLACK}, {"conv1d": LOWER, "cross_entropy": FP32}),
        ("apex-o1", {LOWER: APEX_FP16, FP32: APEX_FP32, PROMOTE: APEX_PROMOTE},
         {"binary_cross_entropy": CastClass.BANNED,
          **dict.fromkeys(("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"), LOWER)}),
    ],
)  # fmt: skip
def test_the_lists_are_the_sources(
    policy: str, lists: dict[CastClass, str], also: dict[str, CastClass]
) -> None:
    """Oracle: the lists in the sources, read by a program, and minimp's names for their ops, by hand."""
    expected = dict(also)
    for kind, names in lists.items():
        for name in names.split():
            product = name == "mul" and policy == "paddle-o1"
            ours = "mul_of_matrices" if product else RENAMED.get(name, name)
            expected |= dict.fromkeys(ours.split(), kind)
    found = {op: kind for op, kind in mp.policies[policy].named.items() if op != "cast"}
    assert found == expected
    half = mp.policies[policy].by_format.get("float16", {})
    low = {op for op, kind in half.items() if kind is LOWER}
    assert low == (set(PADDLE_WHITE_IN_FLOAT16.split()) if policy == "paddle-o1" else set())


@pytest.mark.parametrize(
    ("policy", "rows"),
    [
        ("keras", {"linear": LOWER, "softmax": LOWER, "batch_norm": KEEP, "mse_loss": FP32, "cast": KEEP}),
        ("jmp", {"linear": LOWER, "layer_norm": LOWER, "cross_entropy_loss": FP32}),
        ("paddle-o1", {"matmul": LOWER, "linear": LOWER, "einsum": LOWER, "conv2d": LOWER, "softmax": FP32,
                       "mean": FP32, "sum": FP32, "embedding": FP32, "log1p": PROMOTE, "relu": PROMOTE,
                       "add": PROMOTE, "addmm": PROMOTE, "batch_norm": PROMOTE, "tanh_shrink": FP32}),
        ("mindspore-o2", {"matmul": LOWER, "batch_norm": KEEP, "layer_norm": KEEP, "group_norm": LOWER}),
        ("apex-o0", {"matmul": FP32, "relu": FP32, "cast": KEEP}),
        ("apex-o1", {"matmul": LOWER, "linear": LOWER, "prelu": LOWER, "softmax": FP32, "std": FP32,
                     "cat": PROMOTE, "add": PROMOTE, "log1p": KEEP, "batch_norm": KEEP, "relu": KEEP,
                     "binary_cross_entropy": CastClass.BANNED, "local_response_norm": FP32}),
        ("apex-o2", {"matmul": LOWER, "batch_norm": KEEP, "layer_norm": LOWER}),
        ("apex-o3", {"matmul": LOWER, "batch_norm": LOWER, "layer_norm": LOWER}),
        ("chainer-mixed16", {"matmul": LOWER, "batch_norm": KEEP, "cross_entropy_loss": LOWER}),
    ],
)  # fmt: skip
def test_rows_by_hand(policy: str, rows: dict[str, CastClass]) -> None:
    """Oracle: the libraries' sources, looked up one by one."""
    assert {op: mp.policies[policy][op] for op in rows} == rows


@pytest.mark.parametrize("policy", OTHERS)
def test_every_op_of_minimp_is_ruled_and_no_other_is_passed_off_as_one(policy: str) -> None:
    """Oracle: the lists of minimp's ops."""
    rules = mp.policies[policy]
    assert set(OPS) <= set(rules)
    assert rules.lacking.isdisjoint(ACTING)
    of_a_format = {op for each in rules.by_format.values() for op in each}
    assert (set(rules) | of_a_format) - set(ACTING) == rules.lacking
    assert set(rules.remarks) <= set(rules)
    assert rules["cast"] is KEEP
    assert max(map(len, str(rules).splitlines())) <= 100


def test_the_names_that_act_are_those_that_are_asked_for() -> None:
    """Oracle: minimp's ops, and the functions and layers that ask the policy by a name of PyTorch's."""
    asked = {"bilinear", "cosine_similarity", "cross_entropy_loss", "einsum", "linalg_vecdot", "tensordot"}
    layers = {name for step in nn.cells.STEPS.values() for name in (step.cell_op, *step.layer_ops)}
    assert set(ACTING) == set(OPS) | asked | layers
    assert LACKING.isdisjoint(ACTING)
    for name in asked:
        seen: list[str] = []

        class Spy(dict[str, CastClass]):
            """Rules that remember what they were asked."""

            def get(self, key: str, default: Any = None) -> Any:
                seen.append(key)  # noqa: B023 - used within the turn
                return default

        spied = Policy("spy")
        object.__setattr__(spied, "rules", Spy())
        with mp.autocast("float16", policy=spied):
            ASKS[name](mp.tensor(np.ones((2, 2), np.float32)))
        assert name in seen


ASKS: dict[str, Any] = {
    "bilinear": lambda x: mp.functional.bilinear(x, x, mp.tensor(np.ones((3, 2, 2), np.float32))),
    "cosine_similarity": lambda x: mp.functional.cosine_similarity(x, x),
    "cross_entropy_loss": lambda x: mp.functional.cross_entropy(x, [0, 1]),
    "einsum": lambda x: mp.functional.einsum("ij,jk->ik", x, x),
    "linalg_vecdot": lambda x: mp.functional.vecdot(x, x),
    "tensordot": lambda x: mp.functional.tensordot(x, x, 1),
}


def test_paddles_formats_have_lists_of_their_own() -> None:
    """Oracle: paddle/amp/amp_lists.py: four ops are white in float16 alone; there batch_norm's x decides."""
    paddle = mp.policies["paddle-o1"]
    assert set(paddle.by_format) == {"float16"}
    half, brain = paddle.in_format("fp16"), paddle.in_format("bfloat16")
    assert brain == paddle
    rows = {(op, half.rules[op], brain.rules.get(op)) for op in half}
    assert {row for row in rows if row[1] is not row[2]} == {
        ("fused_attention", LOWER, None), ("fused_feedforward", LOWER, None), ("batch_norm", KEEP, PROMOTE),
        ("fake_quantize_dequantize_abs_max", LOWER, None),
        ("fake_quantize_dequantize_moving_average_abs_max", LOWER, None),
    }  # fmt: skip
    assert "in float16 otherwise:" in str(paddle)
    assert paddle.search("softmax_with_cross_entropy")["cross_entropy_loss"] is FP32


def test_rules_of_one_format_are_edited_and_act_in_it_alone() -> None:
    """Oracle: the formats that the edit asks for; the report names the format."""
    mine = mp.policies["torch-cuda"].with_(low="bfloat16", softmax="lower")
    assert mine.name == "torch-cuda (softmax: lower in bfloat16)"
    x = mp.tensor(np.ones((2, 2), np.float32))
    for low, expected in [("float16", mp.float32), ("bfloat16", mp.bfloat16)]:
        with mp.autocast(low, policy=mine):
            assert x.softmax(-1).format is expected
    diff = mine.diff(mp.policies["torch-cuda"])
    assert list(diff) == [("softmax (bfloat16)", LOWER, CastClass.SET_FP32)]
    both = mine.with_(softmax="fp32")
    assert both.in_format("bfloat16")["softmax"] is both["softmax"] is FP32
    with pytest.raises(SettingError, match="unknown low format 'float32'"):
        mine.with_(low="float32", softmax="lower")


def test_a_default_is_edited_and_leaves_what_is_named() -> None:
    """Oracle: the contract of with_(default=)."""
    o3 = mp.policies["apex-o3"]
    wide = o3.with_(default="fp32", matmul="lower")
    assert (wide["relu"], wide["matmul"], wide["log_softmax"], wide["cast"]) == (FP32, LOWER, KEEP, KEEP)
    assert wide.name == "apex-o3 (matmul: lower, default: fp32)"
    assert o3["relu"] is LOWER
    bare = wide.with_(default=None)
    assert "relu" not in bare
    assert bare.rule(OPS["relu"]) is OPS["relu"].cast
    assert len(wide.diff(o3)) == len(o3.filled) - 1
    assert ("loss_scale", 1.0, "dynamic") in o3.diff(mp.policies["apex-o2"]).settings
    assert "loss_scale: 1.0 against dynamic" in str(o3.diff(mp.policies["apex-o2"]))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda p: p.with_({"sum": "fp32"}, sum="lower"), "is to be fp32 and lower_precision_fp at once"),
        (lambda p: p.with_(fused_gemm_epilogue="fp32"), "not an op of minimp: its rule would act nowhere"),
        (lambda p: p.with_(default="lowr"), "unknown cast class 'lowr'; did you mean 'lower'"),
    ],
)  # fmt: skip
def test_edits_that_cannot_act_are_refused(edit: Any, message: str) -> None:
    """Oracle: the contract of with_(); Paddle refuses an op on both of its custom lists."""
    with pytest.raises(SettingError, match=message):
        edit(mp.policies["paddle-o1"])


@pytest.mark.parametrize("policy", mp.policies)
def test_a_policy_can_be_kept_in_a_file_and_copied(policy: str) -> None:
    """Oracle: the policy itself, after JSON and a copy; an edited one too."""
    edited = mp.policies[policy].with_(relu="fp32").with_(low="float16", tanh="lower")
    for each in (mp.policies[policy], edited):
        kept = json.loads(json.dumps(each.to_dict()))
        assert Policy.from_dict(kept) == each
        assert str(Policy.from_dict(kept)) == str(each)
        assert deepcopy(each) == each


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rule": {}}, "unknown key 'rule'; did you mean 'rules'"),
        ({"rules": {"lower": ["matmull"]}}, "unknown op 'matmull'; did you mean 'matmul'"),
        ({"rules": {"lowr": ["matmul"]}}, "unknown cast class 'lowr'; did you mean 'lower'"),
        ({"rules": {"lower": ["matmul"], "fp32": ["matmul"]}},
         "matmul stands under lower_precision_fp and under fp32"),
        ({"rules": {"lower": "matmul"}}, "lower: expected a list of ops, got 'matmul'"),
        ({"rules": {"lower": ["cast"]}}, "cannot rule the op 'cast'"),
        ({"rules": ["matmul"]}, "rules: expected a dict, got list"),
        ({"lacking": ["matmul"]}, "matmul: minimp has it"),
        ({"default": "lowr"}, "unknown cast class 'lowr'"),
        ({"by_format": {"float32": {"lower": ["matmul"]}}}, "unknown low format 'float32'"),
        ({"releases": ["1.9"]}, "unknown release '1.9'"),
        ({"changes": [{"op": "exp"}]}, "a change of a release cannot be read"),
        ({"name": None}, "name: expected a str, got NoneType"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_meant_are_refused(change: dict[str, Any], message: str) -> None:
    """Oracle: the contract of from_dict()."""
    with pytest.raises(SettingError, match=message):
        Policy.from_dict({"name": "lab", "rules": {}} | change)
    with pytest.raises(SettingError, match="expected a 'rules'"):
        Policy.from_dict({"name": "lab"})


def test_a_file_by_hand_acts_and_may_name_ops_of_ones_own() -> None:
    """Oracle: the formats that it asks for."""
    data = {"name": "lab", "default": "keep", "rules": {"lower": ["matmul"], "fp32": ["house_op"]}}
    with pytest.raises(SettingError, match=r"unknown op 'house_op'.*\n.*also="):
        Policy.from_dict(data)
    lab = Policy.from_dict(data, also=["house_op"])
    x = mp.tensor(np.ones((2, 2), np.float32))
    with mp.autocast("bfloat16", policy=lab):
        assert (x @ x).format is mp.bfloat16
        assert (x @ x).exp().format is mp.bfloat16
    assert Policy.from_dict(lab.to_dict(), also=["house_op"]) == lab


def test_a_policy_is_a_collection_of_ops() -> None:
    """Oracle: its rules."""
    policy = mp.policies["apex-o1"]
    assert len(policy) == len(policy.rules) == len(list(policy))
    assert "matmul" in policy
    assert OPS["matmul"] in policy
    assert "matmull" not in policy
    assert 3 not in policy
    assert Policy("empty")
    assert len(Policy("empty")) == 0


def test_a_third_format_is_refused_by_promote_as_ever() -> None:
    """Oracle: compute_formats, and the note of the policy."""
    x = mp.tensor([1.0], dtype="bfloat16")
    with mp.autocast("float16", policy="paddle-o1"), pytest.raises(FormatError, match="promotes float32 and"):
        x.relu()
