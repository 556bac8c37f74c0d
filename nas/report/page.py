"""Pages: one HTML file each, which asks no network for anything."""

from __future__ import annotations

import base64
import gzip
import html
import json
import re
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from nas.files import write_text

_MARK = re.compile(r"<!--(TITLE|STYLE|BODY|SCRIPT|DATA|PLOTLY|REFRESH)-->")


def write_page(path: Path, kind: str, title: str, facts: dict[str, Any], refresh: int | None = None) -> None:
    """Writes a page of `kind` (report, compare) with `facts`, plain values; `refresh`: a browser reads it again after
    so many seconds.

    What comes from files is in no place where HTML or JavaScript is read: the facts are JSON, packed as base64, and
    the script makes text of them, never markup. The page's own policy forbids it any request.
    """
    again = "" if refresh is None else f'<meta http-equiv="refresh" content="{refresh}">'
    parts = {
        "TITLE": html.escape(title),
        "REFRESH": again,
        "STYLE": _web("page.css"),
        "BODY": _web(f"{kind}.html"),
        "DATA": _packed(json.dumps(facts, separators=(",", ":"), allow_nan=False)),
        "PLOTLY": _plotly(),
        "SCRIPT": _web("page.js") + _web(f"{kind}.js"),
    }
    write_text(path, _MARK.sub(lambda mark: parts[mark[1]], _web("frame.html")))


def _web(name: str) -> str:
    return files("nas.report").joinpath("web", name).read_text(encoding="utf-8")


def _packed(text: str) -> str:
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()


@cache
def _plotly() -> str:
    """plotly.js, packed: its basic bundle as it is published (npm, plotly.js-basic-dist-min 4.1.1, MIT).

    No package of PyPI has it. The full one, in the plotly package, has kinds of charts that no page here draws: a
    browser that took 0.8 s to read the basic one took 2.4 s for it.
    """
    return _packed(_web("plotly-basic.min.js"))
