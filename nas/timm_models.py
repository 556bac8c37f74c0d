"""Trained networks as models of timm (PyTorch Image Models).

`timm.create_model` takes `pretrained`, `num_classes` (0: no classifier) and `in_chans`; `drop_rate`, `global_pool`,
`features_only` and the like are not taken. Features, head and classifier have the methods of timm's own models.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from nas.architecture import Architecture
from nas.blocks import BLOCKS
from nas.inputs import InputError, refuse
from nas.network import Network, build
from nas.weights import WEIGHTS_FILE

default_cfgs: dict[str, Any] = {}
"""The pretrained_cfg of each registered model by its name, where timm looks for it."""


class TimmNetwork(Network):
    """A network with the methods that timm's tools call. Its tensors have the names of `Network`'s."""

    def __init__(
        self,
        architecture: Architecture,
        num_classes: int | None = None,
        in_chans: int | None = None,
        img_size: int | tuple[int, int] | None = None,
    ) -> None:
        """With other classes (0: no classifier) or image channels than the architecture's, where they are given.

        timm gives `img_size` to networks of a fixed one. Raises InputError if that is not the architecture's.
        """
        size = architecture.resolution
        if img_size not in (None, size, (size, size)):
            raise refuse("img_size", img_size, f"{size} as architecture {architecture.id} has it")
        head = architecture.stages[-1]
        stages = (*architecture.stages[:-1], replace(head, c=num_classes or head.c))
        changed = replace(architecture, stages=stages, in_channels=in_chans or architecture.in_channels)
        super().__init__(changed)
        self.load_state_dict(build(changed).state_dict())  # initialised as `build` does
        self.num_classes = changed.classes
        self.num_features = self.architecture.layers[-1].in_channels
        self.head_hidden_size = dict(changed.layers[-1].options).get("hidden") or self.num_features
        if num_classes == 0:
            self.reset_classifier(0)

    def forward_features(self, x: Tensor) -> Tensor:
        """(batch, in_channels, h, w) -> (batch, num_features, h', w')."""
        features: Tensor = self.layers[:-1](x)
        return features

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(batch, num_features, h', w') -> logits (batch, classes); with `pre_logits` (batch, head_hidden_size)."""
        head = self._head()
        out: Tensor = head[:-2](x) if pre_logits else head(x)
        return out

    def _head(self) -> nn.Sequential:
        """Pooling, flattening, perhaps a hidden layer, dropout, linear."""
        head = self.layers[-1].layers
        assert isinstance(head, nn.Sequential)
        return head

    def get_classifier(self) -> nn.Module:
        return self._head()[-1]

    def reset_classifier(self, num_classes: int) -> None:
        """A new classifier; with 0 classes none: the output is (batch, head_hidden_size)."""
        self.num_classes = num_classes
        new: nn.Module = nn.Identity()
        if num_classes:
            alone = Architecture((replace(self.architecture.stages[-1], c=num_classes),), 1, self.num_features)
            new = TimmNetwork(alone).get_classifier().to(next(self.parameters()))
        self._head()[-1] = new


def register(folder: Path | str, name: str | None = None) -> str:
    """Makes a retrain folder a model of timm; returns its name, `nas_ID` by default.

    `timm.create_model(name, pretrained=True)` then gives the network with its weights, with another `num_classes` or
    `in_chans` too, and `timm.data.resolve_model_data_config` what its images must be. Lasts as long as the process.
    Raises InputError if timm is not installed, or the folder is not one that `nas retrain` finished.
    """
    try:
        from timm.models import build_model_with_cfg, register_model
    except ImportError:
        raise InputError("timm is not installed: pip install 'mobile-nas[timm]'") from None
    folder = Path(folder)
    architecture = Architecture.load(folder / "architecture.yaml")
    name = name or f"nas_{architecture.id}"
    if not name.isidentifier():
        raise InputError(f"name: {name!r} is no name of a model: letters, digits and _, no digit first")
    default_cfgs[name] = _cfg(folder, architecture)

    def make(pretrained: bool = False, **settings: Any) -> nn.Module:
        model: nn.Module = build_model_with_cfg(TimmNetwork, name, pretrained, architecture=architecture, **settings)
        return model

    entry: Callable[..., nn.Module] = make
    entry.__name__, entry.__module__ = name, __name__
    register_model(entry)
    return name


def _cfg(folder: Path, architecture: Architecture) -> dict[str, Any]:
    """timm's pretrained_cfg: where the weights are and what their images must be."""
    file = folder / "result.json"
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
        mean, std, names = tuple(result["mean"]), tuple(result["std"]), tuple(result["classes"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder}: is no finished retraining: {file.name}: {type(error).__name__}") from None
    size = (architecture.in_channels, architecture.resolution, architecture.resolution)
    modules = list(build(architecture).named_modules())
    first = next(name for name, module in modules if isinstance(module, nn.Conv2d))
    classifier = [name for name, module in modules if isinstance(module, nn.Linear)][-1]
    return {
        "file": str(folder / WEIGHTS_FILE),
        "num_classes": architecture.classes,
        "label_names": names,
        "input_size": size,
        "fixed_input_size": any(BLOCKS[layer.block].one_resolution for layer in architecture.layers),
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "mean": mean,
        "std": std,
        "first_conv": first,
        "classifier": classifier,
        "description": f"architecture {architecture.id}",
    }
