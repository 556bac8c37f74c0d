"""The card of a trained network: README.md beside its weights, in the form of the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from nas.architecture import Architecture
from nas.files import write_text

_HUB = {"cifar10": "uoft-cs/cifar10", "cifar100": "uoft-cs/cifar100", "fashion_mnist": "zalando-datasets/fashion_mnist"}
"""The names of data sets on the Hub."""


def write_card(folder: Path, architecture: Architecture, result: Mapping[str, Any]) -> None:
    """Writes README.md into a retrain folder; `result` is what its result.json holds."""
    source = result["data"]["source"]
    accuracy = {"type": "accuracy", "value": result["test_accuracy"], "name": "accuracy on the test set"}
    dataset = {"type": _HUB.get(source, source), "name": source, "split": "test"}
    task = {"type": "image-classification"}
    about = {
        "library_name": "mobile-nas",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "neural-architecture-search", "mobile"],
        **({"datasets": [_HUB[source]]} if source in _HUB else {}),
        "metrics": ["accuracy"],
        "model-index": [
            {"name": architecture.id, "results": [{"task": task, "dataset": dataset, "metrics": [accuracy]}]}
        ],
    }
    head = yaml.safe_dump(about, sort_keys=False, allow_unicode=True)
    write_text(folder / "README.md", f"---\n{head}---\n{_text(architecture, result)}")


def _text(architecture: Architecture, result: Mapping[str, Any]) -> str:
    recipe = yaml.safe_dump({**result["recipe"], **result.get("training", {})}, sort_keys=False).strip()
    machine, versions = result["hardware"], result["versions"]
    side = architecture.resolution
    spent = f"seed {result['seed']}, {result['wall_seconds']:,.0f} s on {machine['processor']}"
    if start := result.get("weights"):
        spent += f", from the weights {Path(start['source']).name}"  # the name alone: a path is the author's own
    if teachers := result.get("teachers"):
        spent += f", taught by {' and '.join(Path(x).name for x in teachers)}"
    return f"""
# {architecture.id}

A mobile vision network, trained on {result["data"]["source"]}: {len(result["classes"])} classes,
images of {side} x {side} pixels with {architecture.in_channels} channels.

| | |
|---|---|
| accuracy on the {result["images"]["test"]:,} test images | {result["test_accuracy"]:.4f} |
| parameters | {result["params"]:,} |
| multiply-adds (MACs), one image | {result["macs"]:,} |
| activation memory, float32 | {result["peak_memory_bytes"]:,} bytes |

The test images were read once, at the end.

## Use

```python
import nas

network = nas.load("FOLDER")  # the folder with this file; in evaluation mode, on the CPU
prepare = nas.preprocess("FOLDER")
scores = network(prepare("photo.jpg")[None]).softmax(1)  # of prepare.classes
```

It wants float32 (batch, {architecture.in_channels}, {side}, {side}): pixels / 255, minus {_short(result["mean"])}, over
{_short(result["std"])}. `result.json` has these numbers in full, and the names of the classes in their order.
`nas.timm_models.register("FOLDER")` makes it a model of timm.

## Architecture

```
{architecture.table()}
```

## Training

{result["images"]["train"]:,} images, {spent}, torch {versions["torch"]}.

```yaml
{recipe}
```
"""


def _short(values: list[float]) -> str:
    return "(" + ", ".join(f"{value:.4g}" for value in values) + ")"
