"""--mode=sample of runs with labels: classes, guidance, their pictures, and directories of PNG files."""

import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from sgflow_jax import build, cli, generate, labels, run_sampler, sample_files, sample_run, sampling
from sgflow_jax.display import figures
from sgflow_jax.guidance import Guidance
from sgflow_jax.interfaces import InputError
from sgflow_jax.run import access, classes
from tests import tiny
from tests.commands import ROOT

REQUEST = sample_run.Request(calls=(2, 1), num_samples=20, method=None, seed=3)
ANIMALS = ("10", "2", "cat", "cow, brown", "dog", "écureuil")


def _sample(workdir, out, **changes):
    """The lines, and the arrays of an .npz file."""
    lines = sample_run.sample(workdir, tiny.labelled(), str(out), REQUEST._replace(**changes))
    if not out.is_file():
        return lines, {}
    with np.load(out) as arrays:
        return lines, dict(arrays)


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
    lines, made = _sample(labelled_run, tmp_path / "made.npz", label="7,2")
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

    lines, every = _sample(labelled_run, tmp_path / "every.npz", num_samples=23)
    assert every["labels"].tolist() == [*range(10), *range(10), 0, 1, 2]
    assert "classes 0, 1, 2, 3, 4, 5, 6, 7, 8, 9:" in lines[0]


def test_each_class_has_its_rows_in_the_picture(labelled_run, tmp_path, monkeypatch):
    drawn = []
    grid = figures.image_grid
    monkeypatch.setattr(figures, "image_grid", lambda *a: drawn.append(a) or grid(*a))
    _, made = _sample(labelled_run, tmp_path / "made.npz", label="7,2")
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
    _, made = _sample(labelled_run, tmp_path / "made.npz", label="7", interpolate=True, num_samples=4)
    assert found[0].shape == (4, 9, 8, 8, 1) and len(made["labels"]) == 4
    ends = found[0][:2, [0, -1]].reshape(4, 8, 8, 1)
    assert np.max(np.abs(ends.astype(int) - made["steps_2"])) <= 1


@pytest.mark.slow
def test_guided_samples_differ_and_say_so(labelled_run, tmp_path):
    # After two steps of training the classes hardly differ, so the weights are large.
    plain = _sample(labelled_run, tmp_path / "plain.npz")[1]["steps_2"]
    lines, made = _sample(labelled_run, tmp_path / "a.npz", guidance=Guidance(3000.0))
    assert ", method euler, guidance 3000, seed 3, " in lines[0]
    lines, part = _sample(labelled_run, tmp_path / "b.npz", guidance=Guidance(3000.0, 0.25, 1.0))
    assert "guidance 3000 at times 0.25-1, " in lines[0]
    assert np.any(made["steps_2"] != plain) and np.any(part["steps_2"] != made["steps_2"])
    np.testing.assert_array_equal(part["steps_1"], _sample(labelled_run, tmp_path / "c.npz")[1]["steps_1"])


def _config(objective, **model):
    config = tiny.labelled(objective)
    config.model.update(model)
    return config


def test_guidance_that_a_run_cannot_have_is_rejected(labelled_run, digits_run, tmp_path):
    for config in (_config("sgflow", label_dropout=0.0), tiny.digits()):
        with pytest.raises(InputError, match="--guidance needs a network with a null class: train with labels and mo"):
            run_sampler.make(config, None, "uniform", Guidance(2.0))
        assert run_sampler.make(config, None, "uniform", Guidance()).method == "flow_map"
    with pytest.raises(InputError, match="no velocity to guide"):
        run_sampler.make(_config("consistency"), None, "uniform", Guidance(2.0))
    unlabelled = tiny.digits("flow_matching")
    for changes, match in [({"label": "7"}, "trained without labels"), ({"guidance": Guidance(2.0)}, "null class")]:
        with pytest.raises(InputError, match=match):
            sample_run.sample(digits_run, unlabelled, str(tmp_path / "made.npz"), REQUEST._replace(**changes))
    with pytest.raises(InputError, match="no class 'seven'"):
        _sample(labelled_run, tmp_path / "made.npz", label="seven")
    assert not list(tmp_path.iterdir())


