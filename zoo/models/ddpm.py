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
        num_classes: int | None = None,
        conditional: bool = False,
    ) -> None:
        super().__init__()
        inputs = {"in_channels": in_channels, "image_size": image_size}
        for name, value in {**inputs, "blocks": blocks, "heads": heads, "groups": groups}.items():
            if value < 1:
                raise ValueError(f"{name}={value}: must be 1 or more")
        if conditional and num_classes is None:
            raise ValueError("conditional=true: must be false for data without classes")
        if conditional and num_classes is not None and num_classes < 1:
            raise ValueError(f"conditional=true: must be false for data without classes (num_classes={num_classes})")
        if not multipliers or min(multipliers) < 1:
            raise ValueError(f"multipliers={list(multipliers)}: must be a number for each level, 1 or more")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout}: must be at least 0 and below 1")
        if width % 2 or width < 4 or width % groups or width == groups:
            # a group of one channel would take away the embedding, which is the same at all places
            raise ValueError(f"width={width}: must be even, 4 or more, and twice groups={groups} or another multiple")
        widths = [width * multiplier for multiplier in multipliers]
        if any(channels % heads for channels in widths):
            raise ValueError(f"heads={heads}: must divide the widths of the levels, {widths}")
        self.halvings = len(widths) - 1
        self._check_size(image_size)
        sizes = [image_size >> level for level in range(len(widths))]
        if not set(attention) <= set(sizes):
            raise ValueError(f"attention={list(attention)}: must be among the sizes of the levels, {sizes}")
        embedding = 4 * width

        def stage(before: int, channels: int, attends: bool) -> Stage:
            block = ResidualBlock(before, channels, embedding, groups=groups, dropout=dropout)
            return Stage(block, Attention(channels, heads=heads, groups=groups) if attends else nn.Identity())

        self.width, self.num_classes = width, num_classes if conditional else None
        self.time = nn.Sequential(nn.Linear(width, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.condition = nn.Embedding(self.num_classes + 1, embedding) if self.num_classes else None
        self.activation = nn.SiLU()
        self.stem = nn.Conv2d(in_channels, width, 3, padding=1)
        self.contracting = nn.ModuleList()
        before, copied = width, [width]  # channels of the copies, which the expanding path takes from the end
        for level, (channels, size) in enumerate(zip(widths, sizes, strict=True)):
            for _ in range(blocks):
                self.contracting.append(stage(before, channels, size in attention))
                before = channels
                copied.append(channels)
            if level < self.halvings:
                half = nn.Conv2d(channels, channels, 3, stride=2)
                self.contracting.append(nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), half))
                copied.append(channels)
        self.middle = nn.ModuleList(stage(before, before, attends) for attends in (True, False))
        self.expanding = nn.ModuleList()
        for level in reversed(range(len(widths))):
            for _ in range(blocks + 1):
                self.expanding.append(stage(before + copied.pop(), widths[level], sizes[level] in attention))
                before = widths[level]
            if level:
                twice = nn.Upsample(scale_factor=2, mode="nearest")
                self.expanding.append(nn.Sequential(twice, nn.Conv2d(before, before, 3, padding=1)))
        last = nn.Conv2d(width, in_channels, 3, padding=1)
        self.head = nn.Sequential(nn.GroupNorm(groups, width, EPS), nn.SiLU(), last)
        self._initialise()

    def _initialise(self) -> None:
        for name, layer in self.named_modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                ends = name.endswith((".conv2", ".attention.output")) or name == "head.2"
                nn.init.xavier_uniform_(layer.weight, gain=1e-5 if ends else 1.0)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def _check_size(self, size: int) -> None:
        factor = 2**self.halvings
        if size % factor:
            below = size // factor * factor
            near = f"{below} or {below + factor}" if below else factor
            times = f"to be halved {self.halvings} times, once less than there are multipliers"
            raise ValueError(f"image_size={size}: must be a multiple of {factor}, as {near}, {times}")

    def forward(self, noisy: Tensor, time: Tensor, condition: Tensor | None = None) -> Tensor:
        """Map images (B, C, H, W) at times (B,), whole numbers or not, and of classes (B,) int64, to (B, C, H, W).

        Times and classes may lie on the CPU. A conditional network needs classes; `num_classes` is none of them.
        """
        for size in noisy.shape[2:]:
            self._check_size(size)
        embedded = self.time(sinusoids(time.to(noisy.device), self.width).to(noisy.dtype))  # (B, E)
        if self.condition is None:
            if condition is not None:
                raise ValueError(f"condition of {len(condition)} images: must be None without conditional=True")
        elif condition is None:
            raise ValueError(f"condition=None: must be a class for each image; {self.num_classes} for none")
        else:
            embedded = embedded + self.condition(condition.to(noisy.device))
        embedded = self.activation(embedded)
        x = self.stem(noisy)
        copies = [x]
        for layer in self.contracting:
            x = layer(x, embedded) if isinstance(layer, Stage) else layer(x)
            copies.append(x)
        for stage in self.middle:
            x = stage(x, embedded)
        for layer in self.expanding:
            x = layer(torch.cat([x, copies.pop()], 1), embedded) if isinstance(layer, Stage) else layer(x)
        return self.head(x)
