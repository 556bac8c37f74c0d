"""One function for each command. Modules of nas are imported inside: `nas --help` answers at once."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.cli.arguments import complain
from nas.cli.deploying import export, latency

if TYPE_CHECKING:
    import pandas as pd

    from nas.run import Run


def _space(options: argparse.Namespace) -> None:
    from nas.report.describe import describe_space
    from nas.report.space import space_text
    from nas.space import Space

    budget, space = _budget(options.budget), Space.load(options.space, options.channels, options.classes)
    facts = describe_space(space, budget, options.samples, options.seed)
    if options.json:
        _print_json(facts)
    else:
        print(space_text(facts))
        print(f"\nnext: write a study with `space: {options.space}`, then: nas search STUDY.yaml")


def _budget(items: list[str], costs: Iterable[str] | None = None) -> dict[str, float]:
    from nas.costs import COSTS
    from nas.inputs import choices, quantity, refuse

    known = COSTS if costs is None else costs
    budget: dict[str, float] = {}
    for item in items:
        name, sign, limit = item.partition("=")
        if not sign or name not in known:
            raise refuse("--budget", item, f"COST=LIMIT, the cost {choices(known)}")
        if name in budget:
            raise refuse("--budget", item, f"the only one for {name}")
        try:
            budget[name] = quantity(limit)
        except ValueError as error:
            raise refuse(f"--budget {name}", limit, str(error)) from None
    return budget


def _search(options: argparse.Namespace) -> None:
    import optuna

    from nas.report.progress import SearchWatch
    from nas.report.tables import front_records, save_tables
    from nas.study import Study, Told, search
    from nas.tracking import check_trackers, tracking

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    _check_run(options.run)
    check_trackers(options.track)
    overrides = _overrides(options, {"trials": options.trials})
    tracks: list[Callable[[Told], None]] = []
    with SearchWatch() as watch, ExitStack() as stack:

        def start(study: Study) -> None:  # nothing is written before the search has checked what the user gave
            watch.start(study)
            tracks.append(stack.enter_context(tracking(options.track, study.run.folder, study.config.name)))

        def told(each: Told) -> None:
            watch.told(each)
            for track in tracks:
                track(each)

        run, exhausted = search(options.study, options.run, overrides, start, told, options.hours, watch.progress)
    if exhausted:
        complain(exhausted)
    trials, front = save_tables(run)
    if options.json:
        _print_json(front_records(front))
        return
    _print_front(run, trials, front)
    print(f"tables and picture: {run.folder}/trials.parquet, front.parquet, front.csv, front.png, receipt.json")


def _check_run(folder: str | None) -> None:
    from nas.inputs import refuse

    if folder and os.path.exists(folder) and not os.path.isdir(folder):
        raise refuse("--run", folder, "a folder")


def _overrides(options: argparse.Namespace, more: dict[str, Any]) -> list[str]:
    """What the options say instead of the study file, those of --set last."""
    from nas.config import as_lines

    given = {**more, "workers": options.workers, "data.root": options.data_root}
    return [*as_lines({key: value for key, value in given.items() if value is not None}), *options.set]


def _front(options: argparse.Namespace) -> None:
    from nas.report.plot import plot_front
    from nas.report.tables import front_csv, front_records
    from nas.report.text import columns_text
    from nas.report.where import columns_of, in_order, where
    from nas.run import Run

    run = Run.open(options.run)
    _check_file("--csv", options.csv)
    _check_file("--plot", options.plot)
    trials = run.trials()
    front = run.front_of(trials)
    facts = None if options.pick is None else _picked(run, options.pick, front)
    shown = front if options.where is None else where(front, options.where)
    shown = shown if options.sort is None else in_order(shown, options.sort)
    columns = None if options.columns is None else columns_of(options.columns, front)
    if options.csv:
        _write("--csv", options.csv, lambda path: front_csv(shown, path, columns))
    if options.plot:
        _write("--plot", options.plot, lambda path: plot_front(run.config, trials, front, path))
    if options.json:
        _print_json(facts or front_records(shown, columns))
    elif facts:
        _print_picked(run, facts)
    elif shown.empty and len(front):
        print(f"none of the front's {len(front)} members: {options.where}")
    elif columns:
        print(columns_text(shown, columns))
    else:
        _print_front(run, trials, front, shown)


def _picked(run: Run, which: str, front: pd.DataFrame) -> dict[str, Any]:
    """The candidate's row as `front --json` has it, and its architecture."""
    from nas.report.tables import front_records

    architecture, row = run.pick(which)
    knee = architecture.id in set(front["id"][front["knee"]])
    return {**front_records(row.to_frame().T.assign(knee=knee))[0], "architecture": architecture.to_dict()}


