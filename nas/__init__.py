"""Neural architecture search over mobile block spaces.

What a script needs is here by name and is imported when it is first used:

    space = nas.Space.load("search_spaces/mobile_cifar.yaml")
    network = nas.build(space.sample(random.Random(0)), seed=0)
    trained = nas.load("runs/quickstart/retrain/...")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nas.architecture import Architecture as Architecture
    from nas.architecture import Stage as Stage
    from nas.inputs import InputError as InputError
    from nas.network import build as build
    from nas.pictures import preprocess as preprocess
    from nas.report.tables import save_tables as save_tables
    from nas.retrain import load as load
    from nas.run import Run as Run
    from nas.space import Space as Space
    from nas.study import Study as Study
    from nas.study import search as search
    from nas.weights import load_weights as load_weights

_HOMES = {
    "Architecture": "nas.architecture",
    "InputError": "nas.inputs",
    "Run": "nas.run",
    "Space": "nas.space",
    "Stage": "nas.architecture",
    "Study": "nas.study",
    "build": "nas.network",
    "load": "nas.retrain",
    "load_weights": "nas.weights",
    "preprocess": "nas.pictures",
    "save_tables": "nas.report.tables",
    "search": "nas.study",
}
_MODULES = {"samplers": "nas.samplers", "timm_models": "nas.timm_models"}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("nas.machine").version_of("mobile-nas")
    if name in _MODULES:  # nas.samplers.SurrogateSampler, for studies of one's own; nas.timm_models.register
        return import_module(_MODULES[name])
    if name not in _HOMES:
        raise AttributeError(f"module 'nas' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
