"""The README says what the program does: its commands parse, its files exist, its YAML is accepted."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pandas as pd
import pytest
import yaml

from nas.blocks import BLOCKS, options_of
from nas.cli import commands as cli
from nas.cli.arguments import make_parser
from nas.config import StudyConfig
from nas.report.where import COLUMNS as WHERE_COLUMNS
from nas.report.where import columns_of, where
from nas.space import Space

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
COMMANDS = re.findall(r"^    (nas [^\n]*)", README, re.MULTILINE)
DOCS = {file.name: file.read_text(encoding="utf-8") for file in sorted((ROOT / "docs").glob("*.md"))}
CLUSTER = re.findall(r"```yaml\n(.*?)```", DOCS["cluster.md"], re.DOTALL)
IN_DOCS = [each for text in DOCS.values() for each in re.findall(r"^    (nas [^\n\\]*)", text, re.MULTILINE)]


def snippet(start: str) -> str:
    return next(text for text in SNIPPETS if text.startswith(start))


@pytest.mark.parametrize("command", [*COMMANDS, *IN_DOCS])
def test_commands_parse_and_name_files_that_exist(command: str) -> None:
    words = shlex.split(command, comments=True)
    make_parser().parse_args(words[1:])
    for word in words:
        if word.startswith(("studies/", "search_spaces/")):
            assert (ROOT / word).is_file(), word


def test_there_are_commands() -> None:
    assert {shlex.split(command)[1] for command in COMMANDS} == cli.COMMANDS.keys()


def test_what_the_docs_say_of_a_condition_and_of_an_extra_is_so() -> None:
    assert IN_DOCS
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for text in DOCS.values():
        assert set(re.findall(r"mobile-nas\[(\w+)\]", text)) <= extras.keys()
    table = pd.DataFrame({name: [1.0] for name in WHERE_COLUMNS})
    for command in [*COMMANDS, *IN_DOCS]:
        options = make_parser().parse_args(shlex.split(command, comments=True)[1:])
        if getattr(options, "where", None):
            where(table, options.where)
        if getattr(options, "columns", None):
            columns_of(options.columns, table)


def test_the_study_snippet_is_a_study() -> None:
    study = StudyConfig.of(yaml.safe_load(snippet("name: cifar10_small")), "README")
    assert (ROOT / "studies" / study.space).is_file()


def test_the_rungs_snippet_goes_into_a_study() -> None:
    study, rungs = yaml.safe_load(snippet("name: cifar10_small")), yaml.safe_load(snippet("proxy:"))
    proxy = StudyConfig.of(study | rungs, "README").proxy
    assert [rung.epochs for rung in proxy.ladder()] == [1, 3, 9] and proxy.keep < 1


@pytest.mark.parametrize("text", [*(x for x in SNIPPETS if "executor:" in x), *CLUSTER])
def test_what_a_study_says_of_executors_goes_into_one(text: str) -> None:
    study = yaml.safe_load(snippet("name: cifar10_small"))
    assert StudyConfig.of(study | yaml.safe_load(text), "README").executor.name == "ray"


def test_the_retrain_snippet_goes_into_a_study() -> None:
    study, retrain = yaml.safe_load(snippet("name: cifar10_small")), yaml.safe_load(snippet("retrain:"))
    found = StudyConfig.of(study | retrain, "README")
    assert found.retrain and len(found.retrain.progressive) == 2 and found.retrain_recipe().mixup == 0.2


def test_the_latency_snippet_goes_into_a_study() -> None:
    study, latency = yaml.safe_load(snippet("name: cifar10_small")), yaml.safe_load(snippet("latency:"))
    found = StudyConfig.of(study | latency, "README")
    assert found.latency and found.latency.runtime == "onnxruntime" and found.objectives[1] in found.budget


def test_the_space_snippet_is_a_space() -> None:
    space = Space.from_dict(yaml.safe_load(snippet("resolution:")), "README")
    assert space.size > 1000
    assert set(space.shared) == {"width", "resolution", "groups", "defaults.activation"}


@pytest.mark.parametrize("block", BLOCKS)
def test_the_table_of_blocks_has_their_options_and_defaults(block: str) -> None:
    row = next(line for line in README.splitlines() if line.startswith(f"| `{block}` |"))
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


def test_links_of_the_docs_exist() -> None:
    for text in DOCS.values():
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (ROOT / "docs" / target).exists(), target


def test_links_and_pictures_exist() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
