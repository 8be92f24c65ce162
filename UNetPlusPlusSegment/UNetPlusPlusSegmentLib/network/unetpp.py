"""The networks: UNet++ (Zhou et al. 2018) as a grid of nodes, and on the same grid UNet+, U-Net and wide U-Net. torch only."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PAPER_FILTERS = (32, 64, 128, 256, 512)
WIDE_FILTERS = (35, 70, 140, 280, 560)

SKIPS = ("dense", "neighbour", "long")


class NodeGrid(nn.Module):
    """A triangle of nodes X[i][j], i levels down the encoder and j steps along the skip path (Zhou et al. 2018, eq. 1).

    ``X[i][0] = H(down(X[i-1][0]))`` and ``X[i][j] = H([skips, U(X[i+1][j-1])])``, where `H` is two 3×3 convolutions, each
    with (batch norm and) ReLU, `down` a 2×2 max pooling and `U` a 2×2 transposed convolution.

    Args:
        in_channels: Channels of the image.
        out_channels: Channels of each head: one per label.
        filters: Channels of the nodes of level 0, 1, …; the depth is their number minus one.
        up_filters: Channels that `U` passes to level 0, 1, …; the same as `filters` unless given.
        heads: Steps j of the nodes X[0][j] with an output (a 1×1 convolution): 1…depth for deep supervision, only the
            last without it.
        skips: Which nodes of its own level X[i][j] sees: "dense" X[i][0…j-1] (UNet++), "neighbour" X[i][j-1] (UNet+),
            "long" X[i][0], where only the nodes with i + j = depth exist (U-Net).
        batch_norm: Normalise after each 3×3 convolution. `fold_batch_norm` removes it again.

    Raises:
        ValueError: The arguments do not describe a network.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        filters: Sequence[int] = PAPER_FILTERS,
        up_filters: Sequence[int] | None = None,
        heads: Sequence[int] | None = None,
        skips: str = "dense",
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        depth = len(filters) - 1
        heads = (depth,) if heads is None else tuple(sorted(heads))
        up_filters = tuple(filters[:-1]) if up_filters is None else tuple(up_filters)
        _check_arguments(filters, up_filters, heads, skips)
        self.depth, self.heads, self.skips = depth, heads, skips

        channels = {(i, 0): filters[i] for i in range(depth + 1)}
        self.nodes = nn.ModuleDict({"0_0": _node(in_channels, filters[0], batch_norm)})
        self.ups = nn.ModuleDict()
        for i in range(1, depth + 1):
            self.nodes[f"{i}_0"] = _node(filters[i - 1], filters[i], batch_norm)
        for i, j in self._decoder():
            self.ups[f"{i}_{j}"] = nn.ConvTranspose2d(channels[i + 1, j - 1], up_filters[i], 2, stride=2)
            seen = sum(channels[node] for node in self._skips_of(i, j))
            self.nodes[f"{i}_{j}"] = _node(seen + up_filters[i], filters[i], batch_norm)
            channels[i, j] = filters[i]
        self.outputs = nn.ModuleDict({str(j): nn.Conv2d(filters[0], out_channels, 1) for j in heads})
        self.apply(_he_normal)

    def _decoder(self) -> list[tuple[int, int]]:
        """The nodes (i, j) with j ≥ 1 that exist, each after the nodes that it needs."""
        diagonals = [self.depth] if self.skips == "long" else range(1, self.depth + 1)
        return [(diagonal - j, j) for diagonal in diagonals for j in range(1, diagonal + 1)]

    def _skips_of(self, i: int, j: int) -> list[tuple[int, int]]:
        first = {"dense": range(j), "neighbour": range(j - 1, j), "long": range(1)}[self.skips]
        return [(i, k) for k in first]

    def forward(self, image: Tensor) -> list[Tensor]:
        """Compute the logits of every head, shallowest first.

        Args:
            image: (batch, in_channels, height, width), of any height and width: its edge pixels are repeated up to a
                multiple of 2^depth, and the result is cropped back.

        Returns:
            For each of `heads`, logits (batch, out_channels, height, width).
        """
        height, width = image.shape[-2:]
        step = 2**self.depth
        below, right = -height % step, -width % step
        if below or right:
            image = F.pad(image, (0, right, 0, below), mode="replicate")
        x = {(0, 0): self.nodes["0_0"](image)}
        for i in range(1, self.depth + 1):
            x[i, 0] = self.nodes[f"{i}_0"](F.max_pool2d(x[i - 1, 0], 2))
        for i, j in self._decoder():
            up = self.ups[f"{i}_{j}"](x[i + 1, j - 1])
            x[i, j] = self.nodes[f"{i}_{j}"](torch.cat([*(x[node] for node in self._skips_of(i, j)), up], dim=1))
        return [self.outputs[str(j)](x[0, j])[..., :height, :width] for j in self.heads]

    def pruned(self, level: int, all_heads: bool = False) -> NodeGrid:
        """Return a copy that ends at X[0][level], without the nodes that this does not need (the paper's L1…L4).

        Args:
            level: 1…depth; must carry a head.
            all_heads: Keep the shallower heads too, to average them.

        Raises:
            ValueError: There is no head at `level`, or the grid is a U-Net.
        """
        if level not in self.heads:
            raise ValueError(f"Cannot prune to level {level}: this network has heads at {self.heads}.")
        small = copy.deepcopy(self)
        small.depth = level
        small.heads = tuple(j for j in self.heads if j <= level) if all_heads else (level,)
        for grid in (small.nodes, small.ups):
            for key in [k for k in grid if sum(map(int, k.split("_"))) > level]:
                del grid[key]
        for key in [k for k in small.outputs if int(k) not in small.heads]:
            del small.outputs[key]
        return small