def _print_picked(run: Run, facts: dict[str, Any]) -> None:
    from nas.architecture import Architecture

    print(f"{facts['id']}: accuracy {facts['accuracy']:.4f}, {facts['params']:,} params, {facts['macs']:,} MACs")
    print(Architecture.from_dict(facts["architecture"]).table())
    print(f"\nnext: nas retrain {shlex.quote(str(run.folder))} --pick {facts['id']}")


def _print_front(run: Run, trials: pd.DataFrame, front: pd.DataFrame, shown: pd.DataFrame | None = None) -> None:
    from nas.report.text import front_text, receipt_text

    folder = shlex.quote(str(run.folder))
    if front.empty:
        print(f"no trained candidate yet\n\nnext: nas search STUDY --run {folder}")
        return
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    print(front_text(front if shown is None else shown, run.config.objectives, width))
    if text := receipt_text(run.receipt(trials, front)):
        print(f"\n{text}")
    print(f"\nnext: nas front {folder} --pick knee, then: nas retrain {folder} --pick knee")


def _check_file(option: str, path: str | None) -> None:
    """Before anything is written: a mistyped name must not leave half of what was asked for."""
    from nas.inputs import refuse
    from nas.report.plot import FORMATS

    if path is None:
        return
    if option == "--plot" and Path(path).suffix[1:] not in FORMATS:
        raise refuse(option, path, "a file that ends in " + ", ".join(f".{kind}" for kind in FORMATS))
    if option == "--output" and Path(path).suffix != ".html":
        raise refuse(option, path, "a file that ends in .html")
    if Path(path).is_dir() or not Path(path).absolute().parent.is_dir():
        raise refuse(option, path, "a file in a folder that exists")


def _write(option: str, path: str, write: Callable[[Path], object]) -> None:
    from nas.inputs import refuse

    try:
        write(Path(path))
    except OSError as error:
        raise refuse(option, path, f"a file that can be written ({error.strerror})") from None


def _retrain(options: argparse.Namespace) -> None:
    from nas.config import as_lines, check_device
    from nas.inputs import refuse
    from nas.report.progress import TrainingWatch
    from nas.retrain import retrain
    from nas.run import Run
    from nas.training import leads

    for override in options.set:
        if override.partition("=")[0].partition(".")[0].strip() != "retrain":
            raise refuse("--set", override, "retrain.KEY=VALUE: the search is over")
    teachers = as_lines({"retrain.teacher.folder": options.teacher} if options.teacher else {})
    run = Run.open(options.run, [*options.set, *teachers])
    epochs = run.config.retrain_recipe(options.epochs).epochs
    assert run.config.retrain is not None, "or there is no recipe"
    if options.device is not None:
        check_device(options.device, "--device")
    elif run.config.device is not None:
        check_device(run.config.device, f"{run.study_file}: device (choose another with --device)")
    with TrainingWatch(run.config.retrain.parts(epochs)) as watch:
        done = retrain(
            run,
            options.pick,
            epochs=options.epochs,
            seed=options.seed,
            device=options.device,
            data_root=options.data_root,
            weights=options.weights,
            name=options.name,
            on_epoch=watch.epoch if leads() else None,
        )
    if not leads():
        return
    if options.json:
        _print_json({**done.result, "folder": str(done.folder)})
        return
    result = done.result
    start = result.get("weights")
    origin = f"from {start['source']}, " if start else ""
    origin += f"taught by {' and '.join(result['teachers'])}, " if result.get("teachers") else ""
    print(
        f"{result['id']}: test accuracy {result['test_accuracy']:.4f} with {result['params']:,} params and "
        f"{result['macs']:,} MACs ({result['recipe']['epochs']} epochs on {result['data']['trained_on']}, {origin}"
        f"seed {result['seed']}, {result['wall_seconds']:.0f} s)"
    )
    print(f"\nweights, architecture, result: {done.folder}\nnext, in Python: nas.load({str(done.folder)!r})")


