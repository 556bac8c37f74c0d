"""The command line: parses arguments and calls one function for each command."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from nas.inputs import InputError, choices, quantity, refuse

if TYPE_CHECKING:
    import pandas as pd

# Heavy modules are imported inside the commands: `nas --help` and a mistyped option answer at once.


class _Parser(argparse.ArgumentParser):
    """One line for a mistake, and exit status 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"nas: {message} (see: {self.prog} --help)\n")


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    logging.basicConfig(format="nas: %(message)s", level=logging.WARNING)
    try:
        options.command(options)
    except InputError as error:
        print(f"nas: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nnas: stopped; nothing is lost. Go on with the same command: {_same_command()}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="nas",
        description="Neural architecture search over mobile block spaces, within a budget.",
        epilog="Start with: nas space SPACE.yaml, then nas search STUDY.yaml, nas front RUN, nas retrain RUN.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Parser)

    space = commands.add_parser("space", help="what a search space holds: size, costs, what fits a budget")
    space.add_argument("space", metavar="SPACE", help="a search space (YAML)")
    space.add_argument(
        "--budget",
        action="append",
        default=[],
        metavar="COST=LIMIT",
        help="params, macs, flops (two per MAC) or peak_memory_bytes, such as params=0.363M; may be repeated",
    )
    space.add_argument("--samples", type=_positive, default=200, help="architectures to draw (default 200)")
    space.add_argument("--seed", type=_natural, default=0, help="of the draw (default 0)")
    _json(space)
    space.set_defaults(command=_space)

    search = commands.add_parser("search", help="run a study, or go on with it; ends with the front")
    search.add_argument("study", metavar="STUDY", help="a study (YAML)")
    search.add_argument("--run", metavar="DIR", help="folder of the results (default runs/NAME)")
    search.add_argument("--trials", type=_positive, help="candidates to train in all")
    search.add_argument("--workers", type=_positive, help="candidates trained at a time, in processes")
    search.add_argument("--data-root", metavar="DIR", help="where the images are")
    search.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="another value, by key path")
    _json(search)
    search.set_defaults(command=_search)

    front = commands.add_parser("front", help="the Pareto front of a run, also while the search is running")
    front.add_argument("run", metavar="RUN", help="folder of a run")
    front.add_argument("--pick", metavar="WHICH", help="one network in full: knee, best (accuracy) or an id")
    front.add_argument("--csv", metavar="FILE", help="write the table there")
    front.add_argument("--plot", metavar="FILE", help="write the picture there (.png, .svg, .pdf)")
    _json(front)
    front.set_defaults(command=_front)

    retrain = commands.add_parser("retrain", help="train one candidate fully; reads the test set once, at the end")
    retrain.add_argument("run", metavar="RUN", help="folder of a run")
    retrain.add_argument("--pick", default="knee", metavar="WHICH", help="knee (default), best (accuracy) or an id")
    retrain.add_argument("--epochs", type=_positive, help="instead of the study's retrain.epochs")
    retrain.add_argument("--seed", type=_natural, default=0, help="of weights, order and augmentation (default 0)")
    retrain.add_argument("--device", help="cuda, mps, cpu (default: the first that is there)")
    retrain.add_argument("--data-root", metavar="DIR", help="where the images are")
    _json(retrain)
    retrain.set_defaults(command=_retrain)
    return parser


def _space(options: argparse.Namespace) -> None:
    from nas.report import describe_space
    from nas.space import Space

    budget = _budget(options.budget)
    facts = describe_space(Space.load(options.space), budget, options.samples, options.seed)
    if options.json:
        _print_json(facts)
        return
    how = "all members" if facts["counted"] else f"{facts['samples']} members drawn uniformly, seed {options.seed}"
    print(f"{facts['name']}: {facts['size']:,} architectures, {len(facts['choices'])} choices")
    print(f"\ncosts of {how}:")
    _table(
        [["", *next(iter(facts["costs"].values()))]]
        + [[name, *(f"{value:,.0f}" for value in row.values())] for name, row in facts["costs"].items()]
    )
    fits = facts["fits"]
    if budget:
        limits = ", ".join(f"{name} <= {limit:,.0f}" for name, limit in budget.items())
        interval = "" if facts["counted"] else f" (95 % interval {fits['low']:.1%} to {fits['high']:.1%})"
        print(f"\nwithin {limits}: {fits['share']:.1%}{interval}")
    for example in facts["examples"]:
        print(f"\n{example['id']}: {example['params']:,} params, {example['macs']:,} MACs\n{example['table']}")
    print(f"\nnext: write a study with `space: {options.space}`, then: nas search STUDY.yaml")


