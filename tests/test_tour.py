"""The notebook runs, and what it shows is so."""

from __future__ import annotations

import json
from pathlib import Path

import fakes
import pytest
import yaml

import nas

STUDIES = Path(__file__).parent.parent / "studies"


@pytest.mark.slow
@pytest.mark.usefixtures("quiet_optuna")
def test_the_notebook_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cell by cell in one namespace, as a kernel would: none needs to be installed."""
    cells = json.loads((STUDIES / "tour.ipynb").read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert all(not cell.get("outputs") for cell in cells)
    monkeypatch.chdir(STUDIES)
    names: dict[str, object] = {}
    for cell in code:
        *body, last = cell.rstrip().split("\n")
        exec("\n".join(body), names)  # noqa: S102 - our own notebook
        shown = eval(last, names) if "=" not in last.split("==")[0] else exec(last, names)  # noqa: S102, S307
        if hasattr(shown, "_repr_html_"):
            assert "<" in shown._repr_html_()
    assert shown == (4, True)
    assert names["architecture"].id == names["row"]["id"]  # type: ignore[attr-defined, index]


def test_objects_show_themselves_in_html_and_escape_what_is_in_them() -> None:
    space = nas.Space.from_dict(yaml.safe_load(fakes.TOY))
    assert "<b>toy</b>: 153 architectures" in space._repr_html_() and "<code>stem.c</code>" in space._repr_html_()
    member = next(space.enumerate())
    assert member.id in member._repr_html_() and "operator" in member._repr_html_()
