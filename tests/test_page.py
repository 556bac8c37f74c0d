"""Pages of a run: what is in them, and how they behave in a browser, wide and narrow, light and dark."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import fakes
import numpy as np
import pytest
from browser import Opened, chromium

from nas.architecture import Architecture
from nas.cli import main
from nas.costs import COSTS, combine, costs
from nas.evaluation import Measurement
from nas.files import write_json
from nas.inputs import InputError
from nas.latency import Latency
from nas.latency.table import layer_name
from nas.pareto import hypervolume
from nas.report.compare import compare_runs
from nas.report.facts import report_facts
from nas.report.importance import LEAST, importances, in_common
from nas.report.page import write_page
from nas.report.watch import write_report
from nas.run import Run
from nas.study import search

pytestmark = pytest.mark.usefixtures("quiet_optuna")
EVIL = "</script><img src=x onerror=alert(1)><b>&amp;\u2028"
STUDY = {"name": "toy", "trials": 400, "budget": {"params": 3000}, "proxy": {"rungs": [3, 9, 27], "confirm": 0}}
COUNT = 120


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, quiet_optuna: None) -> Run:
    folder = tmp_path_factory.mktemp("page")
    return fakes.recorded(fakes.write_study(folder, **STUDY), folder / "run", COUNT, reason=EVIL)


@pytest.fixture(scope="module")
def facts(run: Run) -> dict[str, Any]:
    (run.folder.parent / "mobilenet_v2.yaml").write_text(fakes.SIX, encoding="utf-8")  # beside the space: a reference
    return report_facts(run)


@pytest.fixture(scope="module")
def file(run: Run, facts: dict[str, Any]) -> Path:
    write_page(run.folder / "report.html", "report", EVIL, facts)
    return run.folder / "report.html"


@pytest.fixture
def _no_importance(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes most of the time of the facts, and is looked at elsewhere."""
    monkeypatch.setattr("nas.report.facts.importances", lambda *_: [])


# Facts


def test_the_facts_are_those_of_the_run(run: Run, facts: dict[str, Any]) -> None:
    table, front = facts["table"], run.front()
    assert {len(column) for column in table.values()} == {COUNT}
    assert [table["id"][place] for place in facts["front"]] == front["id"].tolist()
    assert table["id"][facts["knee"]] == front["id"][front["knee"]].item()
    assert sum(facts["status"]["outcomes"].values()) == COUNT
    every = run.trials().set_index("number")
    for place, number in enumerate(table["number"]):
        row = every.loc[number]
        architecture = Architecture.from_json(row["architecture"])
        assert {name: table[name][place] for name in COSTS} == costs(architecture)
        assert (table["id"][place], table["outcome"][place]) == (architecture.id, row["outcome"])
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts


def test_stages_add_up_to_their_network(facts: dict[str, Any]) -> None:
    for place, stages in enumerate(facts["table"]["stages"]):
        assert whole(facts, stages) == {name: facts["table"][name][place] for name in COSTS}


def whole(facts: dict[str, Any], stages: list[int]) -> dict[str, int]:
    """The costs of a network from those of its layers, as the page adds them up."""
    layers = [
        facts["layers"][layer] for stage in stages for layer, times in facts["rows"][stage][8] for _ in range(times)
    ]
    return {name: combine(name, (layer[index] for layer in layers)) for index, name in enumerate(COSTS)}


def test_what_was_cut_has_the_accuracy_of_its_last_rung(facts: dict[str, Any]) -> None:
    table = facts["table"]
    cut = [place for place, outcome in enumerate(table["outcome"]) if outcome == "cut"]
    assert cut
    for place in cut:
        assert table["accuracy"][place] == table["curve"][place][-1][1]
        assert len(table["curve"][place]) == table["rung"][place] < 3
    assert all(table["accuracy"][place] is None for place, x in enumerate(table["outcome"]) if x == "failed")


def test_hypervolume_grows_to_that_of_the_front(run: Run, facts: dict[str, Any]) -> None:
    growth = facts["growth"]
    assert growth["share"][-1] == 1 and sorted(growth["share"]) == growth["share"]
    assert sorted(growth["seconds"]) == growth["seconds"]
    values = np.array([trial.values for trial in run.all_trials() if trial.user_attrs["outcome"] == "trained"])
    worst = values[:, 0].min() - 0.1 * np.ptp(values[:, 0]), values[:, 1].max() + 0.1 * np.ptp(values[:, 1])
    shares = [hypervolume(values[:count], worst, [True, False]) for count in growth["trained"]]
    assert np.allclose(np.array(shares) / shares[-1], growth["share"], atol=1e-5)


