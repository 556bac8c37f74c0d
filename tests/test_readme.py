"""The pages say what the program does: commands parse, files exist, YAML is accepted, Python runs."""

from __future__ import annotations

import inspect
import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from pydantic import BaseModel

from nas import samplers as sampling
from nas.blocks import BLOCKS, options_of
from nas.cli import commands as cli
from nas.cli.arguments import make_parser
from nas.config import LatencyConfig, ProgressConfig, ProxyConfig, RetrainConfig, RungConfig, StudyConfig, TeacherConfig
from nas.data import DataConfig
from nas.executors import EXECUTORS
from nas.report.where import COLUMNS as WHERE_COLUMNS
from nas.report.where import columns_of, where
from nas.samplers import SAMPLERS
from nas.space import Space
from nas.training import Recipe

ROOT = Path(__file__).parent.parent
PAGES = {
    file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8")
    for file in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
COMMANDS = [each for text in PAGES.values() for each in re.findall(r"^    (nas [^\n\\]*)", text, re.MULTILINE)]


def snippets(language: str) -> list[Any]:
    """Those of all pages, with the page and the number for a name."""
    return [
        pytest.param(text, id=f"{page}-{number}")
        for page, content in PAGES.items()
        for number, text in enumerate(re.findall(rf"```{language}\n(.*?)```", content, re.DOTALL))
    ]


def snippet(page: str, start: str) -> Any:
    texts = re.findall(r"```yaml\n(.*?)```", PAGES[page], re.DOTALL)
    return yaml.safe_load(next(text for text in texts if text.startswith(start)))


STUDY = snippet("README.md", "name: cifar10_small")


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_parse_and_name_files_that_exist(command: str) -> None:
    words = shlex.split(command, comments=True)
    options = make_parser().parse_args(words[1:])
    for word in words:
        if word.startswith(("studies/", "search_spaces/")):
            assert (ROOT / word).exists(), word
    table = pd.DataFrame({name: [1.0] for name in WHERE_COLUMNS})
    if getattr(options, "where", None):
        where(table, options.where)
    if getattr(options, "columns", None):
        columns_of(options.columns, table)


def test_the_readme_has_every_command() -> None:
    shown = re.findall(r"^    nas (\w+)", PAGES["README.md"], re.MULTILINE)
    assert set(shown) == cli.COMMANDS.keys()


def table(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading of the reference, without the backticks."""
    text = re.split(rf"^#+ {re.escape(heading)}$", PAGES["docs/reference.md"], flags=re.MULTILINE)[1]
    rows = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)[0].splitlines()[2:]
    return [[cell.strip().strip("`") for cell in row.strip("|").split("|")] for row in rows]


def written(default: str) -> Any:
    return None if default == "none" else yaml.safe_load(default)


@pytest.mark.parametrize(
    ("heading", "section"),
    {
        "study": StudyConfig,
        "data": DataConfig,
        "proxy": ProxyConfig,
        "rungs": RungConfig,
        "retrain": RetrainConfig,
        "teacher": TeacherConfig,
        "progressive": ProgressConfig,
        "recipe": Recipe,
        "latency": LatencyConfig,
    }.items(),
)
def test_the_reference_has_all_keys_and_defaults(heading: str, section: type[BaseModel]) -> None:
    rows = {key: default for key, default, _ in table(heading)}
    assert rows.keys() == section.model_fields.keys()
    for key, field in section.model_fields.items():
        default = field.default.model_dump() if isinstance(field.default, BaseModel) else field.default
        assert (rows[key] == "required") if field.is_required() else (written(rows[key]) == default), key


@pytest.mark.parametrize(
    ("heading", "makers", "given"),
    [("sampler", SAMPLERS, sampling._GIVEN), ("executor", EXECUTORS, {"self", "evaluator", "workers"})],
)
def test_the_reference_has_all_options(heading: str, makers: dict[str, Any], given: set[str]) -> None:
    told = {(name, option): written(default) for name, option, default, _ in table(heading)}
    options = {
        (name, option): parameter.default
        for name, make in makers.items()
        for option, parameter in inspect.signature(make).parameters.items()
        if option not in given
    }
    assert {key: value for key, value in options.items() if value is not inspect.Parameter.empty} == told


@pytest.mark.parametrize("page", PAGES)
def test_extras_and_links_exist(page: str) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert set(re.findall(r"mobile-nas\[(\w+)\]", PAGES[page])) <= extras.keys()
    for target, part in re.findall(r"\]\(([^)#:]*)#?([^):]*)\)", PAGES[page]):
        there = (ROOT / page).parent / target if target else ROOT / page
        assert there.exists(), target
        if part:
            heads = re.findall(r"^#+ (.*)$", there.read_text(encoding="utf-8"), re.MULTILINE)
            assert part in {head.lower().replace(" ", "-") for head in heads}, part


@pytest.mark.parametrize("text", snippets("yaml"))
def test_what_is_yaml_is_a_space_or_goes_into_a_study(text: str) -> None:
    data = yaml.safe_load(text)
    if "stages" in data:
        assert Space.from_dict(data, "page").size > 1000
        return
    latency = {} if "latency" in data else {"latency": {}}
    StudyConfig.of(STUDY | latency | data, "page")
    if "space" in data:
        assert (ROOT / "studies" / data["space"]).is_file()


def programs() -> dict[str, str]:
    """The Python of each page, one snippet behind the other, but for those that need a folder of the reader's."""
    found = {page: re.findall(r"```python\n(.*?)```", text, re.DOTALL) for page, text in PAGES.items()}
    own = re.compile(r"ID-epochs|register\(folder\)")
    return {page: code for page, texts in found.items() if (code := "\n".join(x for x in texts if not own.search(x)))}


PROGRAM = """
import json, sys
for page, code in json.load(sys.stdin).items():
    exec(compile(code, page, "exec"), {"__name__": "__main__"})
"""


def test_what_is_python_runs() -> None:
    assert len(programs()) >= 5
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps(programs()),
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr


def test_the_snippets_mean_what_the_pages_say() -> None:
    study = StudyConfig.of(STUDY | snippet("docs/studies.md", "proxy:"), "page")
    assert [rung.epochs for rung in study.proxy.ladder()] == [1, 3, 9] and study.proxy.keep < 1
    study = StudyConfig.of(STUDY | snippet("docs/studies.md", "retrain:"), "page")
    assert study.retrain and len(study.retrain.progressive) == 2 and study.retrain_recipe().mixup == 0.2
    space = Space.from_dict(snippet("docs/spaces.md", "resolution:"), "page")
    assert set(space.shared) == {"width", "resolution", "groups", "defaults.activation"}
    file = yaml.safe_load((ROOT / "studies" / "cifar10_small.yaml").read_text(encoding="utf-8"))
    for name, value in STUDY["retrain"]["recipe"].items():
        assert file["retrain"]["recipe"][name] == value, "the snippet is a part of the file"


def test_the_executors_of_the_pages_are_rays() -> None:
    for page in ("README.md", "docs/cluster.md"):
        for text in re.findall(r"```yaml\n(.*?)```", PAGES[page], re.DOTALL):
            if "executor:" in text:
                assert StudyConfig.of(STUDY | yaml.safe_load(text), page).executor.name == "ray"


@pytest.mark.parametrize("block", BLOCKS)
def test_the_table_of_blocks_has_their_options_and_defaults(block: str) -> None:
    row = next(line for line in PAGES["docs/spaces.md"].splitlines() if line.startswith(f"| `{block}` |"))
    for name, option in options_of(block).items():
        default = str(option.default).lower() if isinstance(option.default, bool) else option.default
        assert re.search(
            rf"\b{name}\b"
            + (
                ""
                if option.default is None
                else rf" \({default:g}\b"
                if isinstance(default, float)
                else rf" \({default}\b"
            ),
            row,
        ), (block, name)