def _bench(options: argparse.Namespace) -> None:
    from nas.bench import Task, play_all, read_table, summary
    from nas.bench.players import check_players
    from nas.report.bench import bench_text, plot_bench

    players = check_players(options.samplers.split(","), "--samplers")
    _check_file("--plot", options.plot)
    table = read_table(options.table)
    task = Task(table, options.cost or next(iter(table.costs)), _budget(options.budget, table.costs))
    played = play_all(task, players, options.seeds, options.evaluations, options.workers)
    facts = {
        "table": table.name,
        "rows": len(table),
        "cost": task.cost,
        "budget": dict(task.budget),
        "reference": list(task.reference),
        "evaluations": options.evaluations,
        "samplers": summary(task, played),
    }
    _show(options, facts, bench_text, plot_bench)


def _compare(options: argparse.Namespace) -> None:
    from nas.report.compare import compare_runs, compare_text, plot_compare
    from nas.report.page import write_page
    from nas.run import Run

    _check_file("--plot", options.plot)
    _check_file("--output", options.output)
    folders = {Path(folder).resolve(): folder for folder in options.runs}
    facts = compare_runs([Run.open(folder) for folder in folders.values()])
    if options.output:
        title = f"{len(folders)} searches, side by side"
        _write("--output", options.output, lambda path: write_page(path, "compare", title, facts))
    _show(options, facts, compare_text, plot_compare)


def _show(
    options: argparse.Namespace,
    facts: dict[str, Any],
    text: Callable[[dict[str, Any]], str],
    plot: Callable[[dict[str, Any], Path], None],
) -> None:
    if options.plot:
        _write("--plot", options.plot, lambda path: plot(facts, path))
    if options.json:
        _print_json(facts)
    else:
        print(text(facts))


def _report(options: argparse.Namespace) -> None:
    import optuna

    from nas.report.watch import write_report
    from nas.run import Run

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    run = Run.open(options.run)
    file = options.output or str(run.folder / "report.html")
    _check_file("--output", file)
    for status in write_report(run, Path(file), options.reference, options.watch):
        print(f"{file}: {status['done']:,} of {status['wanted']:,} candidates", flush=True)
    print(f"\nnext: open {shlex.quote(file)} in a browser")


def _trust(options: argparse.Namespace) -> None:
    from nas.report.progress import TrustWatch
    from nas.report.trust import save_trust, trust_text
    from nas.trust import trust

    _check_run(options.run)
    with TrustWatch() as watch:
        found = trust(
            options.study,
            options.run,
            _overrides(options, {}),
            candidates=options.candidates,
            epochs=options.epochs,
            tau=options.tau,
            on_start=watch.start,
            on_step=watch.step,
        )
    save_trust(found)
    if options.json:
        _print_json(found.facts)
    else:
        print(trust_text(found.facts))
        print(f"\ntables and picture: {found.folder}/trust.csv, candidates.csv, trust.png")


def _print_json(data: Any) -> None:
    print(json.dumps(data, indent=2))


COMMANDS = {
    "space": _space,
    "search": _search,
    "front": _front,
    "report": _report,
    "compare": _compare,
    "retrain": _retrain,
    "bench": _bench,
    "trust": _trust,
    "export": export,
    "latency": latency,
}