@pytest.mark.usefixtures("_no_importance")
def test_published_networks_have_their_exact_costs_with_the_study_classes(run: Run, facts: dict[str, Any]) -> None:
    assert len(facts["references"]) == 6
    for each in facts["references"]:
        assert {name: each[name] for name in COSTS} == whole(facts, each["stages"])
    named = report_facts(run, [str(run.folder.parent / "mobilenet_v2.yaml")])["references"]
    assert named == facts["references"] or [x["id"] for x in named] == [x["id"] for x in facts["references"]]
    with pytest.raises(InputError, match=r"space\.yaml: has 153 networks, but a reference must have at most 30"):
        report_facts(run, [str(run.space_file)])
    with pytest.raises(InputError, match=r"absent\.yaml"):
        report_facts(run, ["absent.yaml"])


def test_a_choice_that_decides_is_found_and_chance_is_told_from_it(run: Run) -> None:
    trained = [trial for trial in run.all_trials() if trial.user_attrs["outcome"] == "trained"]
    found = importances(trained, [True, False])
    assert sum(each["share"] for each in found) == pytest.approx(1)
    assert all(0 <= each["low"] <= each["high"] <= 1 and each["chance"] >= 0 for each in found)
    # Accuracy that is one choice alone, and a cost that is the same for all: nothing else can matter.
    made = [replace_values(trial, [float(trial.params["stem.c"]), 1.0]) for trial in trained]
    first = importances(made, [True, False])[0]
    assert first["choice"] == "stem.c" and first["low"] > first["chance"]
    assert importances(trained[: LEAST - 1], [True, False]) == []


def replace_values(trial: Any, values: list[float]) -> Any:
    import optuna

    return optuna.trial.create_trial(values=values, params=trial.params, distributions=trial.distributions)


def test_what_the_front_has_in_common_is_counted(run: Run) -> None:
    trained = [trial for trial in run.all_trials() if trial.user_attrs["outcome"] == "trained"]
    widest = {trial.number for trial in trained if trial.params["stem.c"] == 16}
    found = in_common(trained, widest)[0]
    assert (found["choice"], found["value"], found["with_it"], found["asked"]) == (
        "stem.c",
        16,
        len(widest),
        len(widest),
    )
    assert found["share"] == pytest.approx(len(widest) / len(trained)) and found["probability"] < 1e-6


