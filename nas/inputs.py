"""What users hand in, read strictly: every refusal is one line with the place, the value and the rule."""

from __future__ import annotations

import math
import os
import re
import reprlib
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

MAX_FILE_BYTES = 1_000_000
MAX_FLOW_LEVELS = 100
MAX_FILE_VALUES = 100_000
_SUFFIXES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?(?:[eE]\+?[0-9]{1,2})?)([kMG]?)")
_QUANTITY_RULE = "a positive number, or one with a suffix k, M or G such as 0.363M"


class InputError(ValueError):
    """Something a user wrote cannot be used; its text is the one line to show."""


class Config(BaseModel):
    """Base of everything a user writes in a study file: frozen, strict, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Shown(reprlib.Repr):
    """repr() in bounded time: an alias in YAML makes a list of any size out of a few bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxdict, self.maxlist, self.maxstring = 3, 8, 12, 80

    def repr_int(self, x: int, level: int) -> str:
        return repr(x) if x.bit_length() <= 200 else f"a whole number of {x.bit_length()} bits"


_shown = _Shown().repr


def refuse(where: str, value: object, rule: str) -> InputError:
    """The error line of this project: `where is value, but must be rule`."""
    text = _shown(value)
    return InputError(f"{where} is {text if len(text) <= 80 else text[:77] + '...'}, but must be {rule}")


def is_out_of_memory(error: BaseException) -> bool:
    """torch's error on a GPU is a RuntimeError by class, the one on the CPU a plain RuntimeError, told by its text."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or "DefaultCPUAllocator: can't allocate memory" in str(error)


def first_line(text: object) -> str:
    """Of an error's message, or another text: of what others say one line is passed on."""
    return str(text).strip().partition("\n")[0]


@contextmanager
def damaged(what: str, rule: str = "") -> Iterator[None]:
    """What was read is of another form inside: one line, `what` is damaged (how); what to do."""
    try:
        yield
    except InputError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if is_out_of_memory(error) or type(error).__name__ == "AcceleratorError":  # a GPU that failed
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise InputError(f"{what} is damaged ({reason}){rule and f'; {rule}'}") from None


def choices(names: Iterable[object]) -> str:
    """`one of: a, b, c` for any iterable of names."""
    return "one of: " + ", ".join(sorted(map(str, names)))


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses what silently loses data (repeated keys), and reads dates as the text they are."""

    def fetch_flow_collection_start(self, kind: Any) -> None:
        """Each bracket is looked at again for each token behind it: a thousand of them take seconds."""
        if self.flow_level >= MAX_FLOW_LEVELS:
            raise RecursionError
        super().fetch_flow_collection_start(kind)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for part, _ in node.value:
            if part.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(part, deep=True)
            if not isinstance(key, bool | int | float | str | None):
                problem = f"key {_shown(key)} is not a name"
                raise yaml.constructor.ConstructorError(None, None, problem, part.start_mark)
            if key in seen:
                problem = f"key {_shown(key)} is repeated"
                raise yaml.constructor.ConstructorError(None, None, problem, part.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_yaml(path: Path | str) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises InputError naming the file, and the line where YAML names one, if it is missing, larger than
    MAX_FILE_BYTES, not UTF-8, not YAML, repeats a key, nests or multiplies too much, or is not a mapping.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        text = content.decode("utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not UTF-8 text") from None
    except ValueError as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    if len(content) > MAX_FILE_BYTES:
        raise InputError(f"{path}: is too large: it must have at most {MAX_FILE_BYTES} bytes")
    return parse_yaml(text, str(path))


def parse_yaml(text: str, where: str) -> dict[str, Any]:
    """The mapping in a YAML text; `where` names its source in errors (see read_yaml)."""
    data = parse_value(text, where)
    if data is None:
        raise InputError(f"{where}: is empty, but must be a mapping of names to values")
    if not isinstance(data, dict):
        raise refuse(where, data, "a mapping of names to values")
    for key in data:
        if not isinstance(key, str):
            raise refuse(f"{where}: a key", key, "a name")
    return data


def parse_value(text: str, where: str) -> Any:
    """Any value as YAML; InputError if it is none (see read_yaml)."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if _values(node, {}) > MAX_FILE_VALUES:
            raise InputError(f"{where}: has more than {MAX_FILE_VALUES} values, those behind aliases counted each time")
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"{where}{line}: is not valid YAML: {error.problem}") from None
    except RecursionError:
        raise InputError(f"{where}: nests too deeply") from None
    except InputError:
        raise
    except (yaml.YAMLError, ValueError) as error:
        reason = first_line(error) or type(error).__name__
        raise InputError(f"{where}: is not valid YAML: {reason}") from None