def _search(options: argparse.Namespace) -> None:
    import optuna

    from nas.report import SearchWatch, save_tables
    from nas.study import search

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    given = {"trials": options.trials, "workers": options.workers, "data.root": options.data_root}
    overrides = [f"{key}={json.dumps(value)}" for key, value in given.items() if value is not None]
    with SearchWatch() as watch:
        run, exhausted = search(options.study, options.run, [*overrides, *options.set], watch.start, watch.told)
    if exhausted:
        print(f"nas: {exhausted}", file=sys.stderr)
    front = save_tables(run)
    _print_front(front, run.config.objectives, options.json)
    if not options.json:
        print(f"\ntables and picture: {run.folder}/trials.parquet, front.parquet, front.csv, front.png")
        print(f"next: nas front {run.folder} --pick knee, then: nas retrain {run.folder} --pick knee")


def _front(options: argparse.Namespace) -> None:
    from pathlib import Path

    from nas.report import front_csv, plot_front
    from nas.run import Run, front_table

    run = Run.open(options.run)
    if options.pick:
        architecture, row = run.pick(options.pick)
        facts = {name: row[name] for name in ("id", "accuracy", "params", "macs", "peak_memory_bytes")}
        if options.json:
            _print_json({**facts, "architecture": architecture.to_dict()})
        else:
            print(", ".join(f"{name} {value}" for name, value in facts.items()) + f"\n{architecture.table()}")
        return
    trials = run.trials()
    front = front_table(trials, run.config.objectives)
    for path in filter(None, (options.csv, options.plot)):
        if not Path(path).absolute().parent.is_dir():
            raise refuse("--csv" if path == options.csv else "--plot", path, "a file in a folder that exists")
    if options.csv:
        front_csv(front, Path(options.csv))
    if options.plot:
        if Path(options.plot).suffix not in {".png", ".svg", ".pdf"}:
            raise refuse("--plot", options.plot, "a file that ends in .png, .svg or .pdf")
        plot_front(run, trials, front, Path(options.plot))
    _print_front(front, run.config.objectives, options.json)
    if not options.json:
        print(f"\nnext: nas front {run.folder} --pick knee, then: nas retrain {run.folder} --pick knee")


def _retrain(options: argparse.Namespace) -> None:
    from nas.report import TrainingWatch
    from nas.retrain import retrain
    from nas.run import Run

    run = Run.open(options.run)
    epochs = run.config.retrain_recipe(options.epochs).epochs
    with TrainingWatch(epochs) as watch:
        done = retrain(
            run,
            options.pick,
            epochs=options.epochs,
            seed=options.seed,
            device=options.device,
            data_root=options.data_root,
            on_epoch=watch.epoch,
        )
    if options.json:
        _print_json({**done.result, "folder": str(done.folder)})
        return
    result = done.result
    print(
        f"{result['id']}: test accuracy {result['test_accuracy']:.4f} with {result['params']:,} parameters and "
        f"{result['macs']:,} MACs ({result['recipe']['epochs']} epochs on {result['data']['trained_on']}, "
        f"seed {result['seed']}, {result['wall_seconds']:.0f} s)"
    )
    print(f"weights, architecture, result: {done.folder}\nin Python: nas.load({str(done.folder)!r})")


def _print_front(front: pd.DataFrame, objectives: list[str], as_json: bool) -> None:
    from nas.report import front_view

    if as_json:
        columns = front.drop(columns=["rungs", "architecture", "reason", "outcome"])
        _print_json(json.loads(columns.to_json(orient="records")))
    elif front.empty:
        print("no trained candidate yet")
    else:
        view = front_view(front, objectives)
        _table([list(view.columns), *view.to_numpy().tolist()])


def _table(rows: list[list[Any]]) -> None:
    """Prints rows, the first the header; numbers to the right; a terminal wraps the last column."""
    from rich.console import Console
    from rich.table import Table

    head, *body = [[str(cell) for cell in row] for row in rows]
    table = Table(box=None, header_style="bold", pad_edge=False)
    for index, name in enumerate(head):
        numbers = all(row[index][:1].isdigit() for row in body) and name != "id"
        table.add_column(name, justify="right" if numbers else "left", no_wrap=index < len(head) - 1)
    for row in body:
        table.add_row(*row)
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = 10_000
    console.print(table)


def _print_json(data: Any) -> None:
    print(json.dumps(data, indent=2, default=lambda value: value.item()))


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def _budget(items: list[str]) -> dict[str, float]:
    from nas.costs import COSTS

    budget = {}
    for item in items:
        name, sign, limit = item.partition("=")
        if not sign or name not in COSTS:
            raise refuse("--budget", item, f"COST=LIMIT, the cost {choices(COSTS)}")
        try:
            budget[name] = quantity(limit)
        except ValueError as error:
            raise refuse(f"--budget {name}", limit, str(error)) from None
    return budget


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 10**9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def _natural(text: str) -> int:
    if text == "0":
        return 0
    return _positive(text)


def _same_command() -> str:
    import shlex

    return shlex.join(["nas", *sys.argv[1:]])
