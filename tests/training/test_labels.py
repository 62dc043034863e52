"""Classes of --mode=sample: how they are chosen, drawn in pictures, and known to a run."""

import numpy as np
import pytest
from PIL import Image

from sgflow_jax import build, generate, labels, sampling
from sgflow_jax.display import figures
from sgflow_jax.interfaces import InputError
from sgflow_jax.run import access, classes
from tests import sampled, tiny

ANIMALS = ("10", "2", "cat", "cow, brown", "dog", "écureuil")


@pytest.mark.parametrize(
    "text, expected",
    [
        (None, (0, 1, 2, 3, 4, 5)),
        ("cat", (2,)),
        ("cow, brown", (3,)),  # a comma in a name
        ("dog,cat, dog", (4, 2)),
        ("5,écureuil,0", (5, 0)),
        ("2", (1,)),  # a name before a number
        ("3", (3,)),
    ],
)
def test_classes_are_chosen_by_name_or_number(text, expected):
    assert labels.chosen(text, ANIMALS) == expected


@pytest.mark.parametrize(
    "text, names, match",
    [
        ("cta", ANIMALS, "has no class 'cta': use 'cat'$"),
        ("6", ANIMALS, "no class '6': use one of 10, 2, cat, cow, brown, dog, écureuil, or a number from 0 to 5"),
        ("", ANIMALS, "no class ''"),
        ("cat,,dog", ANIMALS, "no class ''"),
        ("-1", ANIMALS, "no class '-1'"),
        ("zebra", tuple(f"kind {n}" for n in range(1000)), "kind 8, kind 9 and 990 more, or a number from 0 to 999"),
        ("cat", (), "--label=cat: this run was trained without labels .*: leave it out"),
    ],
)
def test_unknown_classes_are_rejected(text, names, match):
    with pytest.raises(InputError, match=match):
        labels.chosen(text, names)


def test_chosen_classes_take_turns():
    turns = labels.in_turn((3, 0, 7), 7)
    assert turns.tolist() == [3, 0, 7, 3, 0, 7, 3] and turns.dtype == np.int32
    assert labels.in_turn((), 7) is None


def test_samples_have_the_labels_asked_for(labelled_run, tmp_path, monkeypatch):
    plans, examples = [], generate.examples
    monkeypatch.setattr(generate, "examples", lambda net, plan, n: plans.append(plan) or examples(net, plan, n))
    lines, made = sampled.labelled(labelled_run, tmp_path / "made.npz", label="7,2")
    assert [plan.labels[:20].tolist() for plan in plans] == [[7, 2] * 10] * 2
    assert set(made) == {"steps_2", "steps_1", "labels", "classes"}
    assert made["labels"].tolist() == [7, 2] * 10 and made["labels"].dtype == np.int32
    assert made["classes"].tolist() == list("0123456789")
    assert lines[0] == (
        "sampled flow_matching, step 2, averaged parameters, method euler, seed 3, classes 7, 2: 20 examples in each "
        "of 2, 1 steps"
    )
    net = build.restore_net(labelled_run)
    plan = generate.Plan((8, 8, 1), sampling.Sampler(build.objective(tiny.labelled())), 2, 3, 64, made["labels"])
    np.testing.assert_array_equal(generate.examples(net, plan, 20), made["steps_2"])

    lines, every = sampled.labelled(labelled_run, tmp_path / "every.npz", num_samples=23)
    assert every["labels"].tolist() == [*range(10), *range(10), 0, 1, 2]
    assert "classes 0, 1, 2, 3, 4, 5, 6, 7, 8, 9:" in lines[0]


def test_each_class_has_its_rows_in_the_picture(labelled_run, tmp_path, monkeypatch):
    drawn = []
    grid = figures.image_grid
    monkeypatch.setattr(figures, "image_grid", lambda *a: drawn.append(a) or grid(*a))
    _, made = sampled.labelled(labelled_run, tmp_path / "made.npz", label="7,2")
    ((rows, titles),) = drawn
    assert titles == ["7, 2 steps", "7, 1 step", "2, 2 steps", "2, 1 step"]
    for row, (steps, start) in zip(rows, [("steps_2", 0), ("steps_1", 0), ("steps_2", 1), ("steps_1", 1)], strict=True):
        np.testing.assert_array_equal(row, made[steps][start::2])
    with Image.open(tmp_path / "made.png") as picture:
        assert picture.size[1] == 4 * 50 + 2 and 0 < picture.size[0] - (10 * 50 + 2) < 130


def test_many_classes_and_long_names_are_cut_in_the_picture(monkeypatch):
    seen = []
    monkeypatch.setattr(figures, "image_grid", lambda rows, titles: seen.append((rows, titles)))
    images = np.zeros((200, 8, 8, 1), np.uint8)
    names = [f"a very long name\nof class number {n}" for n in range(40)]
    figures.by_calls({1: images}, None, np.arange(200, dtype=np.int32) % 40, names)
    figures.by_calls({1: images}, None, np.zeros(200, np.int32), names)
    (rows, titles), (one, _) = seen
    assert len(rows) == 16 and {len(row) for row in rows} == {5} and len(one[0]) == 16
    assert titles[0] == "a very long name of cla…, 1 step"


def test_interpolations_of_a_class_lead_from_example_to_example(labelled_run, tmp_path, monkeypatch):
    """Of one class even if fewer examples are asked for than the picture shows."""
    found = []
    between = generate.interpolate
    monkeypatch.setattr(generate, "interpolate", lambda *a: found.append(between(*a)) or found[-1])
    _, made = sampled.labelled(labelled_run, tmp_path / "made.npz", label="7", interpolate=True, num_samples=4)
    assert found[0].shape == (4, 9, 8, 8, 1) and len(made["labels"]) == 4
    ends = found[0][:2, [0, -1]].reshape(4, 8, 8, 1)
    assert np.max(np.abs(ends.astype(int) - made["steps_2"])) <= 1


def test_a_run_knows_its_classes(labelled_run, digits_run, monkeypatch):
    found = access.open(labelled_run).classes
    assert found.names == tuple("0123456789") and sum(found.counts) == 1797 and min(found.counts) == 174
    assert access.open(digits_run).classes == ((), ())  # its network does not know them


def test_classes_of_runs_of_older_versions(monkeypatch):
    config, older = tiny.labelled(), {"name": "digits", "split": "train"}
    known = {**older, "classes": [[f"kind {n}", n + 1] for n in range(10)]}
    assert classes.of_run(config, known) == (tuple(f"kind {n}" for n in range(10)), tuple(range(1, 11)))
    assert classes.of_run(config, older) == classes.of_run(config, None) == _digits()
    config.data.data_dir = "gs://gone"  # cannot be read
    assert classes.of_run(config, older) == (tuple("0123456789"), (1,) * 10)
    config.model.num_classes = 3  # of other data than those of the name today
    assert classes.of_run(config, known) == (("0", "1", "2"), (1, 1, 1))


def _digits():
    return classes.of_identity(build.source(tiny.digits()).identity())
