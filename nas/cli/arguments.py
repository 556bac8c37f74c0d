"""What can be written behind `nas`, its help, and the one line for a mistake."""

from __future__ import annotations

import argparse
import math
import sys
from typing import Any, NoReturn

from nas.cli.values import hours, natural, path, positive, tau, weights


def complain(text: str) -> None:
    """One line on stderr, whatever is in the text; in a terminal over the ^C that it shows."""
    line = "".join(x if x.isprintable() else x.encode("unicode_escape").decode() for x in text)
    print("\r" * sys.stderr.isatty() + f"nas: {line}", file=sys.stderr)


class _Parser(argparse.ArgumentParser):
    """One line for a mistake, and exit status 2."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        known, extra = super().parse_known_args(args, namespace)
        if extra:
            self.error(f"{extra[0]!r} is not known here; {self._usage()}")
        return known, extra

    def error(self, message: str) -> NoReturn:
        text = message.removeprefix("argument ").replace(": is ", " is ", 1)
        if "are required" in text:
            text = f"{text}; {self._usage()}"
        complain(f"{text} (see: {self.prog} --help)")
        sys.exit(2)

    def _usage(self) -> str:
        return " ".join(self.format_usage().split())


class _Version(argparse.Action):
    """Looked up when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from nas.machine import version_of

        print(f"mobile-nas {version_of('mobile-nas')}")
        parser.exit()


def make_parser() -> argparse.ArgumentParser:
    """Of all commands; `COMMAND` is the name of the one that was given."""
    root = _Parser(
        prog="nas",
        description="Neural architecture search over mobile block spaces, within a budget.\n\n"
        "A space (YAML) says which networks there are. A study (YAML) says which space,\n"
        "images, budget and short training to search with. A run is the folder that a\n"
        "search leaves its results in.",
        epilog="in this order:\n"
        "  nas space search_spaces/mobile_tiny.yaml --budget params=30k\n"
        "  nas search studies/quickstart.yaml\n"
        "  nas front runs/quickstart\n"
        "  nas retrain runs/quickstart --pick knee\n\n"
        "nas COMMAND --help says more.",
    )
    root.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = root.add_subparsers(title="commands", dest="COMMAND", required=True)
    for add in (
        _add_space,
        _add_search,
        _add_front,
        _add_report,
        _add_compare,
        _add_retrain,
        _add_bench,
        _add_trust,
        _add_export,
        _add_latency,
    ):
        add(commands)
    return root


def _add(commands: Any, name: str, summary: str, text: str, example: str) -> Any:
    description = f"{summary[0].upper()}{summary[1:]}.\n\n{text}"
    return commands.add_parser(name, help=summary, description=description, epilog=f"example:\n  {example}")


def _add_space(commands: Any) -> None:
    summary = "what a search space holds: its size, costs, what fits a budget"
    text = """\
Sizes, costs and the share within one limit are exact; the share within several
limits is of members drawn uniformly. Nothing is trained. The costs of layers
are kept for the next time: the first look at a large space takes longer."""
    example = "nas space search_spaces/mobile_cifar.yaml --budget params=0.363M --budget macs=20M"
    parser = _add(commands, "space", summary, text, example)
    _add_the_space(parser)
    rule = "an upper bound: params, macs, flops (two per MAC) or a memory in bytes; 0.363M, 30k; may be repeated"
    parser.add_argument("--budget", action="append", default=[], metavar="COST=LIMIT", help=rule)
    parser.add_argument("--samples", type=positive, default=1000, metavar="N", help="members to draw (default 1000)")
    parser.add_argument("--seed", type=natural, default=0, metavar="N", help="of the draw (default 0)")
    _add_json(parser)


