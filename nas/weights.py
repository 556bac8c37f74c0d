"""Weights to start from: those of torchvision's MobileNets, or of a network that was retrained before."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from torch import Tensor, nn

from nas.inputs import InputError, is_out_of_memory, refuse
from nas.network import Network

IMAGENET = "imagenet"
WEIGHTS_FILE = "weights.safetensors"
WEIGHTS_RULE = f"{IMAGENET}, a .pth or .safetensors file, or a folder that nas retrain made"
MAX_WEIGHTS_BYTES = 2**30
EPSILON = 1e-5
"""Of batch normalisation, in all blocks."""
Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Start:
    """What a network was given: the source's name, the SHA-256 of its file (None for tensors in memory).

    `new` names the tensors of the network that kept their values: the classifier's, or none.
    """

    source: str
    sha256: str | None
    new: tuple[str, ...]


def load_weights(network: Network, weights: nn.Module | Tensors | Path | str) -> Start:
    """Gives `network` the values of `weights`; where the class count differs, the classifier keeps its own.

    Those are of the seed that `build` was given. The resolution makes no difference but to blocks whose
    tensors follow from it, such as CSE (`one_resolution`).

    `weights` is a torchvision `mobilenet_v2` of any width_mult, `mobilenet_v3_large` or `mobilenet_v3_small`, its state
    dict, a .pth or .safetensors file of that, a folder that `nas retrain` made of the same architecture, or "imagenet":
    torchvision's own for that network (width 1.0, 1,000 classes; 10 to 21 MB). Only that word downloads anything, once,
    into torch's hub folder. Files are read without pickle's code.

    Only what has a tensor is compared: a network with another activation, stride or place of the shortcut takes the
    weights and computes something else. torchvision's own want RGB pixels / 255, minus (0.485, 0.456, 0.406), over
    (0.229, 0.224, 0.225); `nas retrain` goes on from them with the mean and std of its own training images, to which
    batch normalisation adapts.

    Raises InputError, the network unchanged, for the first tensor that is missing, not known, of another shape or not
    finite, and for what cannot be read or downloaded.
    """
    pretrained = None
    if weights == IMAGENET:
        pretrained = _nearest(network)
        _matched(network, pretrained.tensors, IMAGENET)  # says what does not fit before anything is downloaded
    source, sha256, tensors = _read(weights, pretrained)
    for name, tensor in tensors.items():
        _check_tensor(name, tensor, source)
    values = _matched(network, tensors, source)
    own = network.state_dict()
    network.load_state_dict({**own, **values})
    return Start(source, sha256, tuple(name for name in own if name not in values))


def read_tensors(file: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors of a .safetensors file, or of one that torch.save made of a state dict, and the SHA-256 of its bytes.

    Raises InputError if it cannot be read, is damaged, or holds anything else.
    """
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_WEIGHTS_BYTES + 1)
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from None
    if len(content) > MAX_WEIGHTS_BYTES:
        raise InputError(f"{file}: is too large: it must have at most {MAX_WEIGHTS_BYTES} bytes")
    sha256 = hashlib.sha256(content).hexdigest()
    if file.suffix == ".safetensors":
        try:
            return parse_safetensors(content), sha256
        except SafetensorError as error:
            raise InputError(f"{file}: is damaged or no safetensors file: {error}") from None
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # foreign bytes raise whatever the unpickler makes of them
        if is_out_of_memory(error):
            raise
        reason = type(error).__name__
        raise InputError(f"{file}: is damaged, or is not what torch.save makes of a state dict ({reason})") from None
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise InputError(f"{file}: holds no state dict, which maps names to tensors")
    return state, sha256


def _read(weights: nn.Module | Tensors | Path | str, pretrained: Layout | None) -> tuple[str, str | None, Tensors]:
    """(name of the source, SHA-256 of its file, tensors); `pretrained`: whose ImageNet weights are meant."""
    if isinstance(weights, nn.Module):
        return type(weights).__name__, None, weights.state_dict()
    if isinstance(weights, Mapping):
        return "state dict", None, weights
    if pretrained:
        file = _imagenet(pretrained)
        tensors, sha256 = read_tensors(file)
        prefix = file.stem.rpartition("-")[2]
        if not sha256.startswith(prefix):
            raise InputError(f"{file}: is damaged: its SHA-256 does not begin with {prefix}; delete it")
        return IMAGENET, sha256, tensors
    file = Path(weights, WEIGHTS_FILE) if os.path.isdir(weights) else Path(weights)
    if not os.path.isfile(file):
        raise refuse("weights", str(weights), WEIGHTS_RULE)
    tensors, sha256 = read_tensors(file)
    return str(weights), sha256, tensors


