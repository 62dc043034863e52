"""Differences over seeds, by hand values and against data with a known spread."""

import math

import numpy as np
import pytest
from scipy import stats

from eval.comparison import statistics


def test_a_difference_is_paired_by_seed():
    found = statistics.paired({0: 5.0, 1: 8.0, 7: 1.0}, {0: 4.0, 1: 4.0, 2: 9.0})
    assert found.mean == 2.5 and found.seeds == 2
    assert found.standard_error == pytest.approx(1.5)  # of 1 and 4: deviation 1.5 sqrt(2), over sqrt(2)


def test_one_seed_has_no_error_and_none_no_difference():
    assert statistics.paired({0: 5.0}, {0: 4.0}) == (1.0, None, 1)
    assert statistics.paired({0: 5.0}, {1: 4.0}) is None


def test_what_seeds_share_is_not_spread():
    """A bad seed makes all objectives worse by one factor."""
    fit = statistics.layout({"a": {0: 1.0, 1: 2.0}, "b": {0: 3.0, 1: 6.0}, "c": {0: 10.0, 1: 20.0}})
    assert (fit.deviation, fit.freedom) == (pytest.approx(0, abs=1e-12), 2)
    assert fit.effects["c"] - fit.effects["a"] == pytest.approx(math.log(10))


def test_the_spread_is_that_of_a_paired_difference():
    """For two objectives it gives the paired standard error, of logarithms."""
    values = {"a": {0: 1.0, 1: 2.0, 2: 2.5}, "b": {0: 3.0, 1: 4.0, 2: 11.0}}
    fit = statistics.layout(values)
    logs = {name: {seed: math.log(value) for seed, value in each.items()} for name, each in values.items()}
    error = statistics.paired(logs["a"], logs["b"]).standard_error
    assert fit.margin("b", "a") == pytest.approx(stats.t.ppf(0.95, 2) * error) and fit.freedom == 2


def test_an_objective_that_lacks_a_seed_is_compared_by_those_it_has():
    """Seed 1 is about twice as bad for all. So c, with seed 0 only, is level with a, though its mean is lower."""
    values = {"a": {0: 1.0, 1: 2.0}, "b": {0: 1.5, 1: 3.1}, "c": {0: 1.0}}
    fit, whole = statistics.layout(values), statistics.layout({name: values[name] for name in "ab"})
    assert (fit.deviation, fit.freedom) == (pytest.approx(whole.deviation), whole.freedom)
    shared = math.log(3.1 / 1.5 * 2) / 2  # the effect of seed 1 less that of seed 0
    assert fit.effects["c"] - fit.effects["a"] == pytest.approx(0 - (math.log(2) - shared) / 2)
    assert fit.variance("b", "a") == pytest.approx(1) and fit.variance("c", "a") == pytest.approx(7 / 4)
    first, second, _ = statistics.ranking(values)
    assert (first.name, first.mean, second.name, second.mean, second.level) == ("a", 1.5, "c", 1.0, True)
    assert statistics.layout({"a": {0: 1.0, 1: 2.0}, "c": {0: 1.0}}).freedom == 0


def test_objectives_that_no_seed_connects_are_level():
    values = {"a": {0: 1.0, 1: 2.0}, "b": {0: 1.5, 1: 3.1}, "c": {2: 50.0}}
    assert statistics.layout(values).variance("c", "a") == math.inf
    assert {place.name: place.level for place in statistics.ranking(values)}["c"]


def test_level_errs_as_often_as_it_says():
    """Of equally good objectives, a given one is called worse than a given other by chance in 5 % of the trials, with
    one seed as with two."""
    rng, trials = np.random.default_rng(0), 2000
    wrong = {"b": 0, "g": 0}
    for _ in range(trials):
        values = {name: dict(enumerate(np.exp(rng.normal(0, 0.1, 1 if name in "fg" else 2)))) for name in "abcdefg"}
        fit = statistics.layout(values)
        for name in wrong:
            wrong[name] += fit.effects[name] - fit.effects["a"] > fit.margin(name, "a")
    assert all(0.035 < count / trials < 0.065 for count in wrong.values())


def test_the_ranking_names_what_is_level():
    values = {"far": {0: 20.0, 1: 21.0}, "best": {0: 10.0, 1: 11.0}, "near": {0: 10.4, 1: 11.0}}
    ranked = statistics.ranking(values)
    assert [place.name for place in ranked] == ["best", "near", "far"]
    assert [place.level for place in ranked] == [True, True, False]
    assert ranked[0].behind == 0 and ranked[2].mean == 20.5
    assert ranked[2].behind == pytest.approx(math.log(20 * 21 / 110) / 2)


def test_without_a_second_seed_nothing_is_called_level():
    ranked = statistics.ranking({"a": {0: 1.0}, "b": {0: 1.0001}})
    assert [place.level for place in ranked] == [True, False]
