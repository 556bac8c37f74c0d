"""Pictures become what the network was trained on: the very batches of the same files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import nas
from nas.augment import Batches, Normalisation
from nas.data import DataConfig, load
from nas.inputs import InputError

MODES = {"RGB": 3, "L": 1}
SIZES = [(40, 20), (17, 31), (24, 24), (9, 50)]


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NAS_CACHE", str(tmp_path / "cache"))


def pictures(root: Path, mode: str, sizes: list[tuple[int, int]]) -> Path:
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for name in ("ant", "bee"):
            (root / part / name).mkdir(parents=True)
            for number, (width, height) in enumerate(sizes):
                shape = (height, width, 3) if mode == "RGB" else (height, width)
                image = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))
                image.save(root / part / name / f"{number}.png")
    return root


def retrained(folder: Path, images: dict[str, Any], moments: Normalisation, resolution: int = 12) -> Path:
    """As nas retrain leaves it, as far as it is read here."""
    folder.mkdir()
    facts = {"resolution": resolution, "mean": moments.mean, "std": moments.std, "classes": ["ant", "bee"]}
    (folder / "result.json").write_text(json.dumps(facts | {"images": images}), encoding="utf-8")
    return folder


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("size", "sizes"), [(16, SIZES), (12, SIZES), (None, [(20, 14)] * 4)])
def test_a_picture_is_as_in_the_batches_that_were_trained_on(
    mode: str, size: int | None, sizes: list[tuple[int, int]], tmp_path: Path
) -> None:
    root = pictures(tmp_path / "images", mode, sizes)
    splits = load(DataConfig(source="imagefolder", root=str(root), validation=2, size=size))
    moments = Normalisation(splits.mean, splits.std)
    channels, height, width = splits.shape
    assert channels == MODES[mode]
    folder = retrained(tmp_path / "done", {"height": height, "width": width}, moments)
    prepare = nas.preprocess(folder)
    batch, _ = Batches(splits.test, moments, 12, torch.device("cpu")).plain(0, 8)
    files = [root / "test" / name / f"{number}.png" for name in ("ant", "bee") for number in range(4)]
    for file, expected in zip(files, batch, strict=True):
        for picture in (file, str(file), Image.open(file)):
            found = prepare(picture)
            assert found.dtype == torch.float32 and torch.allclose(found, expected, atol=1e-6)
    assert prepare.classes == ("ant", "bee")


def test_colour_and_grey_become_what_the_network_was_trained_on(tmp_path: Path) -> None:
    grey = Image.fromarray(np.arange(144, dtype=np.uint8).reshape(12, 12))
    size = {"height": 12, "width": 12}
    of_grey = nas.preprocess(retrained(tmp_path / "grey", size, Normalisation((0.5,), (0.25,))))
    of_colour = nas.preprocess(retrained(tmp_path / "colour", size, Normalisation((0.5,) * 3, (0.25,) * 3)))
    assert of_grey(grey.convert("RGB")).shape == (1, 12, 12) and of_colour(grey).shape == (3, 12, 12)
    assert torch.equal(of_colour(grey)[1:2], of_grey(grey)) and torch.equal(of_grey(grey.convert("RGB")), of_grey(grey))


def test_a_folder_of_before_has_the_resolution_for_the_size(tmp_path: Path) -> None:
    prepare = nas.preprocess(retrained(tmp_path / "old", {"train": 2}, Normalisation((0.5,), (0.25,)), 7))
    assert prepare.stored == (7, 7) and prepare(Image.new("L", (30, 20))).shape == (1, 7, 7)


def test_what_is_no_picture_or_no_retraining_is_one_line(tmp_path: Path) -> None:
    prepare = nas.preprocess(retrained(tmp_path / "done", {}, Normalisation((0.5,), (0.25,))))
    (tmp_path / "a.jpg").write_bytes(b"none")
    for name in ("a.jpg", "nowhere.jpg"):
        with pytest.raises(InputError, match=rf"^{re.escape(str(tmp_path / name))}: cannot be read as a picture: \S+"):
            prepare(tmp_path / name)
    with pytest.raises(InputError, match=r"is no finished retraining: result\.json is not there$"):
        nas.preprocess(tmp_path)
    (tmp_path / "result.json").write_text('{"resolution": 3}')
    with pytest.raises(InputError, match=r"result\.json is damaged \(KeyError: 'images'\); retrain again$"):
        nas.preprocess(tmp_path)
