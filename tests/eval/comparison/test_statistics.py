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
    values = {"a": {0: 1.0, 1: 2.0}, "b": {0: 3.0, 1: 6.0}, "c": {0: 10.0, 1: 20.0}}
    assert statistics.pooled(values) == (pytest.approx(0, abs=1e-12), 2)


def test_the_pooled_spread_is_that_of_a_paired_difference():
    """For two objectives it gives the paired standard error, of logarithms."""
    values = {"a": {0: 1.0, 1: 2.0, 2: 2.5}, "b": {0: 3.0, 1: 4.0, 2: 11.0}}
    spread = statistics.pooled(values)
    logs = {name: {seed: math.log(value) for seed, value in each.items()} for name, each in values.items()}
    error = statistics.paired(logs["a"], logs["b"]).standard_error
    assert spread.margin(3, 3) == pytest.approx(stats.t.ppf(0.95, 2) * error) and spread.freedom == 2


def test_an_objective_that_lacks_a_seed_is_left_out_of_the_spread():
    values = {"a": {0: 1.0, 1: 2.0}, "b": {0: 3.0, 1: 4.0}, "c": {0: 10.0}}
    assert statistics.pooled(values) == statistics.pooled({name: values[name] for name in "ab"})
    assert statistics.pooled({"a": values["a"], "c": values["c"]}) is None
    spread = statistics.Spread(0.1, 5)
    assert spread.margin(1, 2) == pytest.approx(stats.t.ppf(0.95, 5) * 0.1 * math.sqrt(1.5))


def test_level_errs_as_often_as_it_says():
    """Of equally good objectives, a given one is called worse than a given other by chance in 5 % of the trials."""
    rng, wrong, trials = np.random.default_rng(0), 0, 2000
    for _ in range(trials):
        values = {name: dict(enumerate(np.exp(rng.normal(0, 0.1, 2)))) for name in "abcdefg"}
        difference = np.mean(np.log(list(values["a"].values()))) - np.mean(np.log(list(values["b"].values())))
        wrong += difference > statistics.pooled(values).margin(2, 2)
    assert 0.035 < wrong / trials < 0.065


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


def test_fewer_seeds_have_a_wider_margin():
    values = {"best": {0: 1.0, 1: 1.1}, "far": {0: 5.0, 1: 6.0}}
    margin = statistics.pooled(values).margin(2, 2)
    behind = math.sqrt(1.1) * math.exp(1.1 * margin)  # more than two seeds allow, less than one allows
    one = {place.name: place.level for place in statistics.ranking({**values, "other": {0: behind}})}
    assert one == {"best": True, "other": True, "far": False}
    assert statistics.pooled(values).margin(1, 2) > 1.1 * margin > margin
