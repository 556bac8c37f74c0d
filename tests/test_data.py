"""The data family: every source on tiny made-up files, the cut of the training set, the cache, and what is refused."""

from __future__ import annotations

import gzip
import hashlib
import importlib
import logging
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nas.augment import Augmentation, Batches, Normalisation
from nas.data import DATASETS, DataConfig, Images, Source, load
from nas.data import decode as decoding
from nas.data.splits import moments, split, stratified
from nas.files import cache_folder
from nas.inputs import InputError, checked

fashion = importlib.import_module("nas.data.fashion_mnist")
folder = importlib.import_module("nas.data.imagefolder")
CLASSES = ("ant", "bee", "cat")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fashion, "DEBIAN", tmp_path / "no-such-package")


def make_images(
    root: Path, per_class: int = 4, mode: str = "RGB", size: tuple[int, int] = (6, 5), parts: tuple[str, ...] = ()
) -> Path:
    """root/<part>/<class>/<i>.png: noise of `size` (width, height), the same at every call."""
    rng = np.random.default_rng(0)
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], 3)
    for part in parts or ("train", "test"):
        for name in CLASSES:
            (root / part / name).mkdir(parents=True)
            for index in range(per_class):
                image = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))
                image.save(root / part / name / f"{index}.png")
    return root


def idx(array: np.ndarray) -> bytes:
    head = bytes([0, 0, 8, array.ndim]) + b"".join(length.to_bytes(4, "big") for length in array.shape)
    return head + array.astype(np.uint8).tobytes()


def make_fashion(root: Path, packed: bool = True) -> Path:
    rng = np.random.default_rng(0)
    for part, count in (("train", 60), ("t10k", 20)):
        data = {"images-idx3": rng.integers(0, 256, (count, 28, 28)), "labels-idx1": np.arange(count) % 10}
        for kind, array in data.items():
            path = root / f"{part}-{kind}-ubyte.gz" if packed else root / fashion.RAW / f"{part}-{kind}-ubyte"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(gzip.compress(idx(array)) if packed else idx(array))
    return root