def test_remarks_on_guidance():
    def remarks(config, guidance, method=None):
        return run_sampler.remarks(config, run_sampler.make(config, method, "uniform", guidance))

    guided = _config("sgflow")
    guided.objective.guidance = 2.0
    assert remarks(_config("flow_matching"), Guidance(2.0)) == []
    assert remarks(guided, Guidance()) == []
    (heuristic,) = remarks(_config("sgflow"), Guidance(2.0))
    assert "flow_map guidance is a heuristic" in heuristic
    (twice,) = remarks(guided, Guidance(1.5), "heun")
    assert "objective.guidance = 2, " in twice and "multiply to 3" in twice
    assert len(remarks(guided, Guidance(1.5))) == 2


@pytest.mark.parametrize(
    "weight, expected", [(2.0, "2"), (1.1, "1.1"), (0.0, "0"), (-0.5, "-0.5"), (1e-7, "0.0000001")]
)
def test_weights_in_words(weight, expected):
    assert run_sampler.number(weight) == expected
    assert run_sampler.told(weight, "0.2-0.8") == f"guidance {expected} at times 0.2-0.8"
    assert run_sampler.told(1.0, "") == ""
    assert run_sampler.interval(Guidance(2.0, 0.2, 0.75)) == "0.2-0.75" and run_sampler.interval(Guidance(2.0)) == ""


@pytest.mark.parametrize(
    "items", [["0.8", "0.2"], ["0.2"], ["0.2", "1.5"], ["a", "b"], ["nan", "1"], ["0", "0.5", "1"]]
)
def test_a_wrong_interval_is_rejected(items, monkeypatch):
    monkeypatch.setattr(cli.flags, "FLAGS", types.SimpleNamespace(guidance=2.0, guidance_interval=items))
    with pytest.raises(InputError, match="--guidance_interval=.*: use two times, 0 <= START < END <= 1"):
        cli.guidance()


def test_an_interval_needs_guidance(monkeypatch):
    given = types.SimpleNamespace(guidance=1.0, guidance_interval=["0.2", "0.8"])
    monkeypatch.setattr(cli.flags, "FLAGS", given)
    with pytest.raises(InputError, match="--guidance_interval=0.2,0.8 needs --guidance"):
        cli.guidance()
    given.guidance = 2.0
    assert cli.guidance() == Guidance(2.0, 0.2, 0.8)
    given.guidance_interval = None
    assert cli.guidance() == Guidance(2.0)


def test_a_network_is_called_with_labels_and_guided_from_python(labelled_run):
    net = build.restore_net(labelled_run)
    t, x = jnp.full(3, 0.5), jax.random.normal(jax.random.key(0), (3, 8, 8, 1))
    label = jnp.array([7, 2, 7])
    own, null = net(t, t, x, label), net(t, t, x, jnp.full(3, 10))
    assert own.shape == x.shape and np.any(own != null)
    guided = Guidance(4.0).of(net.replace(label=label))
    np.testing.assert_allclose(guided(t, t, x), null + 4 * (own - null), rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="pass label"):
        net(t, t, x)


def test_the_example_in_the_documents(labelled_run):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "evaluation.md").read_text(), re.DOTALL)
    assert "runs/mine" in code and "(64, 64, 3)" in code
    wanted = np.array([7, 2, 7], np.int32)
    names = dict(build=build, generate=generate, sampling=sampling, Guidance=Guidance, seed=3, label=jnp.array(wanted))
    names |= dict(objective=build.objective(access.open(labelled_run).config), labels=wanted)
    exec(code.replace("runs/mine", labelled_run).replace("(64, 64, 3)", "(8, 8, 1)"), names)
    assert names["images"].shape == (3, 8, 8, 1)
    assert names["guided"](jnp.full(3, 0.5), jnp.full(3, 0.5), jnp.zeros((3, 8, 8, 1))).shape == (3, 8, 8, 1)


def _folder(workdir, folder, config=None, **changes):
    return sample_run.sample(workdir, config or tiny.labelled(), f"{folder}/", REQUEST._replace(**changes))


