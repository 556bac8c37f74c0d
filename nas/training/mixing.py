"""Labels to targets: mixup and cutmix of whole batches, through torchvision."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from nas.training.recipe import Recipe

Mixing = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def mixing(recipe: Recipe, count: Callable[[], int]) -> Mixing:
    """From images and labels (batch,) int64 to images and targets: those labels, or shares (batch, classes).

    `count` says how many classes there are. Draws from torch's global generator.
    """
    if not recipe.mixup and not recipe.cutmix:
        return lambda images, labels: (images, labels)
    from torchvision.transforms import v2

    classes = count()
    kinds = [v2.MixUp(alpha=recipe.mixup, num_classes=classes)] if recipe.mixup else []
    kinds += [v2.CutMix(alpha=recipe.cutmix, num_classes=classes)] if recipe.cutmix else []
    mixed: Mixing = v2.RandomChoice(kinds)
    return mixed
