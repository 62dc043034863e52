import pytest

from eval.scores.labels import as_trained, differences, groups, labels
from tests import tiny


def _config(objective="sgflow", **changed):
    config = tiny.mixture(objective)
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in changed.items()})
    return config.to_dict()


FIRST = _config()


@pytest.mark.parametrize(
    "configs, expected",
    [
        ([FIRST, _config("psd")], ["sgflow", "psd"]),
        ([FIRST, _config(optim__learning_rate=0.004)], ["lr 0.002", "lr 0.004"]),
        (
            [FIRST, _config(optim__learning_rate=0.004), _config("mean_flow")],
            ["sgflow, lr 0.002", "sgflow, lr 0.004", "mean_flow"],
        ),
        ([FIRST, _config(seed=1, train__num_steps=8)], ["seed 0, steps 6", "seed 1, steps 8"]),
        ([FIRST, _config(train__num_steps=8, train__keep_every=4)], ["steps 6", "steps 8"]),
        # An option at its default is not said, nor that budgets buy whole parts of a run.
        (
            [
                _config(train__num_steps=n, **{f"objective__{name}": value for name, value in options.items()})
                for n, options in (
                    (6160, {}),
                    (6152, {"velocity_target": "batch"}),
                    (6152, {"velocity_target": "batch", "correction": 0.5}),
                )
            ],
            ["sgflow", "sgflow, velocity target batch", "sgflow, correction 0.5, velocity target batch"],
        ),
        # Lengths that are the same share of a run follow from its own; others do not.
        (
            [
                _config(train__num_steps=n, optim__warmup_steps=n // 8, objective__ramp_steps=n // 4, optim__b1=b1)
                for n, b1 in ((100, 0.5), (300, 0.9))
            ],
            ["b1 0.5, steps 100", "b1 0.9, steps 300"],
        ),
        (
            [FIRST, _config(train__num_steps=600, optim__warmup_steps=9)],
            ["warmup steps 150, steps 6", "warmup steps 9, steps 600"],
        ),
        (  # an option of an objective of one's own may have any value
            [
                {**_config(train__num_steps=n), "objective": {"name": "mine", "some_steps": value}}
                for n, value in ((6, "early"), (8, "late"))
            ],
            ["some steps early, steps 6", "some steps late, steps 8"],
        ),
        # What does not change what is trained names no run.
        ([FIRST, _config(train__log_every=1, eval__num_samples=7)], ["x/a", "y/a"]),
        ([FIRST, FIRST], ["x/a", "y/a"]),
        ([FIRST, None], ["x/a", "y/a"]),
        (
            [FIRST, _config(seed=1, model__width=9, model__depth=2, optim__b1=0.5)],
            ["depth 1, width 8, b1 0.9, seed 0", "depth 2, width 9, b1 0.5, seed 1"],
        ),
        ([FIRST, _config(seed=1, model__width=9, model__depth=2, optim__b1=0.5, train__num_steps=7)], ["x/a", "y/a"]),
    ],
)
def test_names_are_what_differs(configs, expected):
    folders = ["z/x/a", "z/y/a", "z/y/b"][: len(configs)]
    objectives = ["sgflow" if config is None else config["objective"]["name"] for config in configs]
    assert labels(folders, objectives, configs) == expected


def test_a_network_with_labels_learns_from_these_too():
    identities = [{"fingerprint": "a", "labels": labels} for labels in ("b", "c")]
    for classes, expected in ((0, [[0, 1]]), (10, [[0], [1]])):
        configs = [_config(seed=seed, model__num_classes=classes) for seed in (0, 1)]
        assert groups(list(map(as_trained, configs, identities))) == expected


def test_a_teacher_may_lie_elsewhere():
    elsewhere = _config(seed=1, teacher__workdir="runs/moved", teacher__network="0123abcd")
    assert len(groups([_config(teacher__workdir="runs/teacher", teacher__network="0123abcd"), elsewhere])) == 1
    assert len(groups([_config(teacher__workdir="runs/moved", teacher__network="4567abcd"), elsewhere])) == 2


def test_directories_are_the_last_names():
    assert labels(["runs/a", "runs/b"], ["sgflow", "sgflow"], [None, None]) == ["a", "b"]


def test_fields_that_differ_have_a_value_for_every_run():
    found = differences([FIRST, _config("flow_matching", optim__learning_rate=1e-4), None])
    assert found["optim.learning_rate"] == ["0.002", "0.0001", ""]
    assert found["objective.name"] == ["sgflow", "flow_matching", ""]
    assert found["objective.prob_diagonal"] == ["0.5", "", ""]
    assert not differences([FIRST, _config()])
