"""TrivialAugment (Mueller and Hutter 2021, arXiv 2103.10158, table 1, "wide"), a batch at once.

torchvision's takes an image at a time: on a CPU half a millisecond each, as long as half of a small network's training.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS = 31

_ROUNDING = 1e-3
"""Added before fractions are cut off, or a whole number could come out one lower."""

_STRENGTHS: dict[str, Tensor | None] = {
    "Identity": None,
    "ShearX": torch.linspace(0.0, 0.99, LEVELS),
    "ShearY": torch.linspace(0.0, 0.99, LEVELS),
    "TranslateX": torch.linspace(0.0, 32.0, LEVELS),
    "TranslateY": torch.linspace(0.0, 32.0, LEVELS),
    "Rotate": torch.linspace(0.0, 135.0, LEVELS),
    "Brightness": torch.linspace(0.0, 0.99, LEVELS),
    "Color": torch.linspace(0.0, 0.99, LEVELS),
    "Contrast": torch.linspace(0.0, 0.99, LEVELS),
    "Sharpness": torch.linspace(0.0, 0.99, LEVELS),
    "Posterize": (8 - torch.arange(LEVELS) / ((LEVELS - 1) / 6)).round(),
    "Solarize": torch.linspace(1.0, 0.0, LEVELS),
    "AutoContrast": None,
    "Equalize": None,
}
"""The strengths of each operation, as torchvision has them; those from 0 on are of either sign."""


def trivial_augment(pixels: Tensor) -> Tensor:
    """uint8 (batch, h, w, 1 or 3), each image by one operation at one strength, drawn from torch's CPU generator."""
    count, names = len(pixels), list(_STRENGTHS)
    which, levels = torch.randint(len(names), (count,)), torch.randint(LEVELS, (count,))
    signs = 1.0 - 2.0 * (torch.rand(count) <= 0.5)
    out = pixels.clone()
    for number, name in enumerate(names[1:], 1):
        where = (which == number).nonzero()[:, 0]
        if len(where):
            strengths = strengths_of(name, levels[where], signs[where]).to(pixels.device)
            where = where.to(pixels.device)
            out[where] = changed(name, pixels[where], strengths)
    return out


def strengths_of(name: str, levels: Tensor, signs: Tensor) -> Tensor:
    """(batch,): what `levels` (0 to 30) and `signs` (1 or -1) mean for an operation; 0 where it has no strength."""
    strengths = _STRENGTHS[name]
    if strengths is None:
        return torch.zeros(len(levels))
    return strengths[levels] * (signs if strengths[0] == 0 else 1.0)


def changed(name: str, pixels: Tensor, strengths: Tensor) -> Tensor:
    """uint8 (batch, h, w, channels), each image changed by the operation `name` at its own of `strengths` (batch,)."""
    if name in _MATRICES:
        return _moved(pixels, _MATRICES[name](strengths, pixels))
    if name in _OTHERS:
        x = pixels.float()
        away = (x - _OTHERS[name](x)).mul_(strengths.view(-1, 1, 1, 1))
        return x.add_(away).add_(_ROUNDING).clamp_(0, 255).to(torch.uint8)
    if name == "Posterize":
        return pixels & (255 << (8 - strengths.to(torch.int32))).to(torch.uint8).view(-1, 1, 1, 1)
    if name == "Solarize":
        return torch.where(pixels >= (255 * strengths).view(-1, 1, 1, 1), 255 - pixels, pixels)
    from torchvision.transforms.v2 import functional

    operation = {"AutoContrast": functional.autocontrast, "Equalize": functional.equalize}[name]
    return operation(pixels.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)  # type: ignore[no-any-return]


def _moved(pixels: Tensor, matrices: tuple[Tensor | float, ...]) -> Tensor:
    """Each pixel from where its image's matrix (a, b, c, d, e, f) says: a x + b y + c, d x + e y + f from the centre.

    The nearest pixel, 0 outside.
    """
    count, height, width, channels = pixels.shape
    a, b, c, d, e, f = (m.view(-1, 1, 1) if isinstance(m, Tensor) else m for m in matrices)
    x = torch.arange(width, device=pixels.device) - (width - 1) / 2
    y = (torch.arange(height, device=pixels.device) - (height - 1) / 2)[:, None]
    columns = (a * x + b * y + c + (width - 1) / 2).round().long()
    rows = (d * x + e * y + f + (height - 1) / 2).round().long()
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    index = (rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)).expand(count, height, width)
    flat = index.reshape(count, -1, 1).expand(-1, -1, channels)
    return pixels.view(count, -1, channels).gather(1, flat).view(pixels.shape) * inside[..., None]


_MATRICES: dict[str, Callable[[Tensor, Tensor], tuple[Tensor | float, ...]]] = {
    # From the upper left corner, as torchvision shears.
    "ShearX": lambda s, x: (1.0, s, s * x.shape[1] / 2, 0.0, 1.0, 0.0),
    "ShearY": lambda s, x: (1.0, 0.0, 0.0, s, 1.0, s * x.shape[2] / 2),
    "TranslateX": lambda s, x: (1.0, 0.0, -s.trunc(), 0.0, 1.0, 0.0),
    "TranslateY": lambda s, x: (1.0, 0.0, 0.0, 0.0, 1.0, -s.trunc()),
    "Rotate": lambda s, x: (s.deg2rad().cos(), -s.deg2rad().sin(), 0.0, s.deg2rad().sin(), s.deg2rad().cos(), 0.0),
}


def _grey(x: Tensor) -> Tensor:
    """(batch, h, w, 1)"""
    if x.shape[3] == 1:
        return x
    return (x @ torch.tensor([0.2989, 0.587, 0.114], device=x.device)).floor()[..., None]


def _blurred(x: Tensor) -> Tensor:
    """By 3 x 3 pixels, the middle one five times; the border as it is."""
    weights = torch.full((x.shape[3], 1, 3, 3), 1 / 13, device=x.device)
    weights[:, :, 1, 1] = 5 / 13
    y = x.clone()
    if min(x.shape[1:3]) > 2:
        inner = F.conv2d(x.permute(0, 3, 1, 2), weights, groups=x.shape[3]).round()
        y[:, 1:-1, 1:-1] = inner.permute(0, 2, 3, 1)
    return y


_OTHERS: dict[str, Callable[[Tensor], Tensor]] = {
    "Brightness": torch.zeros_like,
    "Color": _grey,
    "Contrast": lambda x: _grey(x).mean((1, 2, 3), keepdim=True),
    "Sharpness": _blurred,
}
"""What an image is moved away from: by no strength not at all, by -1 there."""