def _imagenet(layout: Layout) -> Path:
    """The file of torchvision's ImageNet weights in torch's hub folder; downloads it if it is not there."""
    from torchvision.models import get_weight

    weights = get_weight(layout.imagenet)
    file = Path(torch.hub.get_dir(), "checkpoints", weights.url.rpartition("/")[2])
    if not file.exists():
        try:
            with contextlib.redirect_stdout(sys.stderr):  # torch says there what it downloads
                weights.get_state_dict(progress=False, check_hash=True, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{IMAGENET}: {weights.url} cannot be downloaded to {file}: {reason}") from None
    return file


@dataclass(frozen=True)
class Layout:
    """A network of torchvision's whose tensors may come: its name there, the name of its ImageNet weights, and the
    epsilon of its batch normalisation. Its tensors are in the order in which `Network` has them."""

    model: str
    imagenet: str
    epsilon: float = EPSILON

    @cached_property
    def tensors(self) -> Tensors:
        """By name, without values. The names are those of all widths."""
        from torchvision.models import get_model

        with torch.device("meta"):
            state: Tensors = get_model(self.model).state_dict()
        return state


# Another source is a line here.
LAYOUTS = (
    Layout("mobilenet_v2", "MobileNet_V2_Weights.IMAGENET1K_V2"),
    Layout("mobilenet_v3_large", "MobileNet_V3_Large_Weights.IMAGENET1K_V2", 1e-3),
    Layout("mobilenet_v3_small", "MobileNet_V3_Small_Weights.IMAGENET1K_V1", 1e-3),
)


def _nearest(network: Network) -> Layout:
    """That which has most shapes in common with the network, layer by layer."""
    own = [x.shape for x in network.state_dict().values()]

    def alike(layout: Layout) -> int:
        return sum(x.shape == shape for x, shape in zip(layout.tensors.values(), own, strict=False))

    return max(LAYOUTS, key=alike)


def _matched(network: Network, tensors: Tensors, source: str) -> dict[str, Tensor]:
    """The new value of each of the network's tensors, by its name there; none for a classifier of other classes."""
    own = network.state_dict()
    head = list(own)[-1].rpartition(".")[0] + "."  # the linear layer that ends both
    values, classes = {}, None
    names, epsilon = _layout(own, tensors, source)
    for name, theirs in zip(own, names, strict=False):
        layer = name.split(".")[1]
        place = f"layers[{layer}] ({network.architecture.layers[int(layer)].block})"
        wanted = list(own[name].shape)
        found = list(tensors[theirs].shape)
        if name.startswith(head) and len(found) == len(wanted):
            classes = found[0] if classes is None else classes
            wanted[0] = classes
        if _kind(name) != _kind(theirs) or found != wanted:
            wants = f"{_kind(name)} of shape {wanted}"
            raise InputError(f"{source}: {theirs} has shape {found}, but must be the {wants} of the network's {place}")
        if wanted == list(own[name].shape):
            values[name] = tensors[theirs]
            if _kind(name) == "running_var" and epsilon != EPSILON:  # var + epsilon is what it divides by
                values[name] = tensors[theirs].float() + (epsilon - EPSILON)
    if len(names) != len(own):  # both end with the one linear layer, and one of them has no bias
        raise InputError(f"{source}: has {len(names)} tensors, but must have {len(own)} as the network does")
    return values


def _layout(own: Tensors, tensors: Tensors, source: str) -> tuple[list[str], float]:
    """The names of all `tensors` in the order of the network's, and the epsilon that they were trained with. Raises
    InputError if one is missing or not known."""
    kinds = {"this network": (list(own), EPSILON)} | {
        f"torchvision's {layout.model}": (list(layout.tensors), layout.epsilon) for layout in LAYOUTS
    }
    # Of two that have as many of them, as the V3s, that without others.
    kind = max(kinds, key=lambda kind: _in_common(kinds[kind][0], tensors))
    names, epsilon = kinds[kind]
    if not set(names) & set(tensors):
        first = ascii(next(iter(tensors), "nothing"))[:80]
        raise InputError(f"{source}: holds {first}, but must hold the tensors of {' or '.join(kinds)}")
    for name in names:
        if name not in tensors:
            raise InputError(f"{source}: {name} is missing; {kind} has it")
    for name in tensors:
        if name not in names:
            raise InputError(f"{source}: {ascii(name)[:80]} is not known; {kind} has no such tensor")
    return names, epsilon


def _in_common(names: Iterable[str], tensors: Tensors) -> tuple[int, int]:
    """How many of the names are there, and how many are not (negated)."""
    there = len(set(names) & set(tensors))
    return there, there - len(set(names))


def _kind(name: str) -> str:
    """weight, bias, running_mean, running_var or num_batches_tracked."""
    return name.rpartition(".")[2]


def _check_tensor(name: str, tensor: object, source: str) -> None:
    place = f"{source}: {ascii(name)[1:-1][:80]}"
    if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized:
        raise InputError(f"{place} is a {type(tensor).__name__}, but must be a dense tensor of numbers")
    if tensor.is_floating_point() == (_kind(name) == "num_batches_tracked") or tensor.is_complex():
        raise InputError(f"{place} has the type {tensor.dtype}, but must be a float (num_batches_tracked: an integer)")
    if not tensor.float().isfinite().all():
        raise InputError(f"{place} is not finite")


def slug(source: str) -> str:
    """The source's last name, of letters, digits and . _ - alone, for the name of a folder; may be empty."""
    path = Path(source)
    name = path.parent.name if path.name == WEIGHTS_FILE else path.name.removesuffix(".safetensors")
    return re.sub(r"[^A-Za-z0-9._-]+", "-", re.sub(r"\.pth?$", "", name)).strip(".-")[:60]
