"""A small GPT over characters: Radford et al. 2019, "Language models are unsupervised multitask learners"."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minimp import functional, nn
from minimp.errors import SettingError, ShapeError
from minimp.tensors import Tensor

__all__ = ["GPT", "gpt", "gpt2_"]

WIDER = 4
"""The hidden layer of a block is four times as wide as the stream."""
DEVIATION = 0.02


class GPT(nn.Module):
    """Scores for the character that follows each position.  (B, T) integers -> (B, T, V).

    ::

        x = tokens[codes] + positions[0 .. T-1]
        L times:   x = x + attention(norm(x));   x = x + mlp(norm(x))
        scores = norm(x) head^T

    Args:
        vocabulary: V, the number of characters.
        context: the largest T.
        width: C, the length of the vector at each position.
        layers: L, the number of blocks.
        heads: the number of attention heads; divides the width.
        dropout: the probability with which a value is zeroed in training, after the sum of embeddings, in the
            attention and at the end of each branch.
        tied: whether `head` is the table of `tokens` itself (Press and Wolf 2017, arXiv 1608.05859).

    Raises:
        SettingError: the heads do not divide the width, or a size is no whole number of at least 1.
    """

    def __init__(
        self,
        vocabulary: int,
        context: int,
        *,
        width: int,
        layers: int,
        heads: int,
        dropout: float,
        tied: bool,
    ) -> None:
        super().__init__()
        if type(heads) is not int or heads < 1 or width % heads:
            raise SettingError(f"heads must divide width, got width={width} and heads={heads}", op="gpt")
        if type(layers) is not int or layers < 1:
            raise SettingError(f"layers must be a whole number of at least 1, got {layers!r}", op="gpt")
        self.context = context
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(context, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList([Block(width, heads, dropout) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        if tied:
            self.head.weight = self.tokens.weight

    def forward(self, codes: Any) -> Tensor:
        """Return the scores."""
        length = codes.shape[1]
        if length > self.context:
            raise ShapeError(
                f"expected at most {self.context} characters, got {length}", op="gpt", shapes=[codes.shape]
            )
        x = self.tokens(codes) + self.positions(np.arange(length))  # (B, T, C) + (T, C)
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x)  # (B, T, C)
        scores: Tensor = self.head(self.norm(x))  # (B, T, V)
        return scores


class Block(nn.Module):
    """One layer: attention and a two-layer network, each added to the stream.  (B, T, C) -> (B, T, C).

    The norms stand before the branches ("pre-LN", Radford et al. 2019, section 2.3), so that the stream runs
    from the first layer to the last without one.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.before_attention = nn.LayerNorm(width)
        self.attention = CausalAttention(width, heads, dropout)
        self.before_mlp = nn.LayerNorm(width)
        self.mlp = MLP(width, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return the stream after this layer."""
        x = x + self.attention(self.before_attention(x))
        made: Tensor = x + self.mlp(self.before_mlp(x))
        return made


class CausalAttention(nn.Module):
    """Each position gathers values from itself and those before it.  (B, T, C) -> (B, T, C).

    softmax(Q K^T / sqrt(D) + mask) V in H heads of D = C / H (Vaswani et al. 2017, arXiv 1706.03762, 3.2).
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.p = heads, dropout
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the positions gathered."""
        batch, length, width = x.shape
        split = (batch, length, self.heads, width // self.heads)
        parts = functional.chunk(self.queries_keys_values(x), 3, dim=-1)  # 3 of (B, T, C)
        q, k, v = (part.reshape(split).transpose(1, 2) for part in parts)  # (B, H, T, D)
        y = functional.scaled_dot_product_attention(
            q, k, v, dropout_p=self.p if self.training else 0.0, is_causal=True
        )  # (B, H, T, D)
        y = self.out(y.transpose(1, 2).reshape(batch, length, width))  # (B, T, C)
        made: Tensor = self.dropout(y)
        return made


class MLP(nn.Module):
    """C -> 4 C -> C at each position, with GELU between (its tanh form, as GPT-2)."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.wide = nn.Linear(width, WIDER * width)
        self.gelu = nn.GELU(approximate="tanh")
        self.out = nn.Linear(WIDER * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of the branch."""
        made: Tensor = self.dropout(self.out(self.gelu(self.wide(x))))
        return made


def gpt(
    input_shape: tuple[int, ...],
    num_classes: int,
    *,
    width: int = 64,
    layers: int = 2,
    heads: int = 4,
    dropout: float = 0.0,
    tied: bool = True,
) -> nn.Module:
    """Make a GPT for windows of characters.  (B, T) -> (B, T, V).

    Args:
        input_shape: (T,), the characters of a window.
        num_classes: V, the characters there are.
        width: the length of the vector at each position.
        layers: the number of blocks.
        heads: the number of attention heads; divides the width.
        dropout: the probability with which a value is zeroed in training.
        tied: whether the output's matrix is the table of the embedding.
    """
    (context,) = input_shape
    return GPT(num_classes, context, width=width, layers=layers, heads=heads, dropout=dropout, tied=tied)


def gpt2_(model: nn.Module) -> None:
    """Draw weights as GPT-2: N(0, 0.02^2); what ends a branch N(0, 0.02^2 / 2 L); biases 0, gains 1.

    Each of the 2 L branches adds to the stream, whose variance so stays what one branch would make it
    (Radford et al. 2019, section 2.3: weights of residual layers are scaled by 1 / sqrt(N) for N of them).
    """
    branches = 2 * len(model.blocks)
    for path, parameter in model.named_parameters():
        if path.endswith("out.weight"):
            nn.init.normal_(parameter, std=DEVIATION / math.sqrt(branches))
        elif parameter.ndim > 1:
            nn.init.normal_(parameter, std=DEVIATION)
        elif path.endswith("bias"):
            nn.init.zeros_(parameter)
        else:
            nn.init.ones_(parameter)