def _add_search(commands: Any) -> None:
    summary = "run a study, or go on with it; ends with the front"
    text = """\
Candidates over the budget are never trained; the others are trained briefly
and scored on a validation split. Stop it at any time: the same command goes on
where it was."""
    example = "nas search studies/quickstart.yaml --trials 10 --set budget.params=20k --run runs/try"
    parser = _add(commands, "search", summary, text, example)
    parser.add_argument("study", metavar="STUDY", help="a study (YAML)")
    parser.add_argument("--run", metavar="DIR", help="folder of the results (default runs/NAME)")
    parser.add_argument("--trials", type=positive, metavar="N", help="candidates to train in all")
    rule = "log candidates there, too: tensorboard (into the run) or mlflow (MLFLOW_TRACKING_URI); may be repeated"
    parser.add_argument("--track", action="append", default=[], metavar="TRACKER", help=rule)
    rule = "begin no new candidate after so many hours; then the front is measured again"
    parser.add_argument("--hours", type=hours, default=math.inf, metavar="H", help=rule)
    _add_changes(parser)
    _add_json(parser)


def _add_front(commands: Any) -> None:
    summary = "the Pareto front of a run as a table, a picture, a file"
    text = """\
The front holds the candidates that no other beats in all objectives. Its knee
is the point farthest below the front's chord, error and costs on log scales.
Works while the search is running, too."""
    example = "nas front runs/quickstart --where 'params < 20k and accuracy > 0.9' --sort=-accuracy"
    parser = _add(commands, "front", summary, text, example)
    _add_run(parser)
    rule = "its members of which this holds: comparisons with < <= > >= = !=, joined by and, or"
    parser.add_argument("--where", metavar="CONDITION", help=rule)
    rule = "by this column, falling with a minus in front: --sort=-accuracy"
    parser.add_argument("--sort", metavar="COLUMN", help=rule)
    parser.add_argument("--columns", metavar="NAMES", help="these alone, with commas between: id,accuracy,macs")
    parser.add_argument("--pick", metavar="WHICH", help="one network in full: knee, best (accuracy) or an id")
    parser.add_argument("--csv", metavar="FILE", help="write the table there")
    parser.add_argument("--plot", metavar="FILE", help="write the picture there (.png, .svg, .pdf)")
    _add_json(parser)


def _add_report(commands: Any) -> None:
    summary = "a run as one page for a browser: the front, networks, what matters, how it went"
    text = """\
One HTML file that needs no network and nothing beside it. Works while the search is
running, too; --watch writes it again until the search has ended, and the page
reads itself again."""
    parser = _add(commands, "report", summary, text, "nas report runs/quickstart --watch")
    _add_run(parser)
    parser.add_argument("--output", metavar="FILE", help="write the page there (default RUN/report.html)")
    rule = "write it again every SECONDS (default 30) while the search goes on"
    parser.add_argument("--watch", nargs="?", type=positive, const=30, metavar="SECONDS", help=rule)
    rule = "a space of published networks to mark (default: those beside the study's own); may be repeated"
    parser.add_argument("--reference", action="append", metavar="SPACE", help=rule)


def _add_compare(commands: Any) -> None:
    summary = "fronts and hypervolumes of several runs, side by side"
    text = """\
Hypervolumes are shares of that of all runs together, measured from a little
beyond the worst trained candidate. A candidate counts as it was first measured at
the last rung, from when it was; the last column is of the front as it was measured
again."""
    parser = _add(commands, "compare", summary, text, "nas compare runs/a runs/b --plot compare.svg")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders of runs with the same objectives")
    parser.add_argument("--plot", metavar="FILE", help="write hypervolume against time there (.png, .svg, .pdf)")
    parser.add_argument("--output", metavar="FILE", help="write a page for a browser there (.html)")
    _add_json(parser)


