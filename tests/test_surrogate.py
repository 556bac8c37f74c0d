"""The surrogate: its process, its acquisition, and what the sampler promises on any study."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from nas.samplers import SurrogateSampler
from nas.surrogate.domain import Domain
from nas.surrogate.encoding import Encoding
from nas.surrogate.improvement import error_gain, expected_improvement, plain_gain, power_gain
from nas.surrogate.process import Inputs, Kernel, Process
from nas.surrogate.score import Belief, Scale
from nas.surrogate.worth import BEYOND, Goal, Record, Worth

SPACE: dict[str, BaseDistribution] = {
    "block": CategoricalDistribution(("plain", "wide", "deep")),
    "kernel": CategoricalDistribution((3, 5, 9)),
    "repeats": IntDistribution(1, 5, step=2),
    "groups": IntDistribution(1, 2),
}
Params = dict[str, Any]


pytestmark = pytest.mark.usefixtures("quiet_optuna")


def active(answers: Params) -> list[str]:
    """Only a wide block has groups."""
    return [name for name in SPACE if name != "groups" or answers["block"] == "wide"]


def costs(params: Params) -> dict[str, float]:
    size = {"plain": 1, "wide": 3, "deep": 2}[params["block"]] / params.get("groups", 1)
    return {"params": 100 * size * params["repeats"], "macs": params["kernel"] ** 2 * size}


def accuracy(params: Params) -> float:
    noise = random.Random(str(sorted(params.items()))).gauss(0, 0.003)
    return 0.95 - 0.3 / params["repeats"] - 0.2 / params["kernel"] - 0.05 * (params["block"] == "plain") + noise


def ask(study: optuna.Study) -> tuple[optuna.Trial, Params]:
    trial = study.ask()
    params: Params = {"block": trial.suggest_categorical("block", SPACE["block"].choices)}  # type: ignore[attr-defined]
    params["kernel"] = trial.suggest_categorical("kernel", (3, 5, 9))
    params["repeats"] = trial.suggest_int("repeats", 1, 5, step=2)
    if params["block"] == "wide":
        params["groups"] = trial.suggest_int("groups", 1, 2)
    return trial, params


def made(seed: int = 0, **options: Any) -> SurrogateSampler:
    return SurrogateSampler(SPACE, costs, **{"seed": seed, "active": active, "pool": 64, **options})


def started(sampler: SurrogateSampler, directions: tuple[str, ...] = ("maximize", "minimize")) -> optuna.Study:
    return optuna.create_study(directions=list(directions), sampler=sampler)


def run(study: optuna.Study, count: int, score: Callable[[Params], float] = accuracy) -> list[Params]:
    found = []
    for _ in range(count):
        trial, params = ask(study)
        study.tell(trial, [score(params), *list(costs(params).values())[: len(study.directions) - 1]])
        found.append(params)
    return found


# The process


def inputs(count: int, seed: int) -> tuple[Kernel, Inputs]:
    rng, encoding = random.Random(seed), Encoding(SPACE)
    domain = Domain(SPACE, costs, active=active)
    candidates = list(domain.draws(rng, count))
    features = np.random.default_rng(seed).normal(size=(count, 2))
    embedded = encoding.embed(np.array([each.codes for each in candidates]))
    return Kernel(encoding.choice, encoding.ordered, encoding.mixed, 2), Inputs(embedded, features)


def test_the_gradient_is_that_of_the_loss() -> None:
    kernel, known = inputs(12, 0)
    rng = np.random.default_rng(0)
    scores, theta = rng.normal(size=12), kernel.means + 0.5 * rng.normal(size=len(kernel.means))
    _, gradient = kernel.loss(theta, known, scores)
    steps = 1e-5 * np.eye(len(theta))
    slopes = [
        (kernel.loss(theta + h, known, scores)[0] - kernel.loss(theta - h, known, scores)[0]) / 2e-5 for h in steps
    ]
    np.testing.assert_allclose(gradient, slopes, rtol=1e-4, atol=1e-6)


def test_fitting_raises_the_posterior() -> None:
    kernel, known = inputs(20, 1)
    scores = known.features[:, 0] + 0.1 * np.random.default_rng(1).normal(size=20)
    theta = kernel.fit(known, scores)
    assert kernel.loss(theta, known, scores)[0] < kernel.loss(kernel.means, known, scores)[0] - 1
    assert theta[-2] > theta[-1], "the feature that says something is believed more"


def test_a_process_passes_through_what_it_has_seen_and_knows_the_rest_less() -> None:
    kernel, known = inputs(10, 2)
    scores = np.random.default_rng(2).normal(size=10)
    theta = kernel.means.copy()
    theta[0] = math.log(1e-6)
    process = Process(kernel, theta, known, scores)
    mean, deviation = process.predict(known)
    np.testing.assert_allclose(process.fitted, mean, atol=1e-8)
    distinct = [n for n in range(10) if (known.embedded == known.embedded[n]).all(axis=1).sum() == 1]
    np.testing.assert_allclose(mean[distinct], scores[distinct], atol=0.01)
    other = inputs(10, 3)[1]
    assert deviation.max() < 0.01 < np.median(process.predict(other)[1])
    both = process.given(other, process.predict(other)[0])
    np.testing.assert_allclose(both.fitted, np.concatenate([both.predict(x)[0] for x in (known, other)]), atol=1e-5)
    assert (both.predict(other)[1] < process.predict(other)[1] + 1e-9).all()
    np.testing.assert_allclose(both.predict(known)[0], mean, atol=1e-2)


def test_a_covariance_is_one() -> None:
    kernel, known = inputs(30, 4)
    matrix = kernel(kernel.means, known, known)
    np.testing.assert_allclose(matrix, matrix.T)
    np.testing.assert_allclose(np.diag(matrix), kernel.diagonal(kernel.means, known))
    assert np.linalg.eigvalsh(matrix).min() > -1e-9


def test_distances_are_of_ranks_and_of_equality() -> None:
    encoding = Encoding(SPACE)
    base = {"block": "plain", "kernel": 3, "repeats": 1}
    rows = [base, {**base, "kernel": 5}, {**base, "kernel": 9}, {**base, "block": "wide", "groups": 1}]
    embedded = encoding.embed(np.array([encoding.codes(row) for row in rows]))

    def distance(one: int, other: int, choice: int, ordered: bool) -> float:
        columns = (encoding.choice == choice) & (encoding.ordered == ordered)
        return float(((embedded[one] - embedded[other])[columns] ** 2).sum())

    assert [distance(0, other, 1, True) for other in (0, 1, 2)] == pytest.approx([0, 0.25, 1])
    assert [distance(0, other, 1, False) for other in (0, 1, 2)] == pytest.approx([0, 1, 1])
    assert distance(0, 3, 3, False) == pytest.approx(1), "not asked is a value of its own"
    with pytest.raises(ValueError, match="the distribution of lr is Float"):
        Encoding({"lr": FloatDistribution(0, 1)})
    assert Encoding({"n": IntDistribution(1, 100_000)}).embed(np.array([[0], [99_999], [-1]])).shape == (3, 66)


# The acquisition


@pytest.mark.parametrize("power", [None, 0.0, -1.0, 0.5])
def test_gains_are_those_of_many_draws(power: float | None) -> None:
    draws = 1.5 + 0.2 * np.random.default_rng(0).standard_normal(400_000)
    level = np.array([1.4])
    gain = plain_gain if power is None else power_gain(power) if power else error_gain

    def value(score: Any) -> Any:
        return score if power is None else 1 - (np.exp(-score) if power == 0 else (1 - power * score) ** (1 / power))

    expected = np.maximum(value(draws) - value(level), 0).mean()
    assert gain(np.array([1.5]), np.array([0.2]), level)[0] == pytest.approx(expected, rel=0.03)


def volume(points: np.ndarray, reference: np.ndarray) -> float:
    from nas.pareto import hypervolume

    return hypervolume(points, reference, [True] + [False] * (points.shape[1] - 1))


@pytest.mark.parametrize("count", [1, 2])
def test_the_improvement_is_that_of_many_draws(count: int) -> None:
    rng = np.random.default_rng(count)
    known = np.column_stack([rng.uniform(0.2, 0.9, 6), rng.uniform(0.1, 0.9, (6, count))])
    reference = (0.1, np.ones(count))
    mean, deviation, cost = np.array([0.5, 0.8]), np.array([0.1, 0.2]), rng.uniform(0.1, 0.6, (2, count))
    found = expected_improvement(mean, deviation, cost, (known[:, 0], known[:, 1:]), reference, plain_gain)
    corner = np.array([reference[0], *reference[1]])
    for n in range(2):
        draws = mean[n] + deviation[n] * rng.standard_normal(1500)
        gains = [volume(np.vstack([known, [draw, *cost[n]]]), corner) - volume(known, corner) for draw in draws]
        assert found[n] == pytest.approx(np.mean(gains), rel=0.15, abs=1e-3)


def test_without_a_cost_it_is_the_expected_improvement() -> None:
    mean, deviation, none = np.array([0.5]), np.array([0.1]), np.empty((1, 0))
    found = expected_improvement(mean, deviation, none, (np.array([0.6]), none), (0.0, np.empty(0)), plain_gain)
    assert found[0] == pytest.approx(plain_gain(mean, deviation, np.array([0.6]))[0])


@pytest.mark.parametrize(
    ("values", "maximise", "ideal", "logarithmic"),
    [
        ([0.9, 0.95], True, 1.0, True),
        ([91.0, 92.0], True, 1.0, False),
        ([0.3, 1.0], True, 1.0, True),
        ([1.0, 1.0], True, 1.0, False),
        ([0.3, 2.0], False, 0.0, True),
        ([-1.0, 2.0], False, 0.0, False),
    ],
)
def test_a_scale_rises_with_what_is_better(
    values: list[float], maximise: bool, ideal: float, logarithmic: bool
) -> None:
    scale = Scale.of(values, maximise, ideal)
    assert (scale.ideal is not None) == logarithmic
    worse, better = scale(np.array(sorted(values, reverse=not maximise)))
    assert np.isfinite([worse, better]).all() and (better > worse or values[0] == values[1])


def test_a_belief_without_spread_is_the_prior() -> None:
    kernel, known = inputs(3, 5)
    belief = Belief.after(Encoding(SPACE), known, np.full(3, 0.7))
    mean, deviation = belief.predict(inputs(4, 6)[1])
    assert mean == pytest.approx(0.7) and (deviation > 0.1).all() and (belief.process.theta == kernel.means).all()


# The sampler


def members(budget: float = math.inf) -> list[Params]:
    found = Domain(SPACE, costs, {"params": budget}, active=active).everything
    assert found is not None
    return [each.params for each in found]


@pytest.mark.parametrize("budget", [math.inf, 400.0])
def test_each_member_within_the_budget_is_proposed_once(budget: float) -> None:
    everyone = members(budget)
    study = started(made(budget={"params": budget}))
    found = run(study, len(everyone))
    assert sorted(map(str, found)) == sorted(map(str, everyone)) and all(costs(x)["params"] <= budget for x in found)
    with pytest.warns(UserWarning, match="every candidate of the search space within the budget has been proposed"):
        assert run(study, 1)[0] in everyone


def test_optimize_stops_when_the_space_is_exhausted() -> None:
    study = started(made(budget={"params": 100.0}))
    everyone = members(100.0)

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        trial.suggest_categorical("block", ("plain", "wide", "deep"))
        trial.suggest_categorical("kernel", (3, 5, 9))
        trial.suggest_int("repeats", 1, 5, step=2)
        if trial.params["block"] == "wide":
            trial.suggest_int("groups", 1, 2)
        return accuracy(trial.params), costs(trial.params)["params"]

    with pytest.warns(UserWarning, match="has been proposed"):
        study.optimize(objective, n_trials=50)
    assert len(study.trials) == len(everyone) + 1


def test_resumed_is_as_uninterrupted_and_seeds_differ() -> None:
    whole = run(started(made()), 14)
    study = started(made())
    first = run(study, 5)
    study.sampler = made()
    assert first + run(study, 9) == whole
    assert run(started(made(seed=1)), 14) != whole


def test_it_beats_random() -> None:
    """Hypervolume after 12 of 36 members, mean of three seeds."""

    def reached(sampler: Callable[[int], Any]) -> float:
        total = 0.0
        for seed in range(3):
            study = started(sampler(seed))
            points = [[accuracy(params), costs(params)["params"]] for params in run(study, 12)]
            total += volume(np.array(points), np.array([0.5, 1500.0]))
        return total

    best = volume(
        np.array([[accuracy(params), costs(params)["params"]] for params in members()]), np.array([0.5, 1500.0])
    )
    ours, theirs = reached(made), reached(lambda seed: optuna.samplers.RandomSampler(seed=seed))
    assert theirs < ours and ours > 0.97 * 3 * best


@pytest.mark.parametrize("directions", [("maximize",), ("maximize", "minimize", "minimize")])
def test_any_number_of_costs(directions: tuple[str, ...]) -> None:
    found = run(started(made(), directions), 12)
    assert len({str(params) for params in found}) == 12


def test_a_minimised_score_beside_a_maximised_cost() -> None:
    """The objectives are named, as the score is the second."""
    sampler = made(objectives=["params", "error"])
    study = started(sampler, ("maximize", "minimize"))
    errors = []
    for _ in range(14):
        trial, params = ask(study)
        study.tell(trial, [costs(params)["params"], 1 - accuracy(params)])
        errors.append(1 - accuracy(params))
    assert min(errors) < 0.14


@pytest.mark.parametrize("score", [lambda params: 0.5, lambda params: 1.0, lambda params: -3.0 * params["repeats"]])
def test_scores_of_any_kind_do(score: Callable[[Params], float]) -> None:
    assert len({str(params) for params in run(started(made()), 10, score)}) == 10


def test_failures_are_not_proposed_again_and_not_learnt_from() -> None:
    study, found = started(made()), []
    for number in range(12):
        trial, params = ask(study)
        if number % 3 == 1:
            study.tell(trial, state=TrialState.FAIL)
        elif number % 3 == 2:  # over somebody's budget: the 0 is no accuracy
            trial.set_constraint("memory", 1.0)
            study.tell(trial, [0.0, 0.0])
        else:
            study.tell(trial, [accuracy(params), costs(params)["params"]])
        found.append(params)
    assert len({str(params) for params in found}) == 12


def test_workers_are_given_different_candidates() -> None:
    study = started(made())
    run(study, 6)
    asked = [ask(study) for _ in range(8)]
    assert len({str(params) for _, params in asked}) == 8
    for trial, params in reversed(asked):
        study.tell(trial, [accuracy(params), costs(params)["params"]])
    assert len({str(trial.params) for trial in study.trials} | {str(params) for params in run(study, 2)}) == 16


def test_what_is_enqueued_goes_first_and_is_not_proposed_again() -> None:
    study, wanted = started(made()), {"block": "deep", "kernel": 9, "repeats": 5}
    study.enqueue_trial(wanted)
    found = run(study, 10)
    assert found[0] == wanted and wanted not in found[1:]


def test_a_cost_that_is_another_value_is_refused() -> None:
    study = started(made(objectives=["accuracy", "macs"]))
    with pytest.raises(ValueError, match=r"trial 0 was told a macs of .*; say with `objectives` which value is which"):
        run(study, 6)
    with pytest.raises(ValueError, match=r"a study has 2 objectives, named \['accuracy'\], but must have one score"):
        run(started(made(objectives=["accuracy"])), 6)


def test_a_cost_that_is_always_the_same_takes_no_improvement_away() -> None:
    domain = Domain(SPACE, lambda params: {**costs(params), "same": 7.0}, active=active)
    told = list(domain.draws(random.Random(0), 6))
    record = Record(told=told, values=[accuracy(each.params) for each in told])
    candidates = list(domain.draws(random.Random(1), 20))

    def worth(*names: str) -> Any:
        return Worth(domain, record, Goal(True, 1.0, names, np.ones(len(names)), None, {}))(candidates)

    assert worth("params").max() > 1e-6
    np.testing.assert_allclose(worth("params", "same"), BEYOND * worth("params"), rtol=0.05)


def test_a_value_may_be_none() -> None:
    """It is not the same as not to be asked."""
    space = {"gate": CategoricalDistribution((None, "se")), "cap": CategoricalDistribution((None, 8))}

    def asked(answers: Params) -> list[str]:
        return ["gate", "cap"] if answers["gate"] else ["gate"]

    domain = Domain(space, lambda params: {"size": float(len(params))}, active=asked)
    assert domain.everything is not None and [each.params for each in domain.everything] == [
        {"gate": None},
        {"gate": "se", "cap": None},
        {"gate": "se", "cap": 8},
    ]
    assert [each.codes for each in domain.everything] == [(0, -1), (1, 0), (1, 1)]
    assert domain.read({"gate": "se"}) is None and domain.read({"gate": None, "cap": 8}) is domain.everything[0]


def test_neighbours_are_one_choice_away_and_ask_what_is_new() -> None:
    domain = Domain(SPACE, costs, {"params": 900.0}, active=active)
    centre = domain.candidate({"block": "plain", "kernel": 3, "repeats": 1})
    assert centre is not None
    found = [each.params for each in domain.neighbours([centre], random.Random(0))]
    assert len(found) == 2 + 2 + 2 and all(costs(params)["params"] <= 900 for params in found)
    for params in found:
        changed = [name for name in centre.params if params[name] != centre.params[name]]
        assert len(changed) == 1 and ("groups" in params) == (params["block"] == "wide")


def test_a_space_too_large_to_list() -> None:
    """Candidates are drawn: by default until they fit, here by a function of the user's."""
    space: dict[str, BaseDistribution] = {f"c{n}": CategoricalDistribution((0, 1, 2, 3)) for n in range(12)}

    def size(params: Params) -> dict[str, float]:
        return {"size": 1.0 + sum(params.values())}

    def small(rng: random.Random) -> Params:
        return {name: int(rng.random() < 0.3) for name in space}

    for options in ({}, {"draw": small}):
        sampler = SurrogateSampler(space, size, {"size": 9.0}, pool=100, **options)  # type: ignore[arg-type]
        study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
        for _ in range(6):
            trial = study.ask()
            params = {name: trial.suggest_categorical(name, (0, 1, 2, 3)) for name in space}
            assert size(params)["size"] <= 9
            study.tell(trial, [1 - 0.5 * math.exp(-size(params)["size"] / 5), size(params)["size"]])
        assert len({str(trial.params) for trial in study.trials}) == 6