@pytest.mark.usefixtures("_no_importance")
def test_a_retrained_network_and_the_trust_are_in_it(run: Run, facts: dict[str, Any], tmp_path: Path) -> None:
    assert facts["retrained"] == [] and facts["trust"] is None
    folder = run.folder / "retrain" / "x-epochs3-seed1"
    folder.mkdir(parents=True)
    known = facts["table"]["id"][facts["knee"]]
    result = {"id": known, "test_accuracy": 0.5, "recipe": {"epochs": 3}, "seed": 1}
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
    trust = run.folder.with_name("run-trust")
    trust.mkdir()
    (trust / "trust.json").write_text(json.dumps({"study": "toy", "rungs": []}), encoding="utf-8")
    found = report_facts(run)
    assert found["trust"] == {"study": "toy", "rungs": []}
    assert found["retrained"] == [
        {"id": known, "accuracy": 0.5, "epochs": 3, "seed": 1, "folder": "retrain/x-epochs3-seed1"}
    ]
    (trust / "trust.json").write_text('{"study": "another"}', encoding="utf-8")
    assert report_facts(run)["trust"] is None
    (folder / "result.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match=r"result\.json: is not valid JSON"):
        report_facts(run)
    (folder / "result.json").unlink()


def added(run: Run, attrs: dict[str, Any], failed: bool = False) -> None:
    """A trial with such attributes and no values: not told yet, or failed."""
    import optuna
    from optuna.trial import TrialState

    study = optuna.load_study(study_name=run.config.name, storage=run.open_storage())
    state = TrialState.FAIL if failed else TrialState.RUNNING
    study.add_trial(optuna.trial.create_trial(state=state, user_attrs=attrs))


def small(folder: Path, count: int, **changes: Any) -> Run:
    return fakes.recorded(fakes.write_study(folder, **{**STUDY, **changes}), folder / "run", count)


@pytest.mark.parametrize("count", [0, 30])
def test_an_outcome_on_record_that_is_not_told_yet_is_no_error(tmp_path: Path, count: int) -> None:
    run, other = small(tmp_path / "a", count), small(tmp_path / "b", 30)
    last = next(x for x in reversed(other.all_trials()) if x.user_attrs["outcome"] == "trained")
    before = report_facts(run)
    added(run, last.user_attrs)
    found = report_facts(run)
    assert len(found["table"]["id"]) == count + 1 and found["table"]["outcome"][-1] == "trained"
    assert [found[name] for name in ("growth", "importance")] == [before[name] for name in ("growth", "importance")]


def test_measuring_again_makes_no_candidates(tmp_path: Path) -> None:
    run = small(tmp_path, 20)
    trained = next(x for x in run.all_trials() if x.user_attrs["outcome"] == "trained")
    before, again = report_facts(run), {"candidate": trained.user_attrs["candidate"], "confirms": [trained.number, 1]}
    added(run, again)
    added(run, {**again, "outcome": "failed", "reason": "boom"}, failed=True)
    found = report_facts(run)
    assert found["table"] == before["table"] and found["status"]["running"] == 1


@pytest.mark.usefixtures("_no_importance")
def test_the_page_has_no_password(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    record, shared = run.record(), Run(run.folder)
    config = run.config.model_copy(update={"storage": "postgresql://me:secret@host/db"})
    object.__setattr__(shared, "config", config)
    monkeypatch.setattr(Run, "record", lambda self: record)
    found = report_facts(shared)
    assert "postgresql://me:***@host/db" in found["study"]["yaml"] and "secret" not in json.dumps(found)


def test_a_space_of_ones_own_with_a_published_name_is_no_reference(tmp_path: Path) -> None:
    run = small(tmp_path, 10)
    (tmp_path / "mobilenet_v1.yaml").write_text(fakes.TOY, encoding="utf-8")
    (tmp_path / "mobilenet_v2.yaml").write_text(fakes.SIX, encoding="utf-8")
    assert len(report_facts(run)["references"]) == 6
    with pytest.raises(InputError, match="has 153 networks, but a reference must have at most 30"):
        report_facts(run, [str(tmp_path / "mobilenet_v1.yaml")])


LATENCY_STUDY = {
    "objectives": ["accuracy", "latency_ms"],
    "latency": {"runtime": "eager"},
    "budget": {"latency_ms": 0.2},
}


@pytest.fixture(scope="module")
def timed(tmp_path_factory: pytest.TempPathFactory, quiet_optuna: None) -> Run:
    """A run in which milliseconds are a cost."""
    return small(tmp_path_factory.mktemp("timed"), 40, **LATENCY_STUDY)


@pytest.mark.usefixtures("_no_importance")
def test_milliseconds_are_facts_where_they_are_a_cost(timed: Run, facts: dict[str, Any]) -> None:
    found, trials = report_facts(timed), timed.trials().set_index("number")
    table = found["table"]
    assert table["latency_ms"] == pytest.approx([trials["latency_ms"][number] for number in table["number"]], abs=1e-5)
    assert [each["name"] for each in found["costs"]] == [*COSTS, "latency_ms"], "layers have places in COSTS"
    assert [each["name"] for each in facts["costs"]] == list(COSTS) and "latency_ms" not in facts["table"]
    members = compare_runs([timed])["runs"][str(timed.folder)]["members"]
    assert [each["latency_ms"] for each in members] == pytest.approx(timed.front()["latency_ms"].tolist())


@pytest.fixture
def predicted(timed: Run, tmp_path: Path) -> Run:
    """The same with what layers take, and with whole networks of the front that were measured a tenth slower."""
    shutil.copytree(timed.folder, tmp_path / timed.folder.name)
    run, trials = Run.open(tmp_path / timed.folder.name), timed.trials()
    layers = {layer for text in trials["architecture"] for layer in Architecture.from_json(text).layers}
    shares = {layer_name(layer): layer.out_channels / 1000 for layer in layers}
    write_json(run.latency_file, asdict(Latency({"runtime": "eager"}, shares, {}, {"mape": 0.0})))
    front = timed.front()
    times = {id_: value * 1.1 for id_, value in zip(front["id"], front["latency_ms"], strict=True)}
    write_json(run.measured_file, {id_: {"ms": x, "low_ms": 0.9 * x, "high_ms": 1.2 * x} for id_, x in times.items()})
    return run


@pytest.mark.usefixtures("_no_importance")
def test_milliseconds_of_layers_and_of_whole_networks(predicted: Run) -> None:
    found = report_facts(predicted)
    assert found["costs"][-1] == {"name": "latency_ms", "combine": "sum"}
    row = found["rows"][found["table"]["stages"][0][0]]
    assert [found["layers"][place][-1] for place, _ in row[8]] == pytest.approx([row[3] / 1000] * len(row[8]))
    ids = {found["table"]["id"][place] for place in found["front"]}
    assert found["measured"].keys() == ids
    for place in found["front"]:
        ms, low, high = found["measured"][found["table"]["id"][place]]
        assert ms == pytest.approx(1.1 * found["table"]["latency_ms"][place], abs=1e-4) and low < ms < high


def test_milliseconds_choose_in_the_terminal(timed: Run, capsys: pytest.CaptureFixture[str]) -> None:
    times = timed.front()["latency_ms"]
    limit = float(times.median())
    words = ["--where", f"latency_ms < {limit}", "--columns", "id,latency_ms,measured_ms"]
    assert main(["front", str(timed.folder), *words]) == 0
    header, *rows = [line.split() for line in capsys.readouterr().out.splitlines()[: 1 + (times < limit).sum()]]
    assert header == ["id", "latency_ms", "measured_ms"]
    assert [row[1:] for row in rows] == [[f"{value:.4f}", "not", "yet"] for value in times if value < limit]


# The page as a file


def test_the_page_is_one_small_file_without_what_could_be_run(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert len(text.encode()) < 6_000_000
    assert "<img" not in text and "<b>&" not in text
    assert "<title>&lt;/script&gt;" in text
    assert 'http-equiv="refresh"' not in text
    assert text.count("<script") == text.count("</script>") == 3


@pytest.mark.usefixtures("_no_importance")
def test_watching_ends_with_the_search(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    statuses = write_report(run, file, every=1)
    assert next(statuses)["done"] < STUDY["trials"]
    assert '<meta http-equiv="refresh" content="1">' in file.read_text(encoding="utf-8")
    config = run.config.model_copy(update={"trials": 10})
    done = Run(run.folder)
    object.__setattr__(done, "config", config)
    assert len(list(write_report(done, file, every=1))) == 1
    assert "refresh" not in file.read_text(encoding="utf-8")[:2000]


def test_watching_reads_the_record_alone_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, other, made, slept = small(tmp_path / "a", 6, trials=100), small(tmp_path / "b", 12), [], []
    last = next(x for x in reversed(other.all_trials()) if x.user_attrs["outcome"] == "trained")

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        assert len(slept) < 10
        if len(slept) == 2:
            added(run, {"candidate": last.user_attrs["candidate"]})
        if len(slept) == 4:
            object.__setattr__(run, "config", run.config.model_copy(update={"trials": 1}))
            added(run, last.user_attrs)

    def report(*arguments: Any) -> dict[str, Any]:
        made.append(len(slept))
        return report_facts(*arguments)

    monkeypatch.setattr("nas.report.watch.report_facts", report)
    monkeypatch.setattr("time.sleep", sleep)
    assert len(list(write_report(run, tmp_path / "report.html", every=7))) == 3
    assert made == [0, 2, 4] and slept == [7] * 4


def test_watching_ends_with_a_sitting_and_the_page_says_how(
    browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = fakes.write_study(tmp_path, trials=1, proxy={"rungs": [1], "confirm": 1})
    file, seen = tmp_path / "report.html", []
    run, _ = search(study, tmp_path / "run", hours=0)
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail("it is watched on"))
    assert len(list(write_report(run, file, every=1))) == 1
    state = Opened(browser, file).page.inner_text("#state")
    assert state.startswith("The search has stopped (0 hours are over): 0 of 1 candidates")
    found = Measurement(accuracy=0.5, loss=0.5, epochs=1, seconds=0.1)
    monkeypatch.setattr("nas.evaluation.ProxyTraining.evaluate", lambda self, job: found)
    search(study, tmp_path / "run", on_told=lambda told: seen.append(report_facts(run)["status"]))
    seen.append(report_facts(run)["status"])
    assert [(each["done"], each["ended"]) for each in seen] == [(1, ""), (1, ""), (1, "complete")]


def test_a_search_that_has_only_begun_has_a_page(browser: Any, tmp_path: Path) -> None:
    run = fakes.recorded(fakes.write_study(tmp_path / "s"), tmp_path / "run", 0)
    found = report_facts(run)
    assert found["front"] == [] and found["knee"] is None and found["growth"]["share"] == []
    write_page(tmp_path / "report.html", "report", "toy", found)
    opened = Opened(browser, tmp_path / "report.html")
    assert "only begun" in opened.page.inner_text("#chosen") and opened.wrong == []


def test_the_chart_library_is_as_it_was_published() -> None:
    content = files("nas.report").joinpath("web", "plotly-basic.min.js").read_bytes()
    assert hashlib.sha256(content).hexdigest() == "99784e3abfb07b142a15e521a439e6d9addceadb3f79553fd24c72774f0649ba"


# The page in a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module", params=[(1280, False), (400, True)], ids=["wide", "narrow"])
def opened(request: pytest.FixtureRequest, browser: Any, file: Path) -> Opened:
    width, dark = request.param
    return Opened(browser, file, width, dark)


def test_a_page_opens_without_error_or_request_and_fits_its_width(opened: Opened, facts: dict[str, Any]) -> None:
    page = opened.page
    assert page.locator("#front .scatterlayer .trace").count() >= 5
    assert page.locator("#table tbody tr").count() == len(facts["front"])
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
    assert page.inner_text("#chosen .id") == facts["table"]["id"][facts["knee"]]
    for chart in ("importance", "growth", "curves"):
        assert page.locator(f"#{chart} .main-svg").count() > 0, chart
    assert opened.wrong == []


def test_axe_finds_nothing_in_light_and_dark(opened: Opened) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    for scheme in ("light", "dark"):
        opened.page.emulate_media(color_scheme=scheme)
        found = axe.Axe().run(opened.page).response["violations"]
        nodes = [(each["id"], [node["html"][:200] for node in each["nodes"]][:3]) for each in found]
        assert not found, (scheme, nodes)


def test_a_click_on_a_point_fills_the_drawing(opened: Opened, facts: dict[str, Any]) -> None:
    page, table = opened.page, facts["table"]
    page.evaluate("document.getElementById('front').scrollIntoView({block: 'center'})")
    # Of the front's points the one that stands most alone.
    other, *point = page.evaluate(
        """knee => {
          const chart = document.getElementById('front'), own = chart._fullLayout, box = chart.getBoundingClientRect();
          const places = chart.data.filter(each => !each.yaxis).flatMap(each => each.x.map((x, i) =>
            [(each.customdata || [])[i], box.x + own.xaxis._offset + own.xaxis.d2p(x),
             box.y + own.yaxis._offset + own.yaxis.d2p(each.y[i])]));
          const front = new Set(chart.data.find(each => (each.name || '').startsWith('front')).customdata);
          const alone = ([place, x, y]) => Math.min(...places.filter(other => other[0] !== place)
            .map(other => Math.hypot(other[1] - x, other[2] - y)));
          return places.filter(each => front.has(each[0]) && each[0] !== knee).sort((a, b) => alone(b) - alone(a))[0];
        }""",
        facts["knee"],
    )
    page.mouse.move(*point)
    page.wait_for_selector("#front .hoverlayer .hovertext")
    assert table["id"][other] in page.text_content("#front .hoverlayer")
    page.mouse.click(*point)
    page.wait_for_function("id => document.querySelector('#chosen .id').textContent === id", arg=table["id"][other])
    rows = [facts["rows"][place] for place in table["stages"][other]]
    assert page.locator("#stages tbody tr").count() == len(rows) + 1
    assert page.locator("#drawing rect").count() == 1 + sum(row[4] for row in rows)
    shown = page.locator("#stages tbody tr td:nth-child(9)").all_inner_texts()
    params = [whole(facts, [place])["params"] for place in table["stages"][other]]
    assert [int(text.replace(",", "")) for text in shown] == params
    assert f"{table['params'][other]:,}" in page.inner_text("#stages tbody tr:last-child")
    assert f"--pick {table['id'][other]}" in page.inner_text("#commands")
    assert opened.wrong == []


def test_axes_can_be_any_cost_and_budgets_show(opened: Opened) -> None:
    page = opened.page
    assert page.locator("#x option").count() == len(COSTS) + 3
    for name in ["macs", "peak_memory_bytes", "params"]:
        page.select_option("#x", name)
        assert min(page.evaluate("document.getElementById('front').data[0].x")) > 0
    shapes = page.evaluate("document.getElementById('front').layout.shapes.map(each => each.x0)")
    assert shapes == [3000]
    step = "document.getElementById('front').data.find(each => each.name.startsWith('front')).line.shape"
    assert page.evaluate(step) == "hv"
    page.select_option("#x", "accuracy")
    page.select_option("#y", "params")
    assert page.evaluate(step) == "vh", "what an accuracy costs is known of the next better one"
    assert opened.wrong == []


@pytest.mark.usefixtures("_no_importance")
def test_a_page_of_measured_milliseconds(browser: Any, predicted: Run, tmp_path: Path) -> None:
    found = report_facts(predicted)
    write_page(tmp_path / "report.html", "report", "toy", found)
    opened = Opened(browser, tmp_path / "report.html")
    heads = opened.page.locator("#stages thead th").all_inner_texts()
    cells = opened.page.locator("#stages tbody tr:last-child td").all_inner_texts()
    assert heads[-1] == "latency (ms)" and cells[-1] == f"{found['table']['latency_ms'][found['knee']]:.4f}".rstrip("0")
    assert "Measured as a whole network: " in opened.page.inner_text("#chosen")
    assert opened.page.is_visible("#measured-chart")
    assert "off by 9.1 % in the mean" in opened.page.inner_text("#measured-hint")
    assert opened.wrong == []


def test_a_page_of_milliseconds(browser: Any, timed: Run, tmp_path: Path) -> None:
    (timed.folder.parent / "mobilenet_v2.yaml").write_text(fakes.SIX, encoding="utf-8")
    found = report_facts(timed)
    assert found["references"]
    write_page(tmp_path / "report.html", "report", "toy", found)
    opened = Opened(browser, tmp_path / "report.html")
    page, times = opened.page, found["table"]["latency_ms"]
    assert page.input_value("#x") == "latency_ms" and page.locator("#x option").count() == len(COSTS) + 4
    names = "document.getElementById('front').data.map(each => each.name || '').join()"
    assert "published" not in page.evaluate(names)
    page.select_option("#x", "params")
    assert "published" in page.evaluate(names)
    page.select_option("#x", "latency_ms")
    assert page.evaluate("document.getElementById('front').layout.shapes.map(each => each.x0)") == [0.2]
    page.select_option("#which", "all")
    heads = page.inner_text("#table thead")
    assert "measured (ms)" in heads and "int8" not in heads, "columns that this run has"
    page.fill("#where", "latency_ms < 0.06")
    fast = [place for place, value in enumerate(times) if value < 0.06]
    assert page.locator("#table tbody tr").count() == len(fast) and 0 < len(fast) < len(times)
    assert f"{times[found['knee']]:.4f}".rstrip("0") in page.inner_text("#chosen .costs")
    shares = page.locator("#stages thead th").all_inner_texts()
    assert "params" in shares and "latency (ms)" not in shares, "of which no layer has a share here"
    page.evaluate("chooseReference(D.references[0].id)")
    assert page.inner_text("#chosen .id") == found["references"][0]["name"]
    members = compare_runs([timed])
    write_page(tmp_path / "compare.html", "compare", "one", members)
    beside = Opened(browser, tmp_path / "compare.html")
    assert beside.page.input_value("#x") == "latency_ms"
    assert opened.wrong == [] and beside.wrong == []


def test_what_matters_is_said_of_as_many_as_were_looked_at(
    browser: Any, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("facts", "importance"):
        monkeypatch.setattr(f"nas.report.{module}.MOST", 20)
    write_page(tmp_path / "report.html", "report", "toy", report_facts(run))
    hint = Opened(browser, tmp_path / "report.html").page.inner_text("#importance-hint")
    assert hint.startswith("Conditional PED-ANOVA of 20 trained candidates;")


def test_copying_is_said(opened: Opened) -> None:
    command = opened.page.locator("#commands .copy").first
    command.locator("button").click()
    command.locator("[role=status]:text-matches('Copied|Selected')").wait_for()
    command.locator("[role=status]:text-is('')").wait_for(state="attached")
    assert opened.wrong == []


def test_the_table_sorts_and_filters(opened: Opened, facts: dict[str, Any]) -> None:
    page, table = opened.page, facts["table"]
    page.select_option("#which", "all")
    page.click("#table th[data-name=params] button")
    shown = page.locator("#table tbody tr td:nth-child(4)").all_inner_texts()
    assert [int(text.replace(",", "")) for text in shown] == sorted(table["params"])[:100]
    assert page.get_attribute("#table th[data-name=params]", "aria-sort") == "ascending"
    page.click("#table th[data-name=params] button")
    assert page.get_attribute("#table th[data-name=params]", "aria-sort") == "descending"
    page.fill("#where", "params < 1.5k and accuracy > 0.5 or outcome = failed")
    accuracy = [-1 if value is None else value for value in table["accuracy"]]
    expected = {
        table["id"][place]
        for place in range(COUNT)
        if (table["params"][place] < 1500 and accuracy[place] > 0.5) or table["outcome"][place] == "failed"
    }
    shown = page.locator("#table tbody .pick").all_inner_texts()
    assert set(shown) == expected and 0 < len(shown) < COUNT
    page.fill("#where", "width < 3")
    assert "width is not known; the names are: id," in page.inner_text("#count")
    assert page.get_attribute("#where", "aria-invalid") == "true"
    page.fill("#where", "")
    page.click("#more")
    assert page.locator("#table tbody tr").count() == COUNT
    page.select_option("#which", "front")
    assert opened.wrong == []


def test_what_failed_says_why_as_text(opened: Opened, facts: dict[str, Any]) -> None:
    page = opened.page
    page.select_option("#which", "all")
    page.fill("#where", "outcome = failed")
    page.locator("#table tbody .pick").first.click()
    assert EVIL.replace("\u2028", "") in page.text_content("#chosen").replace("\u2028", "")
    assert page.locator("img").count() == 0
    page.fill("#where", "")
    page.select_option("#which", "front")
    assert opened.wrong == []


def test_all_of_it_is_reached_by_keyboard(opened: Opened, facts: dict[str, Any]) -> None:
    page, ids = opened.page, [facts["table"]["id"][place] for place in facts["front"]]
    page.focus("#front")
    for _ in ids:
        page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#chosen .id") == ids[min(1, len(ids) - 1)]
    page.locator(f"#table tbody .pick:text-is('{ids[-1]}')").focus()
    page.keyboard.press("Enter")
    assert page.inner_text("#chosen .id") == ids[-1]
    assert page.get_attribute(f"#table tbody .pick:text-is('{ids[-1]}')", "aria-pressed") == "true"
    assert opened.wrong == []


def test_a_comparison_is_a_page(browser: Any, run: Run, tmp_path: Path) -> None:
    other = fakes.recorded(fakes.write_study(tmp_path / "b", **STUDY), tmp_path / "b" / EVIL[9:20], 40, seed=1)
    found = compare_runs([run, other])
    write_page(tmp_path / "compare.html", "compare", "two", found)
    opened = Opened(browser, tmp_path / "compare.html", 400)
    page = opened.page
    assert page.locator("#runs tbody tr").count() == page.locator("#when tbody tr").count() == 2
    for chart in ("fronts", "growth"):
        assert page.locator(f"#{chart} .scatterlayer .trace").count() == 2
    members = found["runs"][str(other.folder)]["members"]
    assert [each["id"] for each in members] == other.front()["id"].tolist()
    page.select_option("#x", "macs")
    assert max(page.evaluate("document.getElementById('fronts').data[1].x")) == max(each["macs"] for each in members)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    violations = axe.Axe().run(page).response["violations"]
    assert not violations, [(each["id"], each["nodes"][0]["html"][:200]) for each in violations]
    assert opened.wrong == []


@pytest.mark.usefixtures("_no_importance")
def test_the_command_says_where_the_page_is(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "page.html"
    assert main(["report", str(run.folder), "--output", str(file)]) == 0
    assert capsys.readouterr().out.startswith(f"{file}: ") and file.stat().st_size < 6_000_000
    assert main(["report", str(run.folder), "--output", str(tmp_path / "page.txt")]) == 2
    assert "--output is" in (line := capsys.readouterr().err) and "a file that ends in .html" in line
