"""What `import nas` promises: every name there, none of them paid for before it is used."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

import nas
from nas.cli import main
from nas.machine import hardware, versions


@pytest.mark.parametrize("name", nas.__all__)
def test_a_public_name_is_there_and_documented(name: str) -> None:
    assert getattr(nas, name).__doc__
    assert name in dir(nas)


def test_the_public_names() -> None:
    names = "Architecture InputError Run Space Stage Study build load load_weights preprocess save_tables search"
    assert nas.__all__ == names.split()


def test_the_samplers_are_there_for_studies_of_ones_own() -> None:
    assert nas.samplers.SurrogateSampler.__doc__


def test_what_a_card_says_of_timm_can_be_typed() -> None:
    """In a process in which nothing else imported the module."""
    script = "import nas; print(nas.timm_models.register.__name__)"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert found.stdout == "register\n", found.stderr


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'nas' has no attribute 'Spce'"):
        _ = nas.Spce


def test_importing_is_light_and_a_name_is_what_its_module_has() -> None:
    script = "import sys, nas; print(*sys.modules); import nas.inputs; assert nas.InputError is nas.inputs.InputError"
    modules = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "optuna", "pandas", "numpy", "pydantic", "yaml"} & set(modules)
    assert [name for name in modules if name.startswith("nas")] == ["nas"]


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert nas.__version__ == versions()["mobile-nas"]
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"mobile-nas {nas.__version__}\n"


def test_what_a_number_was_measured_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(versions()) == {"python", "mobile-nas", "torch", "torchvision", "optuna", "numpy"}
    assert torch.__version__.startswith(versions()["torch"])
    facts = hardware()
    assert facts["processor"] and int(facts["cores"]) >= 1 and int(facts["memory_bytes"]) > 10**8
    assert json.loads(json.dumps(facts)) == facts
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    assert hardware() == facts | {"gpu": "a GPU"}


def test_a_package_that_is_not_installed_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.machine._PACKAGES", ("no-such-package",))
    assert versions()["no-such-package"] == "not installed"
