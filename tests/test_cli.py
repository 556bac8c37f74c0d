"""The command line: what it says to every mistake, and the whole job from a space to a trained network."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

import nas
import nas.costs
from nas.cli import main

SPACE: dict[str, Any] = {
    "in_channels": 1,
    "resolution": 8,
    "defaults": {"activation": ["relu", "relu6"]},
    "stem": {"block": "conv", "k": 3, "c": [8, 16]},
    "stages": [
        [
            {"block": "bottleneck", "t": [1, 2], "c": [8, 16], "s": 2, "k": [3, 5]},
            {"block": "separable", "c": [8, 16], "s": 2},
        ],
        {"block": "shuffle", "c": [16, 32], "groups": [1, 2], "s": 2},
    ],
    "head": [{"block": "classifier"}],
}
STUDY: dict[str, Any] = {
    "name": "made",
    "space": "tiny.yaml",
    "data": {"source": "digits", "validation": 0.2},
    "budget": {"params": "8k"},
    "sampler": {"name": "random", "seed": 0},
    "proxy": {"rungs": [1], "recipe": {"lr": 0.1, "batch_size": 64}, "confirm": 0},
    "trials": 3,
    "executor": {"name": "serial"},
    "retrain": {"epochs": 1, "recipe": {"lr": 0.1, "batch_size": 64}},
}
REAL = [str(Path(sys.executable).with_name("nas"))]


class Called(NamedTuple):
    status: int
    out: str
    err: str


def called(command: str | list[str]) -> Called:
    """`nas` in this process."""
    words = shlex.split(command) if isinstance(command, str) else command
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(words)
        except SystemExit as left:
            status = int(left.code or 0)
    return Called(status, out.getvalue(), err.getvalue())


def started(command: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    """`nas` as a user starts it."""
    settings = {"capture_output": True, "text": True, "timeout": 120, "check": False, **settings}
    return subprocess.run([*REAL, *shlex.split(command)], **settings)


def changed(data: dict[str, Any], /, **values: Any) -> dict[str, Any]:
    """A copy with other values; `a__1__b` is the key path a[1].b, and ... removes a key."""
    data = copy.deepcopy(data)
    for path, value in values.items():
        place: Any = data
        *parents, last = [int(part) if part.isdigit() else part for part in path.split("__")]
        for part in parents:
            place = place[part]
        if value is ...:
            del place[last]
        else:
            place[last] = value
    return data


def write(folder: Path, **files: Any) -> None:
    """The space and the study, or what a case has in their place."""
    for name, content in ({"tiny": SPACE, "study": STUDY} | files).items():
        if isinstance(content, dict):
            content = yaml.safe_dump(content)
        (folder / f"{name}.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())


class Case(NamedTuple):
    command: str | list[str]
    says: tuple[str, ...]
    files: dict[str, Any]


def case(command: str | list[str], *says: str, **files: Any) -> Any:
    return pytest.param(Case(command, says, files), id=says[-1][:60])


def space(*says: str, text: Any = None, **values: Any) -> Any:
    """A space with one thing wrong."""
    return case("space tiny.yaml", "nas: tiny.yaml", *says, tiny=changed(SPACE, **values) if text is None else text)


def study(*says: str, options: str = "", **values: Any) -> Any:
    """A study with one thing wrong."""
    return case(f"search study.yaml {options}", *says, study=changed(STUDY, **values))


BOMB = "a0: &a0 [1, 1]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10))
BLOCKS = "must be one of: bottleneck, classifier, conv, cse, fused_bottleneck, identity, maxpool, separable, shuffle"
SPACE_KEYS = "choices, classes, defaults, divisor, head, in_channels, name, resolution, stages, stem, width"
STUDY_KEYS = (
    "budget, data, device, enqueue, executor, latency, name, objectives, proxy, retrain, sampler, space, storage, "
    "time_limit, trials, workers"
)
COSTS = "one of: block_memory_bytes, flops, macs, params, peak_memory_bytes, peak_memory_int8_bytes"
QUANTITY = "must be a positive number, or one with a suffix k, M or G such as 0.363M"
WEIGHTS = "imagenet, a .pth or .safetensors file, or a folder that nas retrain made"
FROM_1 = "must be a whole number from 1"

# Files

SPACES = [
    case("space nowhere.yaml", "nowhere.yaml: cannot be read: No such file or directory"),
    case("space .", ".: cannot be read: Is a directory"),
    case(["space", "a\0b\nc"], "a\\x00b\\nc: cannot be read"),
    case("space /dev/zero", "/dev/zero: is too large: it must have at most 1000000 bytes"),
    space("is empty, but must be a mapping of names to values", text=""),
    space("is [1], but must be a mapping of names to values", text="- 1"),
    space("a key is 1, but must be a name", text="1: 2"),
    space("line 1: is not valid YAML: expected ',' or ']'", text="a: [1"),
    space("line 2: is not valid YAML: key 'a' is repeated", text="a: 1\na: 2"),
    space("line 1: is not valid YAML: key [1] is not a name", text="? [1]\n: 2"),
    space("line 1: is not valid YAML: found undefined alias 'b'", text="a: *b"),
    space("is not valid YAML: unacceptable character #x0007", text="a: \x07"),
    space("is not valid YAML: could not determine a constructor", text="a: !!python/object:os.system x"),
    space("is not UTF-8 text", text=b"\xff\xfe"),
    space("nests too deeply", text="a: " + "[" * 600 + "]" * 600),
    space("has more than 100000 values, those behind aliases counted each time", text=BOMB),
    space("has more than 100000 values", text="a: &a [*a]"),
    space(f"colour is not known; the keys here are: {SPACE_KEYS}", colour=1),
    space("stem is missing", stem=...),
    space("stem.block is 'mbcnv'", BLOCKS, stem__block="mbcnv"),
    space("stem.block is missing", stem__block=...),
    space("stem.t is not known; the keys here are: activation, bias, block, c, groups, k, n, s, scale", stem__t=2),
    space("stem.c is 0, but must be greater than or equal to 1", stem__c=0),
    space("stem.c is 8.5, but must be a valid integer", stem__c=8.5),
    space("stem.c is True, but must be a valid integer", stem__c=True),
    space("stem.c is None, but must be a valid integer", stem__c=None),
    space("stem.c[1] is [16], but must be a valid integer", stem__c=[8, [16]]),
    space("stem.c is a whole number of 1201 bits, but must be less than or equal to 100000", stem__c=16**300),
    space("stem.c is [], but must be a value or a list of at least one value", stem__c=[]),
    space("stem.c is [8, 8], but must be a list without repetitions", stem__c=[8, 8]),
    space("stem.c.by is 'nobody', but must be one of: defaults.activation", stem__c={"by": "nobody"}),
    space("stem.k is 2, but must be an odd number", stem__k=2),
    space("width is nan, but must be", width=float("nan")),
    space("resolution is '2024-01-01', but must be a valid integer", resolution="2024-01-01"),
    space("stages[0] is 3, but must be a mapping", stages=[3]),
    space("head[0].block is 'conv', but must be classifier", head=[{"block": "conv", "c": 8, "k": 1}]),
    space("has no member: stages[1]: shuffle30: ratio=4 does not divide the 30 output channels", stages__1__c=30),
]

# Studies

STUDIES = [
    case("search nowhere.yaml", "nowhere.yaml: cannot be read"),
    case("search tiny.yaml", "tiny.yaml: is a space, not a study; a study names it as its `space`"),
    case("search study.yaml", "tiny.yaml: stem.block is 'conf'", BLOCKS, tiny=changed(SPACE, stem__block="conf")),
    study("nowhere.yaml: cannot be read", space="nowhere.yaml"),
    study("a\\x00b: cannot be read", space="a\0b"),
    study("study.yaml: data is missing", data=...),
    study("study.yaml: name is '../x', but must be the name of a folder", name="../x"),
    study("study.yaml: trials is 0, but must be greater than or equal to 1", trials=0),
    study("study.yaml: trials is True, but must be a valid integer", trials=True),
    study("study.yaml: trials is '1e3', but must be a valid integer", trials="1e3"),
    study("study.yaml: trials is a whole number of 1201 bits, but must be less than or", trials=16**300),
    study("study.yaml: workers is 999, but must be less than or equal to 256", workers=999),
    study(
        "study.yaml: objectives is 'weight', but must be one of: accuracy, block_memory_bytes, flops, latency_ms, ",
        objectives=["weight"],
    ),
    study("study.yaml: objectives is ['params'], but must be accuracy and costs, each once", objectives=["params"]),
    study(
        "study.yaml: budget: name is 'weight', but must be one of: block_memory_bytes, flops, latency_ms, ",
        budget={"weight": 3},
    ),
    study("study.yaml: budget.params is '3q'", QUANTITY, budget={"params": "3q"}),
    study("study.yaml: budget[3] is 3, but must be a valid string", budget={3: 3}),
    study("budget: params 10 leaves nothing of space tiny: its cheapest architecture has ", budget={"params": 10}),
    study("study.yaml: sampler is 'tpe', but must be a mapping with the keys: name, seed", sampler="tpe"),
    study(
        "study.yaml: sampler.name is 'best', but must be one of: nsga2, random, surrogate, tpe",
        sampler={"name": "best"},
    ),
    study("study.yaml: sampler.depth is not an option of surrogate; its options are: pool", sampler={"depth": 3}),
    study("study.yaml: proxy.rungs is [], but must be a list of at least 1", proxy__rungs=[]),
    study("study.yaml: proxy.rungs[0] is 'x', but must be a valid integer", proxy__rungs=["x"]),
    study("study.yaml: proxy.rungs: epochs is [3, 1], but must be rising", proxy__rungs=[3, 1]),
    study("study.yaml: proxy.rungs[0].epoch is not known; the keys here are: epochs", proxy__rungs=[{"epoch": 1}]),
    study("study.yaml: proxy.rungs: share is [1.0, 0.5]", "rising", proxy__rungs=[1, {"epochs": 2, "share": 0.5}]),
    study(
        "study.yaml: proxy.rungs: resolution is [1.0, 0.5]",
        "rising",
        proxy__rungs=[1, {"epochs": 2, "resolution": 0.5}],
    ),
    study("study.yaml: proxy.keep is 0", "greater than 0", proxy__keep=0),
    study("study.yaml: proxy.audit is 1.5", "less than or equal to 1", proxy__audit=1.5),
    study("study.yaml: proxy.confirm is -1", "greater than or equal to 0", proxy__confirm=-1),
    study(
        "study.yaml: proxy.recipe.colour is not known; the keys here are: like, batch_size,",
        proxy__recipe={"colour": 1},
    ),
    study("study.yaml: proxy.recipe.epochs is not known; it stands beside", proxy__recipe={"epochs": 1}),
    study("study.yaml: proxy.recipe.optimiser is 'adam', but must be one of: ", proxy__recipe={"optimiser": "adam"}),
    study(
        "study.yaml: retrain is 3, but must be a mapping with the keys: average_flips, data, epochs, "
        "progressive, recipe, teacher, weights",
        retrain=3,
    ),
    study("study.yaml: retrain.recipe.lr is -1, but must be", retrain={"epochs": 1, "recipe": {"lr": -1}}),
    study("study.yaml: retrain.teacher.folder is missing", retrain={"epochs": 1, "teacher": {"share": 0.5}}),
    study("study.yaml: retrain.teacher.folder is [], but must", retrain={"epochs": 1, "teacher": {"folder": []}}),
    study(
        "study.yaml: retrain.teacher.folder[1] is ' ', but must be the folder of an earlier retraining",
        retrain={"epochs": 1, "teacher": {"folder": ["a", " "]}},
    ),
    study(f"study.yaml: retrain.weights is ' ', but must be {WEIGHTS}", retrain={"epochs": 1, "weights": " "}),
    study(f"study.yaml: retrain.weights is 'a\\x00', but must be {WEIGHTS}", retrain={"epochs": 1, "weights": "a\0"}),
    study("study.yaml: retrain.weights is 3, but must be a valid string", retrain={"epochs": 1, "weights": 3}),
    study("study.yaml: device is 'gpu', but must be a device of this machine, one of: cpu", device="gpu"),
    study("study.yaml: storage is 'nonsense', but must be the URL of a database", storage="nonsense"),
    study("study.yaml: storage is 'sqlite:////nowhere/x.db', but must be", storage="sqlite:////nowhere/x.db"),
    study("nowhere.yaml: cannot be read", enqueue=["nowhere.yaml"]),
    study(
        "tiny.yaml: defaults is not known; the keys here are: in_channels, resolution, stages", enqueue=["tiny.yaml"]
    ),
]

# Images; the folder `images` has one that is damaged.

IMAGES = {"source": "imagefolder", "root": "images", "validation": 2}
DATA = [
    study("study.yaml: data.source is 'mnist', but must be one of: cifar10, cifar100,", data={"source": "mnist"}),
    study("data.validation is 5000, but must be less than the 1438", data={"source": "digits", "validation": 5000}),
    study("data.validation is 1.5, but must be a whole number", data={"source": "digits", "validation": 1.5}),
    study("data.root is missing: imagefolder needs", data={"source": "imagefolder"}),
    study("nowhere', but must be a folder that holds train/<class>/", data=IMAGES | {"root": "nowhere"}),
    study("no_classes/train has no folders, but must have one", data=IMAGES | {"root": "no_classes"}),
    study("data.root: 1 of the 8 images cannot be read, the first is ", "skip leaves them out", data=IMAGES),
    study("'/nowhere', but must be a folder that holds train/", options="--data-root /nowhere", data=IMAGES),
    study("--data-root is '', but must be the path of a folder", options="--data-root ''", data=IMAGES),
    study("study.yaml: data.root is ' ', but must be the path of a folder", data=IMAGES | {"root": " "}),
    study("cifar', but must be a folder that holds cifar-10", data={"source": "cifar10", "root": "cifar"}),
]

# Words

WORDS = [
    case(
        "", "arguments are required: COMMAND", "{space,search,front,report,compare,retrain,bench,trust,export,latency}"
    ),
    case("train", "COMMAND: invalid choice: 'train'", "choose from", "retrain"),
    case("space tiny.yaml --colour", "'--colour' is not known here", "[--budget COST=LIMIT]", "nas space --help"),
    case("search study.yaml --trial 3", "'--trial' is not known here", "[--trials N]"),
    case("front", "required: RUN", "usage: nas front"),
    case("front run more", "'more' is not known here", "usage: nas front"),
    *(case(f"space tiny.yaml --samples {text}", f"--samples is '{text}'", FROM_1) for text in ("0", "-1", "x", "1.5")),
    case("space tiny.yaml --samples 99999999999", "--samples is '99999999999'", "to 999999999"),
    case("space tiny.yaml --seed -1", "--seed is '-1', but must be a whole number from 0"),
    *(case(f"search study.yaml --trials {text}", f"--trials is '{text}'", FROM_1) for text in ("0", "-3", "many")),
    case("space tiny.yaml --budget params", "--budget is 'params'", "COST=LIMIT", COSTS),
    case("space tiny.yaml --budget weight=3k", "--budget is 'weight=3k'", COSTS),
    *(
        case(f"space tiny.yaml --budget params={text}", f"--budget params is '{text}'", QUANTITY)
        for text in ("", "-1", "0", "nan", "1e999", "10q")
    ),
    case("space tiny.yaml --budget macs=1k --budget macs=2k", "--budget is 'macs=2k'", "the only one for macs"),
    *(case(f"search study.yaml --hours {x}", f"--hours is '{x}'", "above 0") for x in ("0", "-1", "nan", "inf", "x")),
    case("compare", "required: RUN", "usage: nas compare"),
    case("compare nowhere", "nowhere: is not a run"),
    case("compare study.yaml --plot x.txt", "--plot is 'x.txt', but must be a file that ends in"),
    *(case(f"search study.yaml --set {x}", f"--set is '{x}'", "KEY.PATH=VALUE") for x in ("trials", "=3", "a..b=1")),
    case("search study.yaml --set trials=[1", "--set trials=[1, line 1: is not valid YAML"),
    case("search study.yaml --set trials=", "study.yaml: trials is None, but must be a valid integer"),
    case("search study.yaml --set colour=1", f"study.yaml: colour is not known; the keys here are: {STUDY_KEYS}"),
    case("search study.yaml --set name.x=1", "--set name.x=1: name is 'made', but must be a mapping"),
    case("search study.yaml --run study.yaml", "--run is 'study.yaml', but must be a folder"),
    case("search study.yaml --run study.yaml/x", "study.yaml/x: cannot be written: Not a directory"),
]

# How far to trust a proxy

TRUST = [
    case("trust nowhere.yaml", "nowhere.yaml: cannot be read"),
    case("trust", "required: STUDY", "usage: nas trust"),
    case("trust study.yaml --trials 3", "'--trials' is not known here", "[--candidates N]"),
    *(case(f"trust study.yaml --candidates {text}", f"--candidates is '{text}'", FROM_1) for text in ("-4", "many")),
    case("trust study.yaml --candidates 3", "--candidates is 3, but must be at least 4"),
    *(
        case(f"trust study.yaml --tau {text}", f"--tau is '{text}', but must be a number from -1 to less than 1")
        for text in ("1", "-1.5", "nan", "high")
    ),
    case("trust study.yaml --epochs 0", "--epochs is '0'", FROM_1),
    case("trust study.yaml --epochs 1", "--epochs is 1, but must be more than the 1 of the study's short training"),
    case("trust study.yaml", "--epochs is 1, but must be more than the 1"),
    case("trust study.yaml", "--epochs is missing: study made has no retrain", study=changed(STUDY, retrain=...)),
    case("trust study.yaml --epochs 2 --candidates 121", "--candidates is 121, but must be at most 120, the distinct"),
    case("trust study.yaml --epochs 2 --run run", "run: is the run of a search; choose another folder with --run"),
    case("trust study.yaml --epochs 2 --run study.yaml", "--run is 'study.yaml', but must be a folder"),
    case("trust study.yaml --set trials", "--set is 'trials', but must be KEY.PATH=VALUE"),
    case("trust study.yaml --data-root ''", "--data-root is '', but must be the path of a folder"),
    case("trust study.yaml --epochs 2", "budget: params 10 leaves", study=changed(STUDY, budget={"params": 10})),
    case("trust study.yaml --epochs 2 --set device=gpu", "study.yaml: device is 'gpu', but must be a device of this"),
]

# Runs; the folder `run` has a finished search.

RUNS = [
    case("front nowhere", "nowhere: is not a run: it has no study.yaml; begin one with: nas search STUDY"),
    case("front study.yaml", "study.yaml: is not a run"),
    case("front .", ".: has no journal.log yet: the search has not begun"),
    *(
        case(f"{command} run --pick {which}", f"--pick is '{which.strip(chr(39))}', but must be knee, best, or the")
        for command in ("front", "retrain")
        for which in ("zzz", "''", "Knee")
    ),
    case("front run --plot a.gif", "--plot is 'a.gif', but must be a file that ends in .png, .svg, .pdf"),
    case("front run --plot a --csv a.csv", "--plot is 'a', but must be a file that ends in .png"),
    case("front run --plot nowhere/a.png", "--plot is 'nowhere/a.png', but must be a file in a folder that exists"),
    case("front run --pick zzz --csv a.csv", "--pick is 'zzz'"),
    case("front run --csv .", "--csv is '.', but must be a file in a folder that exists"),
    case("retrain run --device gpu", "--device is 'gpu', but must be a device of this machine, one of: cpu"),
    case("retrain run --data-root ''", "--data-root is '', but must be the path of a folder"),
    case("retrain run --epochs 0", "--epochs is '0'", FROM_1),
    case("retrain run --set trials=3", "--set is 'trials=3', but must be retrain.KEY=VALUE: the search is over"),
    case("retrain run --set retrain.recipe.lr=-1", "retrain.recipe.lr is -1, but must be"),
    case("retrain run --set retrain.recipe.rate=1", "retrain.recipe.rate is not known; the keys here are: "),
    case("retrain run --set retrain.recipe", "--set is 'retrain.recipe', but must be KEY.PATH=VALUE"),
    case("retrain run --weights ''", "--weights is '', but must be imagenet, a file or a folder"),
    *(case(f"retrain run --weights {x}", f"weights is '{x}', but must be {WEIGHTS}") for x in ("imagnet", "images")),
    case(["retrain", "run", "--teacher", " "], "teacher is ' ', but must be the path of a folder"),
    case("retrain run --teacher a --teacher b --set retrain.teacher.share=2", "teacher.share is 2, but must be"),
    case("retrain run --teacher missing", "missing/weights.safetensors: cannot be read: No such file"),
    case(["retrain", "run", "--weights", "a\0\n"], f"weights is 'a\\x00\\n', but must be {WEIGHTS}"),
    case("retrain run --weights /dev/zero", f"weights is '/dev/zero', but must be {WEIGHTS}"),
    case("retrain run --weights study.yaml", "study.yaml: is damaged, or is not what torch.save makes of a state dict"),
    case("retrain run --weights imagenet", "imagenet: features.0.0.weight has shape [16, 3, 3, 3], but must be the"),
    case(
        "search study.yaml --run run --set sampler.seed=3",
        "run: was begun with another study",
        '"seed": 0',
        '"seed": 3',
    ),
    case("search study.yaml --run run --set proxy.recipe.lr=0.2", "study: proxy.recipe.lr is 0.1 there and 0.2"),
    case("search study.yaml --run run", "run: was begun with another space", tiny=changed(SPACE, stem__c=[8, 24])),
]


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Called]]:
    """A folder with a finished search in it, and what the command said."""
    folder = tmp_path_factory.mktemp("searched")
    write(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder, called("search study.yaml")


@pytest.fixture
def here(
    searched: tuple[Path, Called], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Path:
    """The working directory: the space, the study, the run as a copy, folders of images."""
    shutil.copytree(searched[0] / "runs/made", tmp_path / "run")
    (tmp_path / "no_classes/train").mkdir(parents=True)
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            folder = tmp_path / "images" / part / name
            folder.mkdir(parents=True)
            for number in range(2):
                Image.new("L", (8, 8), number).save(folder / f"{number}.png")
    (tmp_path / "images/train/cat/1.png").write_bytes(b"no image")
    write(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("wrong", [*SPACES, *STUDIES, *DATA, *WORDS, *TRUST, *RUNS])
def test_a_mistake_is_one_line_that_says_where_what_and_the_rule(wrong: Case, here: Path) -> None:
    write(here, **wrong.files)
    before = snapshot(here / "run")
    status, out, err = called(wrong.command)
    assert (status, out) == (2, "")
    assert err.startswith("nas: ") and err.endswith("\n") and err.count("\n") == 1
    for text in wrong.says:
        assert text in err
    assert "Traceback" not in err
    assert not (here / "runs").exists() and not (here / "a.csv").exists()
    assert snapshot(here / "run") | {str(here / "run/run.lock"): b""} == before | {str(here / "run/run.lock"): b""}


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ("nas.report.tables.front_csv", PermissionError(13, "Permission denied", "a.csv")),
        ("nas.run.Run.trials", OSError(28, "No space left on device", "run/journal.log")),
    ],
)
def test_a_file_that_fails_is_one_line(
    command: str, error: OSError, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(command, fail)
    status, out, err = called("front run --csv a.csv")
    assert (status, out) == (2, "")
    assert re.fullmatch(r"nas: [^\n]*(a.csv|journal.log)[^\n]*(Permission denied|No space left)[^\n]*\n", err)


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="a folder that even root cannot write")
@pytest.mark.parametrize(
    "command", ["search study.yaml --run /sys/x", "front run --csv /sys/x", "front run --plot /sys/x.png"]
)
def test_a_folder_that_cannot_be_written(command: str, here: Path) -> None:
    status, out, err = called(command)
    assert (status, out) == (2, "")
    assert re.fullmatch(r"nas: [^\n]*/sys/x[^\n]*be written[^\n]*\n", err)


def test_a_run_of_a_study_without_retrain_says_how_to_add_it(here: Path) -> None:
    write(here / "run", study=changed(yaml.safe_load((here / "run/study.yaml").read_text()), retrain=None))
    status, _, err = called("retrain run")
    assert status == 2
    assert err == (
        "nas: study made: retrain is missing; add retrain: {epochs: N} to the study file, then run nas search again\n"
    )


def test_a_run_without_a_trained_candidate_says_how_to_go_on(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nas.Run, "all_trials", lambda run: [])
    assert lines(called("front run")) == ["no trained candidate yet", "", "next: nas search STUDY --run run"]
    assert json.loads(called("front run --json").out) == []
    assert called("retrain run").err == "nas: run: has no trained candidate yet\n"


# The whole job


def lines(called: Called) -> list[str]:
    assert called.status == 0, called.err
    return called.out.splitlines()


def test_a_search_is_quiet_and_ends_with_the_front(searched: tuple[Path, Called]) -> None:
    folder, result = searched
    header, *rows, where = lines(result)
    assert where == "tables and picture: runs/made/trials.parquet, front.parquet, front.csv, front.png, receipt.json"
    assert header.split() == ["id", "accuracy", "params", "macs", "stages"]
    assert sum(row.startswith("knee ") for row in rows) == 1
    assert rows[-1] == "next: nas front runs/made --pick knee, then: nas retrain runs/made --pick knee"
    first, *progress = result.err.splitlines()
    assert first == "space tiny: 120 architectures; 3 candidates to train; results in runs/made"
    assert len(progress) == 3
    for number, line in enumerate(progress, 1):
        assert re.fullmatch(
            rf"{number}/3 trained [0-9a-f]{{12}}: accuracy 0\.\d{{4}}, [\d,]+ params, [\d,]+ MACs"
            r" \| best 0\.\d{4} at [\d,]+ params \| \d+ (s|min) each, \d+ (s|min) left",
            line,
        )
    names = {path.name for path in (folder / "runs/made").iterdir()}
    assert {"study.yaml", "space.yaml", "trials.parquet", "front.parquet", "front.csv", "front.png", "front"} <= names


def test_the_reference_names_what_a_run_leaves(searched: tuple[Path, Called]) -> None:
    text = (Path(__file__).parent.parent / "docs/reference.md").read_text(encoding="utf-8")
    for path in (searched[0] / "runs/made").iterdir():
        assert f"`{path.name}" in text, path.name


def test_searching_again_does_nothing_more(here: Path, searched: tuple[Path, Called]) -> None:
    again = called("search study.yaml --run run")
    assert [x.replace("runs/made", "run") for x in lines(searched[1])] == lines(again)
    assert again.err == "space tiny: 120 architectures; 3 of 3 candidates were trained before; results in run\n"
    before = pd.read_parquet(searched[0] / "runs/made/trials.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(here / "run/trials.parquet"), before)


def test_a_search_goes_on_with_more_trials(here: Path) -> None:
    result = called("search study.yaml --run run --trials 4 --json")
    assert "3 of 4 candidates were trained before" in result.err and "\n4/4 trained" in result.err
    front = json.loads(result.out)
    assert front == json.loads(called("front run --json").out)


COLUMNS = [
    *"number id accuracy accuracy_std measurements".split(),
    *nas.costs.COSTS,
    *"epochs seconds stages knee".split(),
]


def test_the_front_as_text_json_csv_and_pictures(here: Path, searched: tuple[Path, Called]) -> None:
    text = called("front run --csv a.csv --plot a.png")
    assert lines(text) == [line.replace("runs/made", "run") for line in lines(searched[1])[:-1]]
    records = json.loads(called("front run --json --plot a.svg").out)
    assert all(list(record) == COLUMNS for record in records)
    assert sum(record["knee"] for record in records) == 1
    assert [record["params"] for record in records] == sorted(record["params"] for record in records)
    table = pd.read_csv(here / "a.csv")
    assert list(table.columns) == COLUMNS and len(table) == len(records)
    assert (here / "a.png").read_bytes().startswith(b"\x89PNG")
    assert (here / "a.svg").read_text().startswith("<?xml")


def test_a_pick_is_shown_in_full(here: Path) -> None:
    front = json.loads(called("front run --json").out)
    knee = next(record for record in front if record["knee"])
    best = max(front, key=lambda record: record["accuracy"])
    for which, record in (("knee", knee), ("best", best), (best["id"], best), (best["id"][:11], best)):
        shown = lines(called(f"front run --pick {which}"))
        assert shown[0].startswith(f"{record['id']}: accuracy {record['accuracy']:.4f}, {record['params']:,} params, ")
        assert shown[1].split()[:6] == ["input", "operator", "t", "c", "n", "s"]
        assert shown[-1] == f"next: nas retrain run --pick {record['id']}"
        facts = json.loads(called(f"front run --json --pick {which}").out)
        architecture = nas.Architecture.from_dict(facts.pop("architecture"))
        assert architecture.id == record["id"]
        assert facts == record


def test_retrain_ends_in_a_network_to_load(here: Path) -> None:
    text = called("retrain run --pick best --seed 1")
    assert text.err.startswith("epoch 1/1: loss ") and text.err.count("\n") == 1
    first, _, where, next_line = lines(text)
    assert re.fullmatch(
        r"[0-9a-f]{12}: test accuracy 0\.\d{4} with [\d,]+ params and [\d,]+ MACs \(1 epochs on .*\)", first
    )
    folder = where.removeprefix("weights, architecture, result: ")
    assert next_line == f"next, in Python: nas.load({folder!r})"
    network = nas.load(folder)
    assert network(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    again = called("retrain run --pick best --seed 1 --json")
    assert again.err == ""
    result = json.loads(again.out)
    assert result["folder"] == folder and f"{result['test_accuracy']:.4f}" in first
    shutil.copytree(folder, "größer 🦉")
    pupil = ["retrain", "run", "--pick", "best", "--teacher", folder, "--teacher", "größer 🦉"]
    taught = called([*pupil, "--set", "retrain.teacher.share=0.5"])
    assert f"taught by {folder} and größer 🦉, seed 0" in taught.out
    result = json.loads(called([*pupil, "--set", "retrain.teacher.share=0.5", "--json"]).out)
    about = result["training"]["teacher"]
    assert about["share"] == 0.5 and about["sha256"] == [about["sha256"][0]] * 2


def test_space_says_what_fits(here: Path) -> None:
    text = lines(called("space tiny.yaml --budget params=2k --samples 1000"))
    assert text[0] == "tiny: 120 architectures (120 distinct networks), 9 choices"
    assert text[2] == "costs of all architectures, exact:"
    assert text[3].split() == ["min", "5%", "median", "95%", "max"]
    facts = json.loads(called("space tiny.yaml --budget params=2k --samples 1000 --json").out)
    assert f"within params <= 2,000: {facts['fits']['share']:.1%} (exact)" in text
    assert text[-1].startswith("next: write a study with `space: tiny.yaml`")
    larger = json.loads(called("space tiny.yaml --json --classes 100 --channels 3").out)
    wider = nas.Space.load("tiny.yaml", 3, 100)
    assert {x["params"] for x in larger["examples"]} <= {nas.costs.costs(x)["params"] for x in wider.enumerate()}
    assert larger["costs"]["params"]["min"] > facts["costs"]["params"]["min"]


# Help, and leaving


@pytest.mark.parametrize("command", ["space", "search", "front", "retrain", "trust"])
def test_help_of_a_command(command: str) -> None:
    text = called(f"{command} --help")
    assert text.status == 0 and text.err == ""
    assert text.out.startswith(f"usage: nas {command} ")
    assert f"example:\n  nas {command} " in text.out and "--json" in text.out
    assert max(map(len, text.out.splitlines())) <= 100


def test_help_is_quick_and_light() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    results = [started("--help") for _ in range(3)]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert all(command in results[0].stdout for command in ("space", "search", "front", "retrain", "trust"))
    # Processor time, the mean of three: the wall belongs to whatever else the machine does.
    assert (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / 3 < 0.5
    script = "import sys, nas.cli; nas.cli._parser().format_help(); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "optuna", "pandas", "numpy", "matplotlib", "rich", "pydantic", "yaml"} & set(modules)


def test_a_space_is_looked_at_without_what_a_search_needs(tmp_path: Path) -> None:
    write(tmp_path)
    script = "import sys, nas.cli; nas.cli.main(sys.argv[1:]); print(*sys.modules)"
    command = [sys.executable, "-c", script, "space", str(tmp_path / "tiny.yaml"), "--budget", "params=1M"]
    modules = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert "torch" in modules
    assert not {"optuna", "pandas", "scipy", "matplotlib", "rich"} & set(modules)


def test_the_real_command_refuses_like_main(here: Path) -> None:
    for command in ("space nowhere.yaml", "search study.yaml --trials 0", "-x"):
        real = started(command, cwd=here)
        assert (real.returncode, real.stdout, real.stderr) == called(command)


GOES_ON = "nothing is lost, this goes on with it"


@pytest.mark.parametrize(
    ("command", "function", "line"),
    [
        ("space tiny.yaml", "nas.report.describe.describe_space", "nas: stopped"),
        ("front run", "nas.run.Run.trials", "nas: stopped"),
        (
            "search 'a b.yaml'",
            "nas.study.search",
            "nas: stopped; nothing is lost, this goes on with it: nas search 'a b.yaml'",
        ),
        ("retrain run", "nas.retrain.retrain", "nas: stopped; nothing is lost, this goes on with it: nas retrain run"),
        ("trust a.yaml", "nas.trust.trust", "nas: stopped; nothing is lost, this goes on with it: nas trust a.yaml"),
    ],
)
def test_ctrl_c(command: str, function: str, line: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(function, interrupt)
    assert called(command) == (130, "", line + "\n")


def test_ctrl_c_in_a_real_search(here: Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [*REAL, *shlex.split("search study.yaml --run real --trials 100 --set executor.name=processes")]
    with subprocess.Popen(command, cwd=here, env=environment, stdout=-1, stderr=-1, text=True) as process:
        assert process.stderr is not None and process.stdout is not None
        for line in process.stderr:
            if line.startswith("1/100 trained"):
                break
        process.send_signal(signal.SIGINT)
        *_, last = process.stderr
        assert process.wait(60) == 130
        assert last.startswith("nas: stopped; nothing is lost, this goes on with it: nas search study.yaml")
        assert process.stdout.read() == ""
    assert json.loads(called("front real --json").out)


def test_a_reader_that_leaves_is_no_error(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        assert main(["space", "tiny.yaml"]) == 1