def _values(node: yaml.Node, known: dict[int, float]) -> float:
    """How many values a node holds, those behind an alias each time; infinite where an alias holds itself."""
    if id(node) not in known:
        known[id(node)] = math.inf
        children: Iterable[yaml.Node] = ()
        if isinstance(node, yaml.SequenceNode):
            children = node.value
        elif isinstance(node, yaml.MappingNode):
            children = (part for pair in node.value for part in pair)
        known[id(node)] = 1 + sum(_values(child, known) for child in children)
    return known[id(node)]


def quantity(value: object) -> float:
    """A number, or a text with a suffix: 363000, '0.363M', '30k', '1.5G' (powers of 1000). Raises ValueError."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        number = float(value) if abs(value) < 10**100 else math.inf
    elif isinstance(value, str) and (match := _QUANTITY.fullmatch(value.strip())):
        number = round(float(match[1]) * _SUFFIXES[match[2]], 6)
    else:
        raise ValueError(_QUANTITY_RULE)
    if not 0 < number < math.inf:
        raise ValueError(_QUANTITY_RULE)
    return number


Quantity = Annotated[float, BeforeValidator(quantity)]


def path_rule(rule: str) -> AfterValidator:
    """Of a path, whose ~ it replaces; `rule` says what it should be."""

    def expanded(value: str) -> str:
        if not value.strip() or "\0" in value:
            raise ValueError(rule)
        return os.path.expanduser(value)

    return AfterValidator(expanded)


@lru_cache(maxsize=256)
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def checked(kind: Any, value: object, where: str, separator: str = ": ") -> Any:
    """`value` as `kind` (an annotation or a Config class); InputError `where: key.path is value, but must be rule`."""
    try:
        return _adapter(kind).validate_python(value, strict=None if _is_config(kind) else True)
    except ValidationError as error:
        raise InputError(_line(kind, value, error, where, separator)) from None


def check_options(
    function: Callable[..., Any], given: Collection[str], options: Mapping[str, Any], where: str, name: str
) -> None:
    """Raises InputError for an option that is no parameter of `function`, or one of those `given` to it, or not legal.

    `name` is what users call it.
    """
    kinds = get_type_hints(function, include_extras=True)
    known = sorted(set(kinds) - {*given, "return"})
    for option, value in options.items():
        if option not in known:
            which = f"its options are: {', '.join(known)}" if known else "it has none"
            raise InputError(f"{where}.{option} is not an option of {name}; {which}")
        checked(kinds[option], value, f"{where}.{option}")


def _is_config(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _line(kind: Any, value: object, error: ValidationError, where: str, separator: str) -> str:
    """The line for the first thing that is wrong; where several kinds are allowed, with the rule of each.

    A key that is not known comes before one that is missing: it may be that one, mistyped.
    """
    errors = sorted(error.errors(include_url=False), key=lambda each: each["type"] != "extra_forbidden")
    first = errors[0]
    path = _path(first, value)
    place = where
    for number, part in enumerate(path):
        place += f"[{part}]" if isinstance(part, int) else f".{part}" if number else f"{separator}{part}"
    if first["type"] == "missing":
        return f"{place} is missing"
    if first["type"] == "extra_forbidden":
        return f"{place} is not known; the keys here are: {', '.join(_keys(kind, path[:-1]))}"
    rules = dict.fromkeys(_rule(each, kind, path) for each in errors if _path(each, value) == path)
    return str(refuse(place, first["input"], " or ".join(rules)))


def _path(error: ErrorDetails, value: Any) -> list[int | str]:
    """Where in `value` an error is; pydantic's own path has the kinds of a union in it, too."""
    path = []
    for part in error["loc"]:
        found = isinstance(value, dict) and part in value
        found = found or (isinstance(value, list | tuple) and isinstance(part, int) and part < len(value))
        if found:
            value = value[part]
        if found or (error["type"] == "missing" and part == error["loc"][-1]):
            path.append(part)
    return path


def _rule(error: ErrorDetails, kind: Any, path: list[int | str]) -> str:
    context = error.get("ctx", {})
    match error["type"]:
        case "literal_error":
            return "one of: " + str(context["expected"]).replace("'", "").replace(" or ", ", ")
        case "bool_type":
            return "true or false"
        case "model_type":
            return f"a mapping with the keys: {', '.join(_keys(kind, path))}"
        case "dict_type":
            return "a mapping"
        case "invalid_key":
            return "a name"
        case "too_short":
            return f"a list of at least {context['min_length']}"
    message: str = error["msg"]
    return message.removeprefix("Value error, ").removeprefix("Input should be ")


def _keys(kind: Any, path: list[int | str]) -> list[str]:
    """The field names of the Config that `path` leads to inside `kind`."""
    for part in path:
        if isinstance(part, str):
            kind = next(_configs(kind)).model_fields[part].annotation
    return sorted(next(_configs(kind)).model_fields)


def _configs(kind: Any) -> Iterator[type[BaseModel]]:
    """The Config classes in an annotation: in `list[A | B]`, A and B."""
    if _is_config(kind):
        yield kind
    for part in get_args(kind):
        yield from _configs(part)
