"""Residual networks for small images: He, Zhang, Ren and Sun 2016, arXiv 1512.03385, section 4.2."""

from __future__ import annotations

from typing import Any

from minimp import functional, nn
from minimp.errors import SettingError
from minimp.tensors import Tensor

__all__ = ["Mean", "ResNet", "Sum", "resnet"]

STAGES = 3


class ResNet(nn.Module):
    """A convolution, three stages of residual blocks, the mean over all places, a linear layer.

    (N, C, H, W) -> (N, classes).  Stage k has 2^k times the channels of the first; all but the first begin by
    halving height and width.

    Args:
        channels: C, of the images.
        classes: the number of scores.
        depth: 6 n + 2 layers with weights: n blocks of two convolutions a stage.
        width: channels of the first stage.

    Raises:
        SettingError: a depth that is not 6 n + 2 with n of at least 1, or a width below 1.
    """

    def __init__(self, channels: int, classes: int, *, depth: int, width: int) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 2, 2 * STAGES)
        if rest or blocks < 1:
            raise SettingError(f"depth must be 8, 14, 20, ... (6 n + 2), got {depth}", op="resnet")
        self.conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        row: list[nn.Module] = []
        inner = width
        for stage in range(STAGES):
            for number in range(blocks):
                outer = width * 2**stage
                row.append(BasicBlock(inner, outer, stride=2 if stage and not number else 1))
                inner = outer
        self.blocks = nn.Sequential(*row)
        self.mean = Mean()
        self.head = nn.Linear(inner, classes)

    def forward(self, x: Any) -> Tensor:
        """Return the scores."""
        y = self.relu(self.norm(self.conv(x)))  # (N, width, H, W)
        y = self.blocks(y)  # (N, 4 width, H/4, W/4)
        scores: Tensor = self.head(self.mean(y))  # (N, 4 width) -> (N, classes)
        return scores


class BasicBlock(nn.Module):
    """y = relu(x' + norm(conv(relu(norm(conv(x))))));  (N, C, H, W) -> (N, C', H/stride, W/stride).

    x' is x itself where the shape stays, else a convolution 1 x 1 with its norm ("option B" of the paper).
    """

    def __init__(self, channels: int, outer: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, outer, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outer)
        self.relu = nn.ReLU()
        self.sum = Sum()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != outer:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, outer, 1, stride=stride, bias=False), nn.BatchNorm2d(outer)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of both ways, rectified."""
        y = self.relu(self.norm1(self.conv1(x)))
        made: Tensor = self.sum(self.norm2(self.conv2(y)), self.shortcut(x))
        return made


class Sum(nn.Module):
    """max(a + b, 0), the end of a block: a module, so that what reads a model module by module finds it."""

    relu = True

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the sum, rectified."""
        made: Tensor = functional.relu(a + b)
        return made


class Mean(nn.Module):
    """The mean over all places, a module for the same reason.  (N, C, H, W) -> (N, C)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the means."""
        return x.mean(dim=(2, 3))


def resnet(input_shape: tuple[int, ...], num_classes: int, *, depth: int = 8, width: int = 16) -> nn.Module:
    """Make a ResNet for images.  (N, C, H, W) -> (N, num_classes).

    Args:
        input_shape: (C, H, W) of one image, of any size.
        num_classes: the number of scores.
        depth: layers with weights: 8, 14, 20, ... (6 n + 2); the paper's go from 20 to 110.
        width: channels of the first stage.
    """
    return ResNet(input_shape[0], num_classes, depth=depth, width=width)
