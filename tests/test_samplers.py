"""The contract of every sampler in the table, and what ours does that Optuna's does not."""

from __future__ import annotations

from typing import Any

import fakes
import optuna
import pytest

from nas.architecture import Architecture
from nas.census import Feasible
from nas.costs import costs
from nas.inputs import InputError, parse_yaml
from nas.samplers import SAMPLERS, check_sampler, make_sampler
from nas.space import Space

OPTIONS: dict[str, dict[str, Any]] = {
    "random": {},
    "tpe": {"startup": 5},
    "nsga2": {"population": 5},
    "surrogate": {"startup": 3, "pool": 128},
}
"""So that each does what it is for within a few proposals."""
BUDGET = {"params": 1538.0}
OBJECTIVES = ("accuracy", "params")


pytestmark = pytest.mark.usefixtures("quiet_optuna")


def toy() -> Space:
    return Space.from_dict(parse_yaml(fakes.TOY, "toy"), "toy", 1, 10)


def propose(
    sampler: str, seed: int, count: int, options: dict[str, Any] | None = None, objectives: int = 2
) -> list[dict[str, Any]]:
    """The params of so many proposals in a row; half of the toy space is over the budget."""
    space, proposals = toy(), []
    study = optuna.create_study(directions=["maximize", "minimize"][:objectives])
    task = space, costs, Feasible(space, BUDGET).draw, BUDGET, OBJECTIVES[:objectives]
    for number in range(count):
        known = OPTIONS[sampler] if options is None else options
        study.sampler = make_sampler(sampler, known, seed, number, *task)
        trial = study.ask()
        architecture = space.suggest(trial)
        proposals.append(trial.params)
        for name, value in trial.params.items():
            distribution = space.distributions[name]
            assert trial.distributions[name] == distribution
            assert distribution._contains(distribution.to_internal_repr(value))
        study.tell(trial, values(space, architecture, trial)[:objectives])
    return proposals


def values(space: Space, architecture: Architecture, trial: optuna.Trial) -> list[float]:
    if space.problem(architecture):
        trial.set_constraint("possible", 1.0)
        return [0.0, 0.0]
    params = costs(architecture)["params"]
    trial.set_constraint("params", params / 1538 - 1)
    return [fakes.accuracy(architecture.id) if params <= 1538 else 0.0, params]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_proposals_follow_from_seed_and_record(sampler: str) -> None:
    first = propose(sampler, 0, 25)
    assert first == propose(sampler, 0, 25)
    assert first != propose(sampler, 1, 25)
    assert len({tuple(sorted(params.items())) for params in first}) > 8, "each proposal has a seed of its own"


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_one_objective_will_do(sampler: str) -> None:
    assert len(propose(sampler, 0, 15, objectives=1)) == 15


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_choice_is_proposed(sampler: str) -> None:
    proposals = propose(sampler, 0, 60)
    for name, choices in toy().choices.items():
        assert {params[name] for params in proposals if name in params} == set(choices), name


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_options_are_checked(sampler: str) -> None:
    check_sampler(sampler, OPTIONS[sampler], "study.yaml: sampler")
    with pytest.raises(InputError, match=rf"^study.yaml: sampler.depth is not an option of {sampler}; it"):
        check_sampler(sampler, {"depth": 3}, "study.yaml: sampler")
    for given in ("seed", "space"):
        with pytest.raises(InputError, match=f"{given} is not an option"):
            check_sampler(sampler, {given: 3}, "study.yaml: sampler")


@pytest.mark.parametrize(
    ("sampler", "option", "says"),
    [
        ("tpe", {"startup": 0}, "sampler.startup is 0, but must be greater than or equal to 1"),
        ("tpe", {"multivariate": 1}, "sampler.multivariate is 1, but must be true or false"),
        ("nsga2", {"population": 1}, "sampler.population is 1, but must be greater than or equal to 2"),
        ("nsga2", {"population": 8.5}, "sampler.population is 8.5, but must be a valid integer"),
        ("random", {"startup": 1}, "sampler.startup is not an option of random; it has none"),
        ("surrogate", {"pool": 1}, "sampler.pool is 1, but must be greater than or equal to 16"),
        ("best", {}, "sampler.name is 'best', but must be one of: nsga2, random, surrogate, tpe"),
    ],
)
def test_a_wrong_option_is_one_line(sampler: str, option: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as error:
        check_sampler(sampler, option, "sampler")
    assert str(error.value) == says


@pytest.mark.parametrize(
    ("sampler", "options"),
    [("tpe", {"multivariate": True, "startup": 5}), ("nsga2", {"population": 2}), ("surrogate", {"startup": 9})],
    ids=str,
)
def test_options_reach_the_sampler(sampler: str, options: dict[str, Any]) -> None:
    assert propose(sampler, 0, 20, options) != propose(sampler, 0, 20)


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "surrogate"])
def test_a_sampler_learns_what_is_possible_and_within_budget(sampler: str) -> None:
    """Of the toy space a quarter of all combinations is impossible, and half of the rest over the budget here."""

    def fits(params: dict[str, Any]) -> bool:
        space = toy()
        architecture = space.form(lambda name, _: params[name])
        return space.problem(architecture) is None and costs(architecture)["params"] <= 1538

    shares = []
    for name in (sampler, "random"):
        late = [params for seed in range(2) for params in propose(name, seed, 60)[30:]]
        shares.append(sum(map(fits, late)) / len(late))
    assert shares[0] > 0.7 > shares[1] + 0.2, shares


