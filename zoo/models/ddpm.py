"""DDPM's network: a U-Net of residual blocks that is told the time and says what noise is in an image.

J. Ho, A. Jain, P. Abbeel, "Denoising diffusion probabilistic models", 2020, 2006.11239, appendix B, as in the authors'
code. `DDPMUNet()` is their network for CIFAR-10: 35,746,307 parameters. The network knows no noise schedule, and does
not care which of ε, x₀ or v it is taught.

Where the paper is silent the code decides:
- The embedding of the time is [sin | cos] with denominators of half − 1, not interleaved as in Transformers.
- Strided convolutions pad on the right and below only, as TensorFlow does. GroupNorm has ε = 1e-6.
- There is attention behind each residual block of the levels in `attention`, and one in the middle.
- Glorot uniform weights, biases at 0. What ends a branch, and the last convolution, has the variance 1e-10 times that:
  the network starts as (almost) 0, its branches as the identity.

Deliberate deviations:
- Swish of the embedding is computed once, instead of the same again in each block.
- `conditional`: the embedding of a class is added to that of the time (P. Dhariwal, A. Nichol 2021, 2105.05233). Class
  `num_classes` means that no class is told, for guidance without a classifier (J. Ho, T. Salimans 2022, 2207.12598).
- `heads` (Dhariwal & Nichol) is 1 in the paper.

Shapes: B batch, C channels, H W size, T = H·W places, E width of the embedding, K classes.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

EPS = 1e-6


def sinusoids(time: Tensor, width: int) -> Tensor:
    """Times (B,) as (B, width): sines, then cosines, of frequencies from 1 down to 1/10,000. In single precision."""
    half = width // 2
    places = torch.arange(half, dtype=torch.float32, device=time.device)
    frequencies = torch.exp(-math.log(10_000) * places / (half - 1))
    angles = time.float()[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], 1)


class ResidualBlock(nn.Module):
    """Two normalised convolutions, the embedding added between them: (B, C, H, W) → (B, out_channels, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, embedding: int, *, groups: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, in_channels, EPS)
        self.activation1 = nn.SiLU()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.embedding = nn.Linear(embedding, out_channels)
        self.norm2 = nn.GroupNorm(groups, out_channels, EPS)
        self.activation2 = nn.SiLU()
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        same = in_channels == out_channels
        self.shortcut = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, input: Tensor, embedded: Tensor) -> Tensor:
        x = self.conv1(self.activation1(self.norm1(input)))
        x = x + self.embedding(embedded)[:, :, None, None]
        x = self.conv2(self.dropout(self.activation2(self.norm2(x))))
        return self.shortcut(input) + x


