"""What users hand in, read strictly: every refusal is one line with the place, the value and the rule."""

from __future__ import annotations

import re
from collections.abc import Hashable
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, TypeAdapter, ValidationError

MAX_FILE_BYTES = 1_000_000
_SUFFIXES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?(?:e[0-9]{1,2})?)([kMG]?)")


class InputError(ValueError):
    """Something a user wrote cannot be used; its text is the one line to show."""


class Config(BaseModel):
    """Base of everything a user writes in a study file: frozen, strict, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def refuse(where: str, value: object, rule: str) -> InputError:
    """The error line of this project: `where is value, but must be rule`."""
    text = repr(value)
    return InputError(f"{where} is {text if len(text) <= 80 else text[:77] + '...'}, but must be {rule}")


def choices(names: object) -> str:
    """`one of: a, b, c` for any iterable of names."""
    return "one of: " + ", ".join(sorted(str(name) for name in names))  # type: ignore[attr-defined]


class _Loader(yaml.SafeLoader):
    """Safe YAML that also refuses what silently loses data: repeated keys, and aliases that multiply."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        for key in keys:
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is not a scalar", node.start_mark)
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is repeated", node.start_mark)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path | str) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises InputError naming the file, and the line where YAML names one, if it is missing, larger than
    MAX_FILE_BYTES, not UTF-8, not YAML, repeats a key, nests or multiplies too much, or is not a mapping.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InputError(f"{path}: has {path.stat().st_size} bytes, but must have at most {MAX_FILE_BYTES}")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not UTF-8 text") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, where: str) -> dict[str, Any]:
    """The mapping in a YAML text; `where` names its source in errors (see read_yaml)."""
    try:
        if len([token for token in yaml.scan(text) if isinstance(token, yaml.AliasToken)]) > 100:
            raise InputError(f"{where}: has more than 100 aliases")
        data = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"{where}{line}: is not valid YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0] or type(error).__name__
        raise InputError(f"{where}: is not valid YAML: {reason}") from None
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise InputError(f"{where}: must be a mapping of names to values")
    return data


def quantity(value: object) -> float:
    """A number, or a text with a suffix: 363000, '0.363M', '30k', '1.5G' (powers of 1000). Raises ValueError."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        number = float(value)
    elif isinstance(value, str) and (match := _QUANTITY.fullmatch(value.strip())):
        number = round(float(match[1]) * _SUFFIXES[match[2]], 6)
    else:
        raise ValueError("a positive number, or one with a suffix k, M or G such as 0.363M")
    if not 0 < number < float("inf"):
        raise ValueError("a positive number, or one with a suffix k, M or G such as 0.363M")
    return number


Quantity = Annotated[float, BeforeValidator(quantity)]


@lru_cache(maxsize=256)
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def checked(kind: Any, value: object, where: str, separator: str = ": ") -> Any:
    """`value` as `kind` (an annotation or a Config class); InputError `where: key.path is value, but must be rule`."""
    try:
        adapter = _adapter(kind)
        return adapter.validate_python(value, strict=None if _is_config(kind) else True)
    except ValidationError as error:
        raise InputError(_line(kind, error, where, separator)) from None


def _is_config(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _line(kind: Any, error: ValidationError, where: str, separator: str) -> str:
    first = error.errors(include_url=False)[0]
    path = ""
    for part in first["loc"]:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    place = f"{where}{separator}{path}" if path else where
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if first["type"] == "missing":
        return f"{place} is missing"
    if first["type"] == "extra_forbidden":
        return f"{place} is not known; the keys here are: {', '.join(_keys(kind, first['loc'][:-1]))}"
    if first["type"] == "literal_error":
        message = "one of: " + first["ctx"]["expected"].replace("'", "").replace(" or ", ", ")
    return str(refuse(place, first["input"], message))


def _keys(kind: Any, path: tuple[int | str, ...]) -> list[str]:
    """The field names of the Config that `path` leads to inside `kind`."""
    for part in path:
        if not _is_config(kind) or part not in kind.model_fields:
            break
        annotation = kind.model_fields[str(part)].annotation
        options = [annotation, *getattr(annotation, "__args__", ())]
        kind = next((option for option in options if _is_config(option)), kind)
    return sorted(field.alias or name for name, field in kind.model_fields.items()) if _is_config(kind) else []