def _images(folder):
    files = sorted(folder.glob("*.png"))
    return np.stack([np.asarray(Image.open(file)) for file in files])[..., None], [file.name for file in files]


def test_a_directory_of_png_files(labelled_run, tmp_path):
    _, made = _sample(labelled_run, tmp_path / "made.npz", label="7,2")
    folder = tmp_path / "png"
    lines = _folder(labelled_run, folder, label="7,2", interpolate=True, calls=(2,))
    with Image.open(folder / "interpolation.png") as picture:
        assert picture.size == (9 * 50 + 2, 4 * 50 + 2)
    (folder / "interpolation.png").unlink()
    images, names = _images(folder)
    assert names == [f"{n:06d}_{'72'[n % 2]}.png" for n in range(20)]
    np.testing.assert_array_equal(images, made["steps_2"])
    assert lines[1:] == [
        f"wrote 20 files to {folder}: 000000_7.png to 000019_2.png",
        f"wrote {folder / 'interpolation.png'}",
    ]


def test_several_numbers_of_steps_have_directories_of_their_own(labelled_run, digits_run, tmp_path):
    _, made = _sample(labelled_run, tmp_path / "made.npz")
    (tmp_path / "png").mkdir()
    (tmp_path / "png" / "notes.txt").write_text("mine")
    sample_run.sample(labelled_run, tiny.labelled(), str(tmp_path / "png"), REQUEST)  # it exists: no slash needed
    for steps in ("steps_1", "steps_2"):
        images, names = _images(tmp_path / "png" / steps)
        np.testing.assert_array_equal(images, made[steps])
        assert names == [f"{n:06d}_{n % 10}.png" for n in range(20)]
    assert sorted(f.name for f in (tmp_path / "png").iterdir()) == ["notes.txt", "steps_1", "steps_2"]

    _folder(digits_run, tmp_path / "plain", tiny.digits("flow_matching"), calls=(1,), num_samples=3)
    assert _images(tmp_path / "plain")[1] == ["000000.png", "000001.png", "000002.png"]


@pytest.mark.parametrize("taken", ["000003.png", "1234567_a cat.png", "steps_2/000000.png", "interpolation.png"])
def test_nothing_is_overwritten(taken, labelled_run, tmp_path):
    folder = tmp_path / "png"
    (folder / taken).parent.mkdir(parents=True)
    (folder / taken).write_text("mine")
    with pytest.raises(InputError, match="has samples already .*: use another --out, nothing is overwritten"):
        _folder(labelled_run, folder)
    assert [file.name for file in folder.rglob("*.png")] == [(folder / taken).name]


def test_bad_directories_are_rejected(labelled_run, line_run, tmp_path):
    with pytest.raises(InputError, match="is a directory, for images, and these are points: use a name that ends in"):
        _folder(line_run, tmp_path / "png", tiny.mixture())
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file is a file: give a directory"):
        _folder(labelled_run, tmp_path / "file")
    with pytest.raises(
        InputError, match="ends in .npz, in a directory that exists, or for PNG files a directory, DIR/"
    ):
        sample_run.sample(labelled_run, tiny.labelled(), str(tmp_path / "png"), REQUEST)
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_leaves_no_half_a_file(labelled_run, tmp_path):
    with tiny.files_of_at_most(60), pytest.raises(InputError, match="000000_0.png cannot be written .File too large"):
        _folder(labelled_run, tmp_path / "png")
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_names_of_classes_are_safe_in_file_names():
    names = ("a/b", "cow, brown", "tab\tand\0zero\n", "猫" * 100, "..", "\udcff")
    found = list(sample_files.file_names(6, np.arange(6), names))
    assert found[:3] == ["000000_a_b.png", "000001_cow, brown.png", "000002_tab_and_zero_.png"]
    assert found[3] == f"000003_{'猫' * 50}.png" and found[4] == "000004_...png" and found[5] == "000005__.png"
    assert list(sample_files.file_names(2, None, ())) == ["000000.png", "000001.png"]


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
