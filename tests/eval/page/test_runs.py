from eval.page import runs
from tests import tiny
from tests.rows import digits_row, finished_run


def test_labels_are_the_shortest_that_differ(tmp_path):
    one, two, three = (tmp_path / name for name in ("a/run", "b/run", "b/other"))
    for folder, objective in ((one, "sgflow"), (two, "sgflow"), (three, "mean_flow")):
        finished_run(folder, [digits_row(1, 1.0, objective=objective)])
    label = lambda *folders: [run.label for run in runs.read([str(folder) for folder in folders])]  # noqa: E731
    assert label(one, three, one) == ["sgflow", "mean_flow"]
    assert label(one, three, two) == ["a/run", "b/other", "b/run"]
    assert label(one, one.parent / ".." / "a" / "run") == ["sgflow"]
    assert label(two, three) == ["sgflow", "mean_flow"]
    for folder, rate in ((one, 1e-3), (two, 2e-3)):
        config = tiny.digits("sgflow")
        config.optim.learning_rate = rate
        finished_run(folder, [digits_row(1, 1.0)], config)
    assert label(one, two) == ["lr 0.001", "lr 0.002"]


def test_the_newest_averaged_uniform_setting_is_chosen(tmp_path):
    wanted = [digits_row(1, 1.0, seed=2), digits_row(1, 1.0, seed=5), digits_row(4, 1.0, seed=2, grid="quadratic")]
    others = [
        digits_row(1, 1.0, seed=2, parameters="raw"),
        digits_row(1, 1.0, seed=2, grid="quadratic"),
        digits_row(2, 1.0, checkpoint_step=3),
        digits_row(1, 1.0, num_samples=50),
    ]
    (run,) = runs.read([finished_run(tmp_path / "run", [*others, *reversed(wanted)])])
    assert run.chosen(wanted[0].kind) == {1: wanted[:2]}


def test_without_guidance_and_with_labels_as_in_the_data(tmp_path):
    others = [digits_row(n, 1.0, guidance=2.0, labels="data") for n in (1, 2, 4)] + [digits_row(1, 1.0)]
    (run,) = runs.read([finished_run(tmp_path / "run", [*others, digits_row(1, 1.0, labels="data")])])
    (chosen,) = run.chosen(others[0].kind)[1]
    assert not chosen.identity.guided and chosen.identity.labels == "data"


def test_only_the_method_with_more_step_counts_is_chosen(tmp_path):
    euler, heun = (
        [digits_row(n, 1.0, method=m) for n in steps] for m, steps in (("euler", (2, 8, 16)), ("heun", (2, 4)))
    )
    (run,) = runs.read([finished_run(tmp_path / "run", [*heun, *euler])])
    assert run.chosen(euler[0].kind) == {row.identity.calls: [row] for row in euler}