def make_cifar(root: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pickles as published, with the old spelling of a dtype; the check of their MD5 is switched off."""
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda path, md5: os.path.isfile(path))
    base, labels, classes, names = {
        "cifar10": ("cifar-10-batches-py", "labels", 10, [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]),
        "cifar100": ("cifar-100-python", "fine_labels", 100, ["train", "test"]),
    }[name]
    (root / base).mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (300, 3072), dtype=np.uint8)
    for file in names:
        data = pickle.dumps({"data": pixels, labels: [i % classes for i in range(300)]}, protocol=2)
        old = data.replace(b"\x89\x88\x87", b"K\x00K\x01\x87")
        assert old != data
        (root / base / file).write_bytes(old)
    meta, key = ("batches.meta", "label_names") if name == "cifar10" else ("meta", "fine_label_names")
    (root / base / meta).write_bytes(pickle.dumps({key: [f"class {i}" for i in range(classes)]}))
    return root


MADE: dict[str, Callable[[Path, pytest.MonkeyPatch], dict[str, Any]]] = {
    "digits": lambda root, patch: {},
    "cifar10": lambda root, patch: {"root": str(make_cifar(root, "cifar10", patch))},
    "cifar100": lambda root, patch: {"root": str(make_cifar(root, "cifar100", patch)), "validation": 0.4},
    "fashion_mnist": lambda root, patch: {"root": str(make_fashion(root)), "validation": 20},
    "imagefolder": lambda root, patch: {"root": str(make_images(root)), "validation": 3},
}


def same(one: Images, other: Images) -> bool:
    return np.array_equal(one.gather(), other.gather()) and np.array_equal(one.labels, other.labels)


def refusal(**keys: Any) -> str:
    """The one line that `load` refuses these keys with."""
    with pytest.raises(InputError) as caught:
        load(checked(DataConfig, keys, "data", "."))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_contract(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {"source": name, **MADE[name](tmp_path / "made", monkeypatch)}
    config = DataConfig(**keys)
    source, splits, again = DATASETS[name](config), load(config), load(config)
    other = load(config.model_copy(update={"seed": 1}))
    for images in (splits.train, splits.validation, splits.test, splits.train_and_validation):
        assert images.pixels.dtype == np.uint8 and images.labels.dtype == np.int64
        assert len(images) == len(images.labels) > 0 and images.shape == images.gather().shape
        assert splits.shape == (images.shape[3], *images.shape[1:3])
        assert set(images.labels.tolist()) == set(range(len(splits.classes)))
    assert splits.shape[0] in (1, 3) and all(isinstance(name, str) for name in splits.classes)
    assert all(same(getattr(splits, part), getattr(again, part)) for part in ("train", "validation", "test"))
    assert same(splits.test, other.test) and not same(splits.validation, other.validation)
    assert len(splits.train_and_validation) == len(source.train) == len(splits.train) + len(splits.validation)
    naive = splits.train.gather().astype(np.float64) / 255
    np.testing.assert_allclose(splits.mean, naive.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(splits.std, naive.std((0, 1, 2)), rtol=1e-12)


def test_importing_the_family_imports_nothing_heavy() -> None:
    code = "import sys, nas.data; print(sorted({'torch', 'torchvision', 'sklearn', 'PIL', 'rich'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_digits_are_scaled_to_bytes() -> None:
    splits = load(DataConfig(source="digits"))
    assert (splits.shape, len(splits.train_and_validation), len(splits.test)) == ((1, 8, 8), 1438, 359)
    assert set(np.unique(splits.train.gather())) == {round(value * 255 / 16) for value in range(17)}


# --- the cut ----------------------------------------------------------------------------------------------------------

Sizes = st.lists(st.integers(2, 40), min_size=1, max_size=8)


@settings(max_examples=80, deadline=None)
@given(st.data(), Sizes, st.integers(0, 2**32))
def test_split_is_exact_disjoint_stratified_and_deterministic(data: st.DataObject, sizes: list[int], seed: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    count = data.draw(st.integers(len(sizes), len(labels) - len(sizes)))
    pixels = np.arange(len(labels), dtype=np.uint16).view(np.uint8).reshape(len(labels), 1, 1, 2)
    source = Source(Images(pixels, labels), Images(pixels[:1], labels[:1]), tuple(map(str, range(len(sizes)))))
    splits, again = split(source, count, seed), split(source, count, seed)
    held, rest = (x.gather().view(np.uint16).ravel() for x in (splits.validation, splits.train))
    assert len(held) == count and sorted([*held, *rest]) == list(range(len(labels)))
    assert np.array_equal(splits.validation.labels, labels[held]) and np.array_equal(splits.train.labels, labels[rest])
    assert same(splits.validation, again.validation) and same(splits.train, again.train)
    got = np.bincount(splits.validation.labels, minlength=len(sizes))
    assert np.all(got >= 1) and np.all(got < sizes)
    exact = np.array(sizes) * count / len(labels)
    if np.all(exact >= 1) and np.all(np.array(sizes) - exact >= 1):
        assert np.all(np.abs(got - exact) < 1)


@settings(max_examples=40, deadline=None)
@given(Sizes, st.floats(0.01, 1), st.integers(0, 99))
def test_share_is_stratified_and_grows_within_a_class(sizes: list[int], share: float, seed: int) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    images = Images(np.arange(len(labels), dtype=np.uint8).reshape(-1, 1, 1, 1), labels)
    part = images.share(share, seed)
    assert same(part, images.share(share, seed)) and images.share(1.0, seed) is images
    assert len(part) == max(1, round(share * len(labels))) or share == 1
    assert len(part) < len(sizes) or len(set(part.labels.tolist())) == len(sizes)
    half = set(images.share(0.5, seed).gather().ravel().tolist())
    whole = images.share(0.999999, seed).gather().ravel().tolist()
    assert half <= set(whole)


def test_take_copies_no_pixels_and_shares_are_checked() -> None:
    images = Images(np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1), np.arange(4))
    part = images.take([3, 0, 1]).take([2, 0])
    assert part.pixels is images.pixels and part.gather().ravel().tolist() == part.labels.tolist() == [1, 3]
    assert images.take([]).gather().shape == images.take([]).shape == (0, 1, 1, 1)
    for share in (0.0, -1.0, 1.1, float("nan")):
        with pytest.raises(InputError, match=r"share is .*, but must be more than 0 and at most 1"):
            images.share(share, 0)


def test_a_rare_class_is_on_both_sides() -> None:
    labels = np.repeat([0, 1], [1000, 2])
    assert np.bincount(labels[stratified(labels, 100, 0)]).tolist() == [99, 1]


def test_moments_are_counted_in_chunks_and_std_has_a_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 7, 5, 3), dtype=np.uint8)
    pixels[..., 2] = 128
    images = Images(pixels, np.zeros(50, np.int64))
    whole = moments(images)
    monkeypatch.setattr("nas.data.splits.CHUNK_VALUES", 300)
    assert moments(images) == whole and whole[1][2] == 1e-3
    assert moments(images.take([4, 40])) == moments(Images(pixels[[4, 40]], images.labels[:2]))
    assert whole[0] == pytest.approx((pixels / 255).mean((0, 1, 2)).tolist(), rel=1e-12)


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        (
            {"source": "mnist"},
            "data.source is 'mnist', but must be one of: cifar10, cifar100, digits, fashion_mnist, i",
        ),
        ({"source": 3}, "data.source is 3, but must be a valid string"),
        ({}, "data.source is missing"),
        ({"source": "digits", "rot": "x"}, "data.rot is not known; the keys here are: corrupt, download, root, seed,"),
        ({"source": "digits", "root": ""}, "data.root is '', but must be the path of a folder"),
        ({"source": "digits", "root": "a\0b"}, "data.root is 'a\\x00b', but must be the path of a folder"),
        ({"source": "digits", "seed": -1}, "data.seed is -1, but must be greater than or equal to 0"),
        ({"source": "digits", "size": 0}, "data.size is 0, but must be greater than or equal to 1"),
        ({"source": "digits", "size": 32}, "data.size is 32, but must be left out: the images of digits have one size"),
        (
            {"source": "digits", "test": 0.2},
            "data.test is 0.2, but must be left out: digits has test images of its ow",
        ),
        ({"source": "imagefolder", "test": 0}, "data.test is 0, but must be a whole number from 1, or a share between"),
        ({"source": "imagefolder", "corrupt": "keep"}, "data.corrupt is 'keep', but must be one of: refuse, skip"),
        ({"source": "digits", "validation": 1438}, "data.validation is 1438, but must be less than the 1438 training"),
        ({"source": "digits", "validation": 9}, "data.validation is 9, but must be from 10 to 1428 of the 1438 traini"),
        ({"source": "digits", "validation": 1429}, "data.validation is 1429, but must be from 10 to 1428 of the 1438 "),
        ({"source": "digits", "validation": 1e-4}, "data.validation is 0.0001, but must be from 10 to 1428 of the 14"),
        ({"source": "cifar10"}, "data.root is missing: cifar10 needs the folder that holds cifar-10-batches-py"),
        ({"source": "imagefolder"}, "data.root is missing: imagefolder needs the folder that holds train/<class>/ and"),
        ({"source": "fashion_mnist"}, "data.root is missing: fashion_mnist needs the folder that holds FashionMNIST/"),
    ],
)
def test_bad_configs_are_refused_in_one_line(keys: dict[str, Any], line: str) -> None:
    assert refusal(**keys).startswith(line)


@pytest.mark.parametrize("value", [0, -1, 0.0, 1.0, 1.5, float("nan"), float("inf"), True, "0.1", None, [1]])
def test_validation_is_a_count_or_a_share(value: object) -> None:
    expected = f"data.validation is {value!r}, but must be a whole number from 1, or a share between 0 and 1"
    assert refusal(source="digits", validation=value) == expected


def test_home_is_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert DataConfig(source="digits", root="~/data").root == str(tmp_path / "data")


def test_cache_folder_is_named_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NAS_CACHE")
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_folder() == Path("/xdg/nas")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache_folder() == Path("/home/me/.cache/nas")
    monkeypatch.setenv("NAS_CACHE", "~/here")
    assert cache_folder() == Path("/home/me/here")


# --- torchvision ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["cifar10", "cifar100", "fashion_mnist"])
def test_absent_files_are_named(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    line = refusal(source=source, root="nowhere")
    assert re.match(r"data\.root is '/.+, but must be a folder that holds ", line)
    assert "download: true fetches" in line
    assert not (tmp_path / "nowhere").exists()


def test_cifar_of_another_md5_is_refused(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        make_cifar(tmp_path, "cifar10", patch)
    assert refusal(source="cifar10", root=str(tmp_path)).startswith(
        f"data.root: {tmp_path}/cifar-10-batches-py cannot be used: Dataset not found or corrupted."
    )


@pytest.mark.parametrize("source", ["cifar10", "fashion_mnist"])
def test_a_failed_download_is_one_line(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError(101, "Network is unreachable")

    module = "cifar" if source == "cifar10" else "mnist"
    monkeypatch.setattr(f"torchvision.datasets.{module}.download_and_extract_archive", offline)
    line = refusal(source=source, root=str(tmp_path), download=True)
    assert line.startswith(f"data.root: {tmp_path}/") and line.endswith(" cannot be used: Network is unreachable")


def test_fashion_mnist_packed_and_unpacked_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed, plain = make_fashion(tmp_path / "packed"), make_fashion(tmp_path / "plain", packed=False)
    keys: dict[str, Any] = {"source": "fashion_mnist", "validation": 20}
    splits = load(DataConfig(root=str(packed), **keys))
    assert same(splits.train, load(DataConfig(root=str(plain), **keys)).train) and splits.shape == (1, 28, 28)
    monkeypatch.setattr(fashion, "DEBIAN", packed)
    assert same(splits.train, load(DataConfig(**keys)).train)
    unpacked = [path for path in (tmp_path / "cache").rglob("*ubyte") if path.is_file()]
    assert len(unpacked) == 4
    unpacked[0].write_bytes(b"cut short")
    assert same(splits.train, load(DataConfig(**keys)).train)


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "header", "count", "label"])
def test_damaged_fashion_mnist_is_refused(damage: str, tmp_path: Path) -> None:
    make_fashion(tmp_path)
    path = tmp_path / "train-labels-idx1-ubyte.gz"
    good = path.read_bytes()
    bad = {
        "cut": good[:-12],
        "text": b"<html>not found</html>",
        "empty": b"",
        "header": gzip.compress(b"\x00\x00\x0b"),
        "count": gzip.compress(idx(np.arange(59) % 10)),
        "label": gzip.compress(idx(np.arange(60))),
    }[damage]
    path.write_bytes(bad)
    line = refusal(source="fashion_mnist", root=str(tmp_path), validation=20)
    assert line.startswith("data.root: /") and " cannot be " in line


# --- folders ----------------------------------------------------------------------------------------------------------


def config_of(root: Path, **keys: Any) -> DataConfig:
    return DataConfig(**{"source": "imagefolder", "root": str(root), "validation": 3, **keys})


def cached(tmp_path: Path) -> list[Path]:
    return sorted(path for path in (tmp_path / "cache").rglob("*") if path.is_file())


def test_what_is_no_image_is_said_to_be_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = make_images(tmp_path / "images")
    (root / "train" / CLASSES[0] / ".DS_Store").write_text("")
    DATASETS["imagefolder"](config_of(root))
    assert not caplog.messages
    make_images(root / "train" / CLASSES[0] / "nested.png", parts=("x",))
    (root / "test" / CLASSES[1] / "a.heic").write_text("")
    DATASETS["imagefolder"](config_of(root))
    (line,) = caplog.messages
    assert line.startswith("data: 2 files or folders in those of the classes are no images (jpg jpeg png ")
    assert line.endswith(f") and are left out, the first is {root / 'train' / CLASSES[0] / 'nested.png'}")


def test_imagefolder_reads_pixels_labels_and_names(tmp_path: Path) -> None:
    root = make_images(tmp_path / "made")
    (root / "train" / "cat" / "notes.txt").write_text("ignored")
    (root / "train" / "cat" / ".hidden.png").write_text("ignored")
    (root / "train" / "cat" / "folder.png").mkdir()
    (root / "train" / ".cache").mkdir()
    (root / "train" / "README").write_text("ignored")
    shutil.move(root / "train" / "bee" / "0.png", tmp_path / "elsewhere.png")
    (root / "train" / "bee" / "0.PNG").symlink_to(tmp_path / "elsewhere.png")
    source = DATASETS["imagefolder"](config_of(root))
    assert source.classes == CLASSES and source.train.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert isinstance(source.train.pixels.base, np.memmap) and not source.train.pixels.flags.writeable
    for part, images in (("train", source.train), ("test", source.test)):
        files = [path for name in CLASSES for path in sorted((root / part / name).glob("[0-9].[pP]*"))]
        assert all(np.array_equal(Image.open(f), p) for f, p in zip(files, images.pixels, strict=True))


@pytest.mark.parametrize("inside", ["", "train"])
def test_a_folder_without_test_images_has_some_held_out(
    inside: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "nas")
    root = tmp_path / "made"
    make_images(root if inside else tmp_path, parts=(inside or "made",), per_class=10)
    source = DATASETS["imagefolder"](config_of(root))
    assert caplog.messages == [f"data: {root} has no test images: 6 of all 30 are held out"]
    assert source.classes == CLASSES and np.bincount(source.test.labels).tolist() == [2, 2, 2]
    assert sorted([*source.train.index, *source.test.index]) == list(range(30))
    other = DATASETS["imagefolder"](config_of(root, seed=7, test=6, validation=0.5))
    assert np.array_equal(other.test.index, source.test.index)
    assert len(DATASETS["imagefolder"](config_of(root, test=0.5)).test) == 15
    splits = load(config_of(root))
    assert [len(x) for x in (splits.train, splits.validation, splits.test)] == [21, 3, 6]
    assert refusal(source="imagefolder", root=str(root), test=2) == (
        "data.test is 2, but must be from 3 to 27 of the 30 images: one of each class on either side"
    )
    for path in sorted((root / inside / "bee").iterdir())[2:]:
        path.unlink()
    few = "2 of at least 3 training, validation or test images that can be read"
    assert refusal(source="imagefolder", root=str(root)) == f"data.root: class 'bee' of {root} has {few}"


def test_a_folder_of_nothing_is_no_folder_of_classes(tmp_path: Path) -> None:
    line = refusal(source="imagefolder", root=str(tmp_path))
    assert line == f"data.root: {tmp_path} has no folders, but must have one for each class"
    (tmp_path / "inner" / "train").mkdir(parents=True)
    line = refusal(source="imagefolder", root=str(tmp_path))
    assert line.startswith(f"data.root: {tmp_path}/inner has no images (jpg ")
    assert line.endswith(f"; remove it or fill it ({tmp_path} has no train/, so its folders are the classes)")
    root = make_images(tmp_path / "made")
    line = refusal(source="imagefolder", root=str(root), test=3)
    assert line == f"data.test is 3, but must be left out: {root}/test holds the test images"


def test_parts_of_a_map_share_it_and_give_the_batches_of_copies(tmp_path: Path) -> None:
    """Also where damaged images are left out."""
    spoil(root := make_images(tmp_path / "made"))
    source = DATASETS["imagefolder"](config_of(root, corrupt="skip"))
    splits = split(source, 3, 0)
    held = stratified(source.train.labels, 3, 0)
    rest = np.setdiff1d(np.arange(len(source.train)), held)
    pixels, labels = source.train.gather(), source.train.labels
    for part, where in (
        (splits.train, rest),
        (splits.validation, held),
        (splits.train_and_validation, np.concatenate([rest, held])),
        (splits.train.share(0.5, 0), rest[stratified(labels[rest], 4, 0)]),
    ):
        assert part.pixels is source.train.pixels
        copied = Images(pixels[where], labels[where])
        assert moments(part) == moments(copied) and part.shape == copied.pixels.shape
        one, other = (
            Batches(images, Normalisation((0.4,) * 3, (0.3,) * 3), 8, torch.device("cpu"), Augmentation(1, True))
            for images in (part, copied)
        )
        draws = one.draw(torch.Generator().manual_seed(0))
        pairs = [(x.augmented(draws, 1, 4), x.plain(0, 3)) for x in (one, other)]
        assert all(torch.equal(a, b) for x, y in zip(*pairs, strict=True) for a, b in zip(x, y, strict=True))


def test_a_map_is_sent_once_and_beside_the_pickle(tmp_path: Path) -> None:
    """As Ray does it, whose tasks share the memory of what lies beside."""
    splits = load(config_of(make_images(tmp_path / "made", size=(60, 50))))
    buffers: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps(splits, protocol=5, buffer_callback=buffers.append)
    again = pickle.loads(pickled, buffers=buffers)  # noqa: S301
    assert len(pickled) < 3000 and sum(x.raw().nbytes >= 12 * 60 * 50 * 3 for x in buffers) == 2
    assert np.shares_memory(again.train.pixels, splits.train.pixels) and same(again.validation, splits.validation)
    assert same(again.train_and_validation, splits.train_and_validation)


def test_val_stands_in_for_test(tmp_path: Path) -> None:
    root = make_images(tmp_path / "made", parts=("train", "val"))
    assert len(load(config_of(root)).test) == 12


def test_grey_stays_grey_unless_one_image_is_not(tmp_path: Path) -> None:
    root = make_images(tmp_path / "made", mode="L")
    grey = load(config_of(root))
    assert grey.shape == (1, 5, 6)
    Image.new("1", (6, 5)).save(root / "test" / "cat" / "3.png")
    mixed = load(config_of(root))
    assert mixed.shape == (3, 5, 6)
    assert np.array_equal(mixed.train.gather(), np.repeat(grey.train.gather(), 3, axis=3))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_every_mode_becomes_bytes(mode: str, tmp_path: Path) -> None:
    path = str(tmp_path / "x.tif")
    if mode == "I;16":
        Image.fromarray(np.full((4, 4), 0x99FF, np.uint16)).save(path)
    else:
        Image.new("RGB", (4, 4), (153, 153, 153)).convert(mode).save(path)
    image = decoding.read_image(path, None)
    assert image.dtype == np.uint8 and image.shape == (4, 4, 1 if mode == "L" else 3)
    assert mode == "1" or np.all(np.abs(image.astype(int) - 153) <= 3)


def test_images_stand_upright_and_transparency_is_no_warning(tmp_path: Path) -> None:
    image = Image.new("RGB", (6, 4))
    exif = image.getexif()
    exif[0x0112] = 6  # orientation: turned by a quarter
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert decoding.read_image(str(tmp_path / "turned.jpg"), None).shape == (6, 4, 3)
    Image.new("P", (6, 4)).save(tmp_path / "clear.png", transparency=b"\x00\x80")
    assert decoding.read_image(str(tmp_path / "clear.png"), None).shape == (4, 6, 3)


def test_size_resizes_the_shorter_side_and_keeps_the_centre(tmp_path: Path) -> None:
    root = make_images(tmp_path / "made", size=(40, 20))
    Image.linear_gradient("L").resize((64, 16)).save(root / "train" / "ant" / "0.png")
    source = DATASETS["imagefolder"](config_of(root, size=10))
    assert source.train.pixels.shape == (12, 10, 10, 3)
    with Image.open(root / "train" / "ant" / "1.png") as image:
        expected = image.resize((20, 10), Image.Resampling.BICUBIC).crop((5, 0, 15, 10))
    assert np.abs(source.train.pixels[1].astype(int) - np.asarray(expected, int)).max() <= 1
    assert len(cached(tmp_path)) == 1
    DATASETS["imagefolder"](config_of(root, size=8))
    assert len(cached(tmp_path)) == 2


def test_images_of_two_sizes_need_the_option_size(tmp_path: Path) -> None:
    root = make_images(tmp_path / "made")
    Image.new("RGB", (9, 7)).save(root / "test" / "bee" / "1.png")
    assert refusal(source="imagefolder", root=str(root)) == (
        "data.size is None, but must be set where images differ in size (width x height): "
        f"{root}/train/ant/0.png is 6 x 5, {root}/test/bee/1.png is 9 x 7"
    )
    assert not cached(tmp_path)


def test_cache_is_read_again_until_a_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_images(tmp_path / "made")
    first = load(config_of(root))
    with monkeypatch.context() as patch:
        patch.setattr(folder, "decode", lambda *_: pytest.fail("decoded again"))
        assert same(first.train, load(config_of(root, validation=3)).train)
    Image.new("RGB", (6, 5), (1, 2, 3)).save(root / "test" / "ant" / "0.png")
    assert load(config_of(root)).test.pixels[0, 0, 0].tolist() == [1, 2, 3]
    assert first.test.pixels[0, 0, 0].tolist() != [1, 2, 3] and len(cached(tmp_path)) == 2


@pytest.mark.parametrize("damage", ["cut", "cut in the tail", "empty", "header", "longer", "other shape"])
def test_damaged_cache_is_built_anew(damage: str, tmp_path: Path) -> None:
    root = make_images(tmp_path / "made")
    before = load(config_of(root))
    (file,) = cached(tmp_path)
    good = file.read_bytes()
    bad = {
        "cut": good[: len(good) // 2],
        "cut in the tail": good[:-2],
        "empty": b"",
        "header": b"\x00" * 20 + good[20:],
        "longer": good + b"\x00" * 8,
        "other shape": good.replace(b"(24, 5, 6, 3)", b"(24, 6, 5, 3)"),
    }[damage]
    assert bad != good
    file.unlink()  # the memory map of `before` keeps the old one
    file.write_bytes(bad)
    after = load(config_of(root))
    assert same(before.train, after.train) and same(before.test, after.test) and file.read_bytes() == good


def test_two_processes_may_build_at_once(tmp_path: Path) -> None:
    root = make_images(tmp_path / "made", per_class=30)
    code = (
        "import hashlib, sys; from nas.data import DataConfig, load\n"
        "splits = load(DataConfig(source='imagefolder', root=sys.argv[1], validation=3))\n"
        "print(hashlib.sha256(splits.train.gather().tobytes()).hexdigest())"
    )
    started = [
        subprocess.Popen([sys.executable, "-W", "error", "-c", code, str(root)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    printed = [process.communicate()[0].strip() for process in started]
    expected = hashlib.sha256(load(config_of(root)).train.gather().tobytes()).hexdigest()
    assert printed == [expected] * 2 and len(cached(tmp_path)) == 1


def test_a_build_that_ends_early_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_images(tmp_path / "made")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(decoding, "run", stop)
        with pytest.raises(KeyboardInterrupt):
            load(config_of(root))
    assert not cached(tmp_path) and len(load(config_of(root)).train) == 9


def test_processes_and_this_process_decode_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_images(tmp_path / "made", per_class=20, mode="L")
    Image.new("RGB", (6, 5), (1, 2, 3)).save(root / "test" / "cat" / "9.png")
    (root / "train" / "ant" / "7.png").write_bytes(b"no image")
    here = load(config_of(root, corrupt="skip"))
    (file,) = cached(tmp_path)
    file.unlink()
    monkeypatch.setattr(decoding, "PARALLEL_FROM_BYTES", 0)
    there = load(config_of(root, corrupt="skip"))
    assert same(here.train, there.train) and same(here.test, there.test) and there.shape[0] == 3


def test_a_script_without_a_guard_is_not_run_again(tmp_path: Path) -> None:
    root, script = make_images(tmp_path / "made"), tmp_path / "script.py"
    script.write_text(
        "import nas.data.decode\n"
        "from nas.data import DataConfig, load\n"
        "nas.data.decode.PARALLEL_FROM_BYTES = 0\n"
        f"print(len(load(DataConfig(source='imagefolder', root={str(root)!r}, size=5, validation=3)).test))\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("12\n", "")


def test_a_dead_process_is_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def dead(_: int) -> None:
        raise BrokenProcessPool

    monkeypatch.setattr(decoding, "PARALLEL_FROM_BYTES", 0)
    monkeypatch.setattr(decoding, "_processes", dead)
    with caplog.at_level(logging.WARNING, "nas"):
        assert len(load(config_of(make_images(tmp_path / "made"))).test) == 12
    assert "decoding process died" in caplog.text


def spoil(root: Path) -> tuple[Path, Path]:
    """Two damaged images: one cut short, one a link to nowhere."""
    cut, nowhere = root / "train" / "ant" / "1.png", root / "test" / "bee" / "2.png"
    cut.write_bytes(cut.read_bytes()[:60])
    nowhere.unlink()
    nowhere.symlink_to(root / "gone")
    return cut, nowhere


def test_corrupt_images_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut, _ = spoil(root := make_images(tmp_path / "made"))
    line = refusal(source="imagefolder", root=str(root))
    assert line.startswith(f"data.root: 2 of the 24 images cannot be read, the first is {cut} (")
    assert line.endswith("); data.corrupt: skip leaves them out")
    monkeypatch.setattr(folder, "decode", lambda *_: pytest.fail("decoded again"))
    assert refusal(source="imagefolder", root=str(root)) == line


def test_corrupt_images_are_skipped_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = make_images(tmp_path / "made")
    whole = DATASETS["imagefolder"](config_of(root))
    damaged = spoil(root)
    with caplog.at_level(logging.WARNING, "nas"):
        source = DATASETS["imagefolder"](config_of(root, corrupt="skip"))
    (record,) = caplog.records
    assert record.name == "nas" and all(str(path) in record.getMessage() for path in damaged)
    assert same(source.train, whole.train.take([i for i in range(12) if i != 1]))
    assert same(source.test, whole.test.take([i for i in range(12) if i != 6]))


def test_an_image_that_was_out_of_reach_is_read_as_soon_as_it_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_images(tmp_path / "made")
    lost, read = str(root / "train" / "ant" / "1.png"), decoding.read_image

    def out_of_reach(path: str, size: int | None) -> Any:
        if path == lost:
            raise OSError(5, "Input/output error")
        return read(path, size)

    with monkeypatch.context() as patch:
        patch.setattr(decoding, "read_image", out_of_reach)
        assert len(DATASETS["imagefolder"](config_of(root, corrupt="skip")).train) == 11
    assert len(DATASETS["imagefolder"](config_of(root)).train) == 12


def test_a_class_that_is_all_corrupt_is_refused_even_if_skipped(tmp_path: Path) -> None:
    root = make_images(tmp_path / "made", per_class=2)
    for path in (root / "test" / "bee").iterdir():
        path.write_bytes(b"")
    line = refusal(source="imagefolder", root=str(root), corrupt="skip")
    assert line == f"data.root: class 'bee' of {root} has no test images that can be read"
    for path in root.rglob("*.png"):
        path.write_bytes(b"")
    line = refusal(source="imagefolder", root=str(root), corrupt="skip")
    assert line.startswith(f"data.root: none of the 12 images can be read, the first is {root}/train/ant/0.png: ")


def test_bad_folders_are_refused_in_one_line(tmp_path: Path) -> None:
    def line() -> str:
        return refusal(source="imagefolder", root=str(root))

    root = tmp_path / "made"
    rule = "but must be a folder that holds train/<class>/ and test/<class>/ (or val/<class>/), or <class>/ alone; "
    assert line() == f"data.root is '{root}', {rule}{root} is not there"
    (root / "test").mkdir(parents=True)
    assert line() == f"data.root is '{root}', {rule}{root}/train is not there"
    make_images(root, parts=("train",))
    assert line() == f"data.root: {root}/test has no folders, but must have one for each class"
    (root / "test" / "dog").mkdir()
    assert line().startswith(f"data.root: {root}/test/dog has no images (jpg jpeg png ")
    shutil.copytree(root / "train", root / "test", dirs_exist_ok=True)
    shutil.copy(root / "train" / "ant" / "0.png", root / "test" / "dog")
    assert line() == f"data.root: class 'dog' of {root} has test images, but no training images"
    (root / "train" / "dog").mkdir()
    shutil.copy(root / "train" / "ant" / "0.png", root / "train" / "dog")
    assert "class 'dog' has 1 training images, but must have at least 2" in line()


def test_unwritable_cache_and_unreadable_folder_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_images(tmp_path / "made")
    (tmp_path / "file").write_text("")
    with monkeypatch.context() as patch:
        patch.setenv("NAS_CACHE", str(tmp_path / "file"))
        line = refusal(source="imagefolder", root=str(root))
        assert line.startswith(f"NAS_CACHE: {tmp_path}/file/imagefolder cannot be written: Not a directory")

    def closed(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", closed)
    assert refusal(source="imagefolder", root=str(root)) == f"data.root: {root}/train cannot be read: Permission denied"