def _add_retrain(commands: Any) -> None:
    summary = "train one candidate fully; reads the test set once, at the end"
    text = """\
Trains as the study's `retrain` section says, by default on training and
validation images together. Stop it at any time: the same command goes on where
it was. The weights are for nas.load(FOLDER) in Python.

With --weights it starts from other weights of the same network: torchvision's
MobileNetV2 or V3 (`imagenet` downloads it), or a retraining with other classes. They
are the same at every resolution, and another count of classes gets a new
classifier."""
    parser = _add(commands, "retrain", summary, text, "nas retrain runs/quickstart --pick best --epochs 20")
    _add_run(parser)
    parser.add_argument(
        "--pick",
        default="knee",
        metavar="WHICH",
        help="knee (default), best (accuracy), an id, or the file of an architecture",
    )
    parser.add_argument("--epochs", type=positive, metavar="N", help="instead of the study's retrain.epochs")
    rule = "of weights, order and augmentation (default 0)"
    parser.add_argument("--seed", type=natural, default=0, metavar="N", help=rule)
    rule = "to start from: imagenet, a .pth or .safetensors file, or a retrain folder (default: the study's)"
    parser.add_argument("--weights", type=weights, metavar="FROM", help=rule)
    rule = "folder of an earlier retraining, whose network teaches; may be given again (default: the study's)"
    parser.add_argument("--teacher", type=path, metavar="FOLDER", action="append", default=[], help=rule)
    rule = "its folder is retrain/ID-NAME: several recipes side by side"
    parser.add_argument("--name", metavar="NAME", help=rule)
    parser.add_argument("--device", metavar="NAME", help="cuda, mps or cpu (default: that of the search)")
    _add_data_root(parser)
    _add_set(parser, "retrain.recipe.lr=0.03")
    _add_json(parser)


def _add_export(commands: Any) -> None:
    summary = "write a retrained network as a file for another runtime"
    text = """\
The file counts once the runtime has read it and predicted what PyTorch does on a
thousand images of the validation split. It takes any batch (ExecuTorch's: one image at a
time), and says itself how images are normalised and what the classes are called."""
    parser = _add(commands, "export", summary, text, "nas export runs/quickstart --pick best --format onnx")
    parser.add_argument("run", metavar="RUN", help="folder of a run, or of one of its retrainings")
    rule = "of a run: knee (default), best (accuracy) or an id, that was retrained"
    parser.add_argument("--pick", metavar="WHICH", help=rule)
    parser.add_argument("--format", default="onnx", metavar="NAME", help="onnx (default) or executorch")
    parser.add_argument("--out", metavar="FILE", help="instead of export/ID.onnx in the folder of the retraining")
    rule = "quantise it, too, and say what that costs in accuracy and saves in time"
    parser.add_argument("--int8", action="store_true", help=rule)
    _add_data_root(parser)
    _add_json(parser)


def _add_latency(commands: Any) -> None:
    summary = "milliseconds on a runtime: how well they are predicted, on this machine"
    text = """\
A network's latency is predicted from those of its layers, each measured once in
its place between two others (kept in the cache, by runtime and machine), and
calibrated on whole networks. All times are ratios to a reference network that is
timed in turn, so that a busy machine changes little."""
    parser = _add(commands, "latency", summary, text, "nas latency validate search_spaces/mobile_cifar.yaml --n 40")
    ways = parser.add_subparsers(title="ways", dest="way", required=True)
    check = ways.add_parser("validate", help="predict and measure random members that had no part in the calibration")
    check.add_argument("--n", type=positive, default=40, metavar="N", help="members (default 40)")
    check.add_argument("--all", action="store_true", help="measure all layers of the space, not only theirs")
    time = ways.add_parser("measure", help="measure whole networks: of files, and of the fronts of runs")
    rule = "an architecture (YAML), or the folder of a run, which says where if --runtime and --threads do not"
    time.add_argument("places", nargs="+", metavar="PLACE", help=rule)
    write = ways.add_parser("plan", help="write what must be timed on another device: ONNX files and a script")
    write.add_argument("--out", required=True, metavar="DIR", help="a new folder")
    take = ways.add_parser("import", help="keep the table that the script wrote as a runtime by name")
    take.add_argument("table", metavar="TABLE", help="the script's table.json")
    take.add_argument("--name", required=True, metavar="NAME", help="for latency.runtime of a study")
    _add_the_space(write, "a search space (YAML), or the folder of a run: the whole networks of its front")
    _add_the_space(check)
    runtimes = "onnxruntime, onnxruntime-int8, executorch, eager, cuda"
    check.add_argument("--runtime", default="onnxruntime", metavar="NAME", help=f"{runtimes} (default onnxruntime)")
    check.add_argument("--threads", type=positive, default=1, metavar="N", help="of one inference (default 1)")
    rule = "(default: that of the run, or onnxruntime)"
    time.add_argument("--runtime", metavar="NAME", help=f"{runtimes} or an imported device {rule}")
    time.add_argument(
        "--threads", type=positive, metavar="N", help="of one inference (default: those of the run, or 1)"
    )
    for way in (check, time):
        _add_json(way)


