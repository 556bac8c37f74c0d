"""The order of the modules (DESIGN, Layers), and proof that breaking it is noticed."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "nas"

# The one list. A module is a file of nas/ or a family folder; it imports only from rows above its own.
LAYERS = (
    ("inputs", "files", "machine", "meta"),
    ("fused",),
    ("architecture", "blocks", "data", "export", "pareto", "rungs", "trivial"),
    ("rows", "network", "augment", "surrogate"),
    ("space", "training", "trace", "weights", "pictures"),
    ("costs", "samplers", "latency", "card"),
    ("census", "evaluation", "bench", "scores"),
    ("executors", "tables", "storages"),
    ("config",),
    ("run",),
    ("study", "retrain", "trust"),
    ("report", "deploy", "timm_models", "tracking"),
    ("cli",),
    ("__main__",),
)
Layers = Sequence[Sequence[str]]


def test_every_import_of_nas_points_upwards() -> None:
    found = violations(PACKAGE, LAYERS)
    assert not found, "\n" + "\n".join(found)


def violations(package: Path, layers: Layers) -> list[str]:
    """One line for each module that is in no row and for each import that breaks a rule, as file:line.

    The package's own __init__.py is the public face: it may import any module, and no module imports it.
    """
    rows = {module: row for row, modules in enumerate(layers) for module in modules}
    found = []
    for file in sorted(package.rglob("*.py")):
        module = file.relative_to(package).parts[0].removesuffix(".py")
        place = file.relative_to(package.parent).as_posix()
        if module not in rows and module != "__init__":
            found.append(f"{place}:1 is module {module}, which is in no row of LAYERS")
            continue
        for line, target in imports(ast.parse(file.read_text(encoding="utf-8")), package.name):
            reason = broken(module, target, package.name, rows)
            if reason:
                found.append(f"{place}:{line} imports {target}, {reason}")
    return found


def broken(module: str, target: str, package: str, rows: dict[str, int]) -> str | None:
    """Why `module` may not import `target`, a dotted name; None if it may."""
    if target.startswith("."):
        return f"but imports of {package} are absolute"
    if target == package:
        return f"but imports name the module: from {package}.x import y"
    other = target.split(".")[1]
    if other not in rows:
        return "which is in no row of LAYERS"
    if module in ("__init__", other) or rows[other] < rows[module]:
        return None
    return f"which is in row {rows[other]}; {module} is in row {rows[module]} and imports only from rows above"


def imports(tree: ast.AST, package: str) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of each import of `package`, wherever it stands; relative ones keep their dots."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level:
            names = ["." * node.level + (node.module or "")]
        elif isinstance(node, ast.ImportFrom) and node.module == package:
            names = [f"{package}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
            names = [str(x.value) for x in node.args[:1] if isinstance(x, ast.Constant)]
        for name in names:
            if name.startswith(".") or name.split(".")[0] == package:
                yield getattr(node, "lineno", 1), name


def test_no_module_is_listed_twice() -> None:
    modules = [module for row in LAYERS for module in row]
    assert len(modules) == len(set(modules))


# A made-up package: below and above `middle`, which is a family folder, and `beside` in its row.
ROWS = (("above",), ("middle", "beside"), ("below",), ("absent",))
SOUND = {
    "__init__.py": "from nas.below import a",
    "above.py": "import ast\nfrom nasty.below import a\nfrom __future__ import annotations",
    "beside.py": "import nas.above",
    "below.py": "import importlib\n\ndef f(name):\n    from nas.middle.one import a\n    importlib.import_module(name)",
    "middle/__init__.py": "from nas.middle.one import a",
    "middle/one.py": "from nas.above import a\nfrom nas import above",
}


def made(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / "nas" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder / "nas"


def test_a_sound_package_passes(tmp_path: Path) -> None:
    assert violations(made(tmp_path, SOUND), ROWS) == []


DOWN = "imports nas.below, which is in row 2; middle is in row 1 and imports only from rows above"
ROOT = "imports nas, but imports name the module: from nas.x import y"


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("middle/two.py", "\nfrom nas.below import a", f":2 {DOWN}"),
        ("middle/deep/er.py", "from nas.below import a", f":1 {DOWN}"),
        ("middle/two.py", "import nas.below", f":1 {DOWN}"),
        ("middle/two.py", "from nas import above, below", f":1 {DOWN}"),
        ("middle/two.py", "def f():\n    from nas.below import a", f":2 {DOWN}"),
        ("middle/two.py", "if TYPE_CHECKING:\n    from nas.below import a", f":2 {DOWN}"),
        ("middle/two.py", "import_module('nas.below')", f":1 {DOWN}"),
        ("middle/two.py", "importlib.import_module('nas.below')", f":1 {DOWN}"),
        (
            "middle/two.py",
            "from nas.beside import a",
            ":1 imports nas.beside, which is in row 1; middle is in row 1 and imports only from rows above",
        ),
        ("middle/two.py", "from nas.gone import a", ":1 imports nas.gone, which is in no row of LAYERS"),
        ("middle/two.py", "from .one import a", ":1 imports .one, but imports of nas are absolute"),
        ("middle/two.py", "from .. import above", ":1 imports .., but imports of nas are absolute"),
        ("middle/two.py", "import nas", f":1 {ROOT}"),
        ("stray.py", "", ":1 is module stray, which is in no row of LAYERS"),
        ("stray/one.py", "", ":1 is module stray, which is in no row of LAYERS"),
        ("__init__.py", "from .above import a", ":1 imports .above, but imports of nas are absolute"),
    ],
)
def test_a_violation_is_named(tmp_path: Path, file: str, text: str, expected: str) -> None:
    assert violations(made(tmp_path, SOUND | {file: text}), ROWS) == [f"nas/{file}{expected}"]
