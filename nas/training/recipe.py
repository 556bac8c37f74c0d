"""How to train: a recipe's numbers, its learning rate at each step, and the published recipes by name."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt
from pydantic import AllowInfNan, BeforeValidator, ValidationInfo, field_validator

from nas.inputs import Config


def _number(value: object) -> object:
    """YAML 1.1 reads 5e-4, without a point, as text."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        raise ValueError("a number") from None


_Number = Annotated[float, AllowInfNan(False), BeforeValidator(_number)]


class Recipe(Config):
    """How to train. Written by users in YAML; the defaults suit a batch-normalised network on small images.

    epochs: length of the schedule, in passes over the training images.
    batch_size: images per step. A last batch that is smaller is trained on, unless it is a single image.
    optimiser: sgd (Nesterov momentum), rmsprop (alpha 0.9, eps 0.0316 as torchvision's MobileNetV3 reference; with
        momentum) or adamw (betas 0.9 and 0.999; decoupled weight decay).
    lr: peak learning rate. momentum: of sgd and rmsprop.
    weight_decay: L2 (adamw: decoupled), never on norms and biases (parameters of one dimension or none).
    schedule, decay: lr per step behind the warm-up, see `learning_rate`.
    warmup_epochs: lr rises linearly from 0 during so many epochs (fractions count).
    label_smoothing: share of the target spread evenly over all classes.
    ema: decay of the moving average of weights and BN statistics that is validated and kept, min(ema, (1 + step) /
        (10 + step)) from step 0; 0 is off.
    clip_norm: largest L2 norm of the gradient; 0 is off.
    crop, flip, cutout, trivial_augment: of each image, in pixels of the stored ones, see nas.augment.Augmentation; 0
        and false are off.
    mixup, cutmix: the alpha of the Beta distribution that a batch is mixed by (Zhang et al. 2017; Yun et al. 2019);
        with both, one of them by chance; 0 is off. Training accuracy then counts the label with the greater share.
    stochastic_depth: chance that an image skips the layers beside a shortcut; it grows linearly from 0 in the network's
        first block to this in its last, whether they have a shortcut or not (Huang et al. 2016, section 3). For
        networks whose blocks have an attribute `drop_path`, a float.
    precision: of the forward pass; auto is bfloat16, or else float16, on CUDA, bfloat16 on a CPU that
        multiplies it faster (AMX, AVX-512 BF16) and float32 elsewhere. What a training began with it keeps (float16
        only on a GPU).
    channels_last: memory layout of weights and images.
    """

    epochs: Annotated[int, Ge(1)]
    batch_size: Annotated[int, Ge(2)] = 128
    optimiser: Literal["sgd", "rmsprop", "adamw"] = "sgd"
    lr: Annotated[_Number, Gt(0)] = 0.1
    momentum: Annotated[_Number, Ge(0), Lt(1)] = 0.9
    weight_decay: Annotated[_Number, Ge(0)] = 5e-4
    schedule: Literal["cosine", "exponential", "linear", "constant"] = "cosine"
    decay: Annotated[_Number, Gt(0), Le(1)] = 0.98
    warmup_epochs: Annotated[_Number, Ge(0)] = 0.0
    label_smoothing: Annotated[_Number, Ge(0), Lt(1)] = 0.0
    ema: Annotated[_Number, Ge(0), Lt(1)] = 0.0
    clip_norm: Annotated[_Number, Ge(0)] = 0.0
    crop: Annotated[int, Ge(0)] = 0
    flip: bool = False
    cutout: Annotated[int, Ge(0)] = 0
    trivial_augment: bool = False
    mixup: Annotated[_Number, Ge(0), Le(100)] = 0.0
    cutmix: Annotated[_Number, Ge(0), Le(100)] = 0.0
    stochastic_depth: Annotated[_Number, Ge(0), Lt(1)] = 0.0
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    channels_last: bool = True

    @field_validator("warmup_epochs")
    @classmethod
    def _shorter(cls, value: float, info: ValidationInfo) -> float:
        if value >= info.data.get("epochs", math.inf):
            raise ValueError(f"less than the {info.data['epochs']} epochs")
        return value


PUBLISHED: dict[str, dict[str, str | int | float | bool]] = {
    # MobileNetV2, section 6.1
    "mobilenet_v2": {
        "optimiser": "rmsprop",
        "lr": 0.045,
        "momentum": 0.9,
        "weight_decay": 4e-5,
        "schedule": "exponential",
        "decay": 0.98,
        "batch_size": 96,
    },
    # ShuffleNet v1, section 4: linear from 0.5 to 0, weight decay 4e-5, 1,024 images a step
    "shufflenet_v1": {
        "lr": 0.5,
        "weight_decay": 4e-5,
        "schedule": "linear",
        "batch_size": 1024,
    },
    # kuangliu's pytorch-cifar (200 epochs), whose crop, flip, mean and std the CSE paper has
    "cifar": {
        "lr": 0.1,
        "weight_decay": 5e-4,
        "schedule": "cosine",
        "batch_size": 128,
        "crop": 4,
        "flip": True,
    },
}
"""What else than the defaults a published recipe has; `like: NAME` in a recipe begins with it."""


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """The rate of `step` (from 0, over the whole training) where an epoch has `steps` steps.

    Warm-up over W = warmup_epochs * steps: lr (step + 1) / (W + 1). Behind it, with e the epochs since, counted
    continuously, and E all epochs behind it: cosine lr (1 + cos(pi e / E)) / 2, linear lr (1 - e / E), both 0 where the
    step after the last would be; exponential lr decay^e (MobileNetV2, section 6.1: 0.98 an epoch); constant lr.
    """
    warm = recipe.warmup_epochs * steps
    if step < warm:
        return recipe.lr * (step + 1) / (warm + 1)
    epochs = (step - warm) / steps
    done = epochs / (recipe.epochs - recipe.warmup_epochs)
    factors = {
        "cosine": 0.5 * (1 + math.cos(math.pi * done)),
        "exponential": recipe.decay**epochs,
        "linear": 1 - done,
        "constant": 1.0,
    }
    return float(recipe.lr * factors[recipe.schedule])