def _add_the_space(parser: argparse.ArgumentParser, rule: str = "a search space (YAML)") -> None:
    parser.add_argument("space", metavar="SPACE", help=rule)
    parser.add_argument("--classes", type=positive, metavar="N", help="of the images (default: those of SPACE)")
    parser.add_argument("--channels", type=positive, metavar="N", help="of the images (default: those of SPACE)")


def _add_bench(commands: Any) -> None:
    summary = "compare samplers on a table that stands in for training"
    text = """\
TABLE is NAS-Bench-Macro (.json, .json.xz), or a CSV or Parquet file: columns
`accuracy` (or accuracy.0, accuracy.1 ... for several seeds), cost.NAME, perhaps
feature.NAME; all others are choices. A candidate is seen with the accuracy of
the first seed and counts with the mean; seeing it again is free."""
    example = "nas bench table.csv --samplers surrogate,tpe,nsga2,gp,random --cost macs --seeds 20"
    parser = _add(commands, "bench", summary, text, example)
    parser.add_argument("table", metavar="TABLE", help="candidates that were all trained")
    rule = "surrogate[-withheld, -shuffled], random, tpe[-multivariate], nsga2[-50], gp, walk[-depth]"
    parser.add_argument("--samplers", default="surrogate,tpe,nsga2,random", metavar="NAMES", help=rule)
    parser.add_argument("--cost", metavar="NAME", help="the other objective (default: the table's first)")
    rule = "an upper bound of a cost in the table; may be repeated"
    parser.add_argument("--budget", action="append", default=[], metavar="COST=LIMIT", help=rule)
    parser.add_argument("--seeds", type=positive, default=5, metavar="N", help="of each sampler (default 5)")
    parser.add_argument("--evaluations", type=positive, default=100, metavar="N", help="of each seed (default 100)")
    parser.add_argument("--workers", type=positive, default=1, metavar="N", help="processes (default 1)")
    parser.add_argument("--plot", metavar="FILE", help="write hypervolume against evaluations there (.png, .svg, .pdf)")
    _add_json(parser)


def _add_trust(commands: Any) -> None:
    summary = "what a study's short training is worth: which epochs rank like a long training"
    text = """\
Trains a spread of candidates within the budget by the study's short training,
validated after every epoch, and long, by the recipe of its `retrain` section.
How alike they rank (Kendall's tau, 95 % intervals) stands beside the seconds, and
beside scores that need no training. The test set is never read. Stop it at any
time: the same command goes on where it was."""
    example = "nas trust studies/quickstart.yaml --candidates 24 --epochs 30"
    parser = _add(commands, "trust", summary, text, example)
    parser.add_argument("study", metavar="STUDY", help="a study (YAML)")
    parser.add_argument("--run", metavar="DIR", help="folder of the results (default runs/NAME-trust)")
    rule = "to train, spread evenly over the main cost (default 16)"
    parser.add_argument("--candidates", type=positive, default=16, metavar="N", help=rule)
    rule = "of the long training (default: those of the study's retrain section)"
    parser.add_argument("--epochs", type=positive, metavar="N", help=rule)
    rule = "a rung is trusted if its interval lies above it (default 0.5)"
    parser.add_argument("--tau", type=tau, default=0.5, metavar="TAU", help=rule)
    _add_changes(parser)
    _add_json(parser)


def _add_changes(parser: argparse.ArgumentParser) -> None:
    """What may be other than in the study file."""
    parser.add_argument("--workers", type=positive, metavar="N", help="candidates trained at a time, in processes")
    _add_data_root(parser)
    _add_set(parser, "sampler.seed=1")


def _add_set(parser: argparse.ArgumentParser, example: str) -> None:
    rule = f"another value than the study's, by its key path ({example}); may be repeated"
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=rule)


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="folder of a run, such as runs/quickstart")


def _add_data_root(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data-root", type=path, metavar="DIR", help="where the images are, instead of the study's data.root"
    )


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