class Attention(nn.Module):
    """Every place looks at all places: (B, C, H, W) → (B, C, H, W), added to the input."""

    def __init__(self, channels: int, *, heads: int, groups: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(groups, channels, EPS)
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.output = nn.Linear(channels, channels)

    def forward(self, input: Tensor) -> Tensor:
        x = self.norm(input).flatten(2).transpose(1, 2)  # (B, T, C)
        projected = (self.query(x), self.key(x), self.value(x))
        q, k, v = (y.unflatten(2, (self.heads, -1)).transpose(1, 2) for y in projected)  # (B, heads, T, C / heads)
        # written out: the backward pass of PyTorch's fused function took 30 times as long on a CPU, 24 ms at 7×7
        weights = (q / math.sqrt(q.shape[-1]) @ k.transpose(2, 3)).softmax(-1)  # (B, heads, T, T)
        x = (weights @ v).transpose(1, 2).flatten(2)
        return input + self.output(x).transpose(1, 2).unflatten(2, input.shape[2:])


class Stage(nn.Module):
    """A residual block, with attention behind it at some sizes."""

    def __init__(self, block: ResidualBlock, attention: nn.Module) -> None:
        super().__init__()
        self.block, self.attention = block, attention

    def forward(self, input: Tensor, embedded: Tensor) -> Tensor:
        return self.attention(self.block(input, embedded))


class DDPMUNet(nn.Module):
    """`blocks` stages a level on the way down, one more on the way up; level i has `width`·`multipliers[i]` channels.

    Each level after the first is half as large. `attention` lists the sizes of the levels that have it. With
    `conditional` the network is told one of `num_classes` classes, or none; without, `network.num_classes` is None.

    Raises ValueError for numbers out of range, and for images that cannot be halved that often.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        image_size: int = 32,
        width: int = 128,
        multipliers: Sequence[int] = (1, 2, 2, 2),
        blocks: int = 2,
        attention: Sequence[int] = (16,),
        heads: int = 1,
        groups: int = 32,
        dropout: float = 0.1,
        num_classes: int = 10,
        conditional: bool = False,
    ) -> None:
        super().__init__()
        numbers = {"in_channels": in_channels, "image_size": image_size, "width": width, "blocks": blocks}
        for name, value in {**numbers, "heads": heads, "groups": groups, "num_classes": num_classes}.items():
            if value < 1:
                raise ValueError(f"{name}={value}: must be 1 or more")
        if not multipliers or min(multipliers) < 1:
            raise ValueError(f"multipliers={list(multipliers)}: must be one number for each level, 1 or more")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout}: must be at least 0 and below 1")
        if width % 2 or width < 4 or width % groups or width == groups:
            # one channel a group would take away the embedding, which adds the same at all places
            raise ValueError(f"width={width}: must be even, 4 or more, and groups={groups} times 2 or more")
        widths = [width * multiplier for multiplier in multipliers]
        if any(channels % heads for channels in widths):
            raise ValueError(f"heads={heads}: must divide the widths of the levels, {widths}")
        self.factor = 2 ** (len(widths) - 1)
        self._check_size(image_size)
        sizes = [image_size // 2**level for level in range(len(widths))]
        if not set(attention) <= set(sizes):
            raise ValueError(f"attention={list(attention)}: must be among the sizes of the levels, {sizes}")
        self.width, self.num_classes = width, num_classes if conditional else None
        embedding = 4 * width

        def residual(before: int, after: int) -> ResidualBlock:
            return ResidualBlock(before, after, embedding, groups=groups, dropout=dropout)

        def stage(before: int, level: int) -> Stage:
            attends = sizes[level] in attention
            attending = Attention(widths[level], heads=heads, groups=groups) if attends else nn.Identity()
            return Stage(residual(before, widths[level]), attending)

        self.time = nn.Sequential(nn.Linear(width, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.condition = nn.Embedding(num_classes + 1, embedding) if conditional else None
        self.activation = nn.SiLU()
        self.stem = nn.Conv2d(in_channels, width, 3, padding=1)
        self.contracting, self.downsampling = nn.ModuleList(), nn.ModuleList()
        copied = [width]  # channels of what the expanding path will take, the last one first
        for level, channels in enumerate(widths):
            befores = [copied[-1], *[channels] * (blocks - 1)]
            self.contracting.append(nn.ModuleList(stage(before, level) for before in befores))
            copied += [channels] * blocks
            if level < len(widths) - 1:
                half = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(channels, channels, 3, stride=2))
                self.downsampling.append(half)
                copied.append(channels)
        deepest = widths[-1]
        self.middle = nn.ModuleList(
            [
                Stage(residual(deepest, deepest), Attention(deepest, heads=heads, groups=groups)),
                Stage(residual(deepest, deepest), nn.Identity()),
            ]
        )
        self.expanding, self.upsampling = nn.ModuleList(), nn.ModuleList()  # deepest level first
        before = deepest
        for level in reversed(range(len(widths))):
            stages = nn.ModuleList()
            for _ in range(blocks + 1):
                stages.append(stage(before + copied.pop(), level))
                before = widths[level]
            self.expanding.append(stages)
            if level:
                twice = nn.Upsample(scale_factor=2, mode="nearest")
                self.upsampling.append(nn.Sequential(twice, nn.Conv2d(before, before, 3, padding=1)))
        self.head = nn.Sequential(
            nn.GroupNorm(groups, width, EPS), nn.SiLU(), nn.Conv2d(width, in_channels, 3, padding=1)
        )
        self._initialise()

    def _initialise(self) -> None:
        for name, layer in self.named_modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                ends = name.endswith((".conv2", ".attention.output")) or name == "head.2"
                nn.init.xavier_uniform_(layer.weight, gain=1e-5 if ends else 1.0)
                nn.init.zeros_(layer.bias)

    def _check_size(self, size: int) -> None:
        if size % self.factor:
            below = size // self.factor * self.factor
            near = f"{below} or {below + self.factor}" if below else f"{self.factor}"
            raise ValueError(
                f"image_size={size}: must be a multiple of {self.factor}, as {near}, "
                "to be halved once for each of the multipliers after the first"
            )

    def forward(self, noisy: Tensor, time: Tensor, condition: Tensor | None = None) -> Tensor:
        """Map images (B, C, H, W) at times (B,), whole numbers or not, and of classes (B,) int64, to (B, C, H, W).

        Times and classes may be on the CPU. A conditional network needs classes: `num_classes` is none of them.
        """
        for size in noisy.shape[2:]:
            self._check_size(size)
        embedded = self.time(sinusoids(time.to(noisy.device), self.width).to(noisy.dtype))  # (B, E)
        if (condition is None) != (self.condition is None):
            wanted = "None" if self.condition is None else f"a class for each image; {self.num_classes} for none"
            raise ValueError(f"condition={condition}: must be {wanted}")
        if self.condition is not None and condition is not None:
            embedded = embedded + self.condition(condition.to(noisy.device))
        embedded = self.activation(embedded)
        x = self.stem(noisy)
        copies = [x]
        for level, stages in enumerate(self.contracting):
            for stage in stages:
                x = stage(x, embedded)
                copies.append(x)
            if level < len(self.downsampling):
                x = self.downsampling[level](x)
                copies.append(x)
        for stage in self.middle:
            x = stage(x, embedded)
        for level, stages in enumerate(self.expanding):
            for stage in stages:
                x = stage(torch.cat([x, copies.pop()], 1), embedded)
            if level < len(self.upsampling):
                x = self.upsampling[level](x)
        return self.head(x)


ddpm = DDPMUNet