def test_children_inherit_choices_that_exist_only_under_others() -> None:
    """Optuna's NSGA-II draws these anew for each child, and has no children of what was enqueued."""
    space, population = toy(), 6
    study = optuna.create_study(directions=["maximize", "minimize"])
    conditional = {"stages[0][0].t": 3, "stages[0][0].c": 12, "stages[0][0].groups": 3, "stages[0][0].shuffle": True}
    fixed = {"stem.c": 12, "stages[0]": 0, "stages[1].c": 24, **conditional}
    for _ in range(population):
        study.enqueue_trial(fixed)
    kept = drawn = 0
    task = space, costs, space.sample, {}, OBJECTIVES
    for number in range(60):
        study.sampler = make_sampler("nsga2", {"population": population}, 0, number, *task)
        trial = study.ask()
        space.suggest(trial)
        # Only the first generation is any good, so it stays the only parents.
        study.tell(trial, [1.0, 1.0] if number < population else [0.0, 2.0])
        if number >= population and trial.params["stages[0]"] == 0:
            kept += sum(trial.params.get(name) == value for name, value in conditional.items())
            drawn += len(conditional)
    assert drawn > 100 and kept / drawn > 0.8, "one in seven is mutated; drawn anew, less than half would be kept"


def test_parents_within_the_budget_are_preferred_to_better_ones_over_it() -> None:
    """Of two parents the one within wins three of four tournaments."""
    space = toy()
    study = optuna.create_study(directions=["maximize", "minimize"])
    rest = {"stages[0]": 1, "stages[0][1].c": 8, "stages[0][1].n": 1, "stages[1].c": 16}
    for stem in (8, 16):
        study.enqueue_trial({"stem.c": stem, **rest})
    stems = []
    task = space, costs, space.sample, BUDGET, OBJECTIVES
    for number in range(80):
        study.sampler = make_sampler("nsga2", {"population": 2}, 0, number, *task)
        trial = study.ask()
        space.suggest(trial)
        # The 8 is within the budget, the 16 better but over it, all the others worse than both.
        trial.set_constraint("params", {0: -1.0, 1: 1.0}.get(number, 2.0))
        study.tell(trial, {0: [0.5, 100.0], 1: [0.9, 50.0]}.get(number, [0.0, 200.0]))
        stems.append(trial.params["stem.c"])
    assert stems[2:].count(8) > 1.5 * stems[2:].count(16), stems


def test_some_proposals_are_those_of_always() -> None:
    """Golden: seed 0, the toy space. They change with Optuna, or with a change of ours that users must be told of.

    Not the surrogate's: which of two candidates is worth more may hang on the last digit of a sum, which processors
    round differently.
    """
    found = {}
    for sampler in SAMPLERS.keys() - {"surrogate"}:
        proposals = propose(sampler, 0, 21)
        found[sampler] = {number: list(proposals[number].values()) for number in (0, 1, 12, 20)}
    assert found == GOLDEN


GOLDEN = {
    "random": {
        0: [12, 0, 12, 2, 3, False, 32],
        1: [12, 0, 8, 1, 1, 16],
        12: [8, 0, 12, 1, 3, True, 32],
        20: [12, 0, 16, 1, 3, False, 24],
    },
    "tpe": {
        0: [12, 0, 12, 2, 3, False, 32],
        1: [12, 0, 8, 1, 1, 16],
        12: [8, 0, 8, 1, 1, 16],
        20: [12, 0, 12, 2, 1, 16],
    },
    "nsga2": {
        0: [12, 0, 12, 2, 3, False, 32],
        1: [12, 0, 8, 1, 1, 16],
        12: [12, 0, 12, 3, 3, False, 16],
        20: [12, 0, 8, 1, 1, 16],
    },
}
