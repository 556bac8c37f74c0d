"""The commands for where a network will run."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def export(options: argparse.Namespace) -> None:
    from nas.deploy import export

    done = export(
        options.run, options.pick, options.format, out=options.out, data_root=options.data_root, int8=options.int8
    )
    facts = done.facts
    if options.json:
        print(json.dumps({**facts, "file": str(done.file)}, indent=2))
        return
    print(
        f"{facts['id']}: {done.file}, {facts['bytes']:,} bytes; on {facts['images']:,} validation images it predicts "
        f"what PyTorch does, logits within {facts['relative']:.1g} of the largest"
    )
    if small := facts.get("int8"):
        seen = " (it was trained on them, too)" * (facts["trained_on"] != "train")
        print(
            f"int8: {small['file']}, {small['bytes']:,} bytes; accuracy {small['accuracy']:.4f} -> "
            f"{small['accuracy_int8']:.4f} on {small['images']:,} validation images{seen}; "
            f"{small['latency_ms']:.3f} -> {small['latency_int8_ms']:.3f} ms here on one thread"
        )


def latency(options: argparse.Namespace) -> None:
    {"validate": _validate, "measure": _measure, "plan": _plan, "import": _import}[options.way](options)


def _validate(options: argparse.Namespace) -> None:
    from nas.inputs import choices, refuse
    from nas.latency import RUNTIMES, Bench, validate
    from nas.report.latency import validation_text
    from nas.report.progress import Watch
    from nas.space import Space

    if options.runtime not in RUNTIMES:
        raise refuse("--runtime", options.runtime, choices(RUNTIMES))
    bench = Bench(options.runtime, RUNTIMES[options.runtime], options.threads, Watch().progress)
    facts = validate(Space.load(options.space, options.channels, options.classes), bench, options.n, options.all)
    print(json.dumps(facts, indent=2) if options.json else validation_text(facts))


def _measure(options: argparse.Namespace) -> None:
    from nas.report.latency import measured_text
    from nas.report.progress import Watch
    from nas.study.measuring import measure_places

    facts = measure_places(options.places, options.runtime, options.threads, Watch().progress)
    print(json.dumps(facts, indent=2) if options.json else measured_text(facts))


def _plan(options: argparse.Namespace) -> None:
    from nas.inputs import refuse
    from nas.latency import plan
    from nas.space import Space
    from nas.study.measuring import members_of

    place = Path(options.space)
    networks = members_of(place)[0] if place.is_dir() else None
    for option, value in {"--channels": options.channels, "--classes": options.classes}.items():
        if networks and value is not None:
            raise refuse(option, value, f"left out: the networks of {place} say it themselves")
    written = plan(networks or Space.load(place, options.channels, options.classes), Path(options.out))
    print(f"{written['files']:,} models, {written['bytes'] / 1e6:,.0f} MB, in {options.out}")
    print("next, there, with numpy and onnxruntime: python time_models.py --threads 1 --out table.json")


def _import(options: argparse.Namespace) -> None:
    from nas.latency import import_table

    kept = import_table(Path(options.table), options.name)
    print(f"{kept}\n\nnext: write `latency: {{runtime: {options.name}}}` into a study")