def _check_arguments(filters: Sequence[int], up_filters: Sequence[int], heads: tuple[int, ...], skips: str) -> None:
    depth = len(filters) - 1
    if depth < 1 or len(up_filters) < depth:
        raise ValueError(
            f"A network needs at least two levels, and up_filters for each level but the last; got filters {filters}."
        )
    if skips not in SKIPS:
        raise ValueError(f"skips must be one of {', '.join(SKIPS)}, got {skips!r}.")
    allowed = {depth} if skips == "long" else set(range(1, depth + 1))
    if not heads or not set(heads) <= allowed:
        raise ValueError(f"heads must be among {sorted(allowed)} for depth {depth} and skips {skips!r}, got {heads}.")


def unet(**options) -> NodeGrid:
    """U-Net of 7.76 M parameters: the encoder and one path up, each level seeing its encoder node."""
    return NodeGrid(skips="long", **options)


def wide_unet(filters: Sequence[int] = WIDE_FILTERS, **options) -> NodeGrid:
    """The paper's wide U-Net (9.13 M): 35…560 filters; its transposed convolutions have 32…256, to match the parameter count."""
    return NodeGrid(filters=filters, up_filters=PAPER_FILTERS[:-1], skips="long", **options)


def unet_plus(**options) -> NodeGrid:
    """UNet+ (8.73 M), the paper's ablation: every node sees its left neighbour only."""
    return NodeGrid(skips="neighbour", **options)


def unetpp(**options) -> NodeGrid:
    """UNet++ without deep supervision (9.04 M): one head on X[0][depth]."""
    return NodeGrid(**options)


def unetpp_ds(filters: Sequence[int] = PAPER_FILTERS, **options) -> NodeGrid:
    """UNet++ with deep supervision: a head on every X[0][j], j = 1…depth."""
    return NodeGrid(filters=filters, heads=range(1, len(filters)), **options)


ARCHITECTURES = {
    "unet": unet, "wide_unet": wide_unet, "unet_plus": unet_plus, "unetpp": unetpp, "unetpp_ds": unetpp_ds,
}  # fmt: skip


def build_network(architecture: str, **arguments) -> NodeGrid:
    """Build one of `ARCHITECTURES` by name.

    Raises:
        ValueError: There is no such architecture, or the arguments do not describe a network.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(f"There is no architecture {architecture!r}; choose one of {', '.join(ARCHITECTURES)}.")
    return ARCHITECTURES[architecture](**arguments)


def fold_batch_norm(network: NodeGrid) -> NodeGrid:
    """Return a copy in evaluation mode with batch norm folded into the convolutions: the same result in fewer steps."""
    folded = copy.deepcopy(network).eval()
    for key, node in folded.nodes.items():
        merged: list[nn.Module] = []
        for layer in node.children():
            before = merged[-1] if merged else None
            if isinstance(layer, nn.BatchNorm2d) and isinstance(before, nn.Conv2d):
                merged[-1] = nn.utils.fuse_conv_bn_eval(before, layer)
            else:
                merged.append(layer)
        folded.nodes[key] = nn.Sequential(*merged)
    return folded


def _node(in_channels: int, out_channels: int, batch_norm: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (in_channels, out_channels):
        layers.append(nn.Conv2d(channels, out_channels, 3, padding=1))
        layers += [nn.BatchNorm2d(out_channels)] if batch_norm else []
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def _he_normal(layer: nn.Module) -> None:
    """He initialisation, as in the official code; biases start at zero."""
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
