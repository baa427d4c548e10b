"""What a sweep's grid, seeds and TOML file mean, and what is refused."""

import numpy as np
import pytest
import scipy.stats

from reinforce_dropout.errors import ReinforceDropoutError
from reinforce_dropout.running import grid
from reinforce_dropout.systems import preset


def names(runs):
    return [run.name for run in runs]


def test_every_combination_of_values_and_seeds_is_a_run():
    values = grid.parse_grid(["lam=0,1e-3", "n_units=500;800,800"])
    runs = grid.expand("policy-500", values, grid.parse_seeds("1-2"), {"q": "0.2"})
    assert names(runs) == [
        f"policy-500-lam={lam}-n_units={n_units}-seed{seed}"
        for lam in ("0.0", "0.001")
        for n_units in ("500", "800,800")
        for seed in (1, 2)
    ]
    wanted = preset("policy-500").replace(lam=0.001, n_units=(800, 800), q=0.2, seed=2)
    assert runs[-1].experiment() == wanted


def test_without_grid_there_is_one_run_a_seed():
    assert names(grid.expand("baseline-500", seeds=[3])) == ["baseline-500-seed3"]


def test_a_semicolon_at_the_end_marks_a_single_value_with_commas():
    assert grid.parse_grid(["n_units=800,800;"]) == {"n_units": ["800,800"]}


@pytest.mark.parametrize(
    ("text", "seeds"), [("1-5", [1, 2, 3, 4, 5]), ("7", [7]), ("1,3,7-9", [1, 3, 7, 8, 9])]
)
def test_seeds(text, seeds):
    assert grid.parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "5-1", "a", "1,,2", "-1", "1-2-3", "1-9999999", "1.5"])
def test_seeds_that_are_refused(text):
    with pytest.raises(ReinforceDropoutError, match="seeds"):
        grid.parse_seeds(text)


@pytest.mark.parametrize(
    ("texts", "what"),
    [
        (["lam"], "form FIELD=V1,V2"),
        (["=1"], "form FIELD=V1,V2"),
        (["lam="], "empty value"),
        (["lam=1,,2"], "empty value"),
        (["lam=1", "lam=2"], "lam twice"),
        (["lame=1"], "no field 'lame'"),
        (["lam=-1"], "lam must be"),
        (["lam=0.1,.1"], "lam=0.1-seed1 stands twice"),
        (["n_units=800,800"], "stands twice"),
        (["seed=1,2"], "--seeds"),
        (["name=a"], "--seeds"),
        (["q=0.1"], "both set and in the grid"),
    ],
)
def test_grids_that_are_refused(texts, what):
    with pytest.raises(ReinforceDropoutError, match=what):
        grid.expand("policy-500", grid.parse_grid(texts), settings={"q": "0.2"})


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"name": "policy-5"}, "no preset 'policy-5'"),
        ({"grid": {"lam": []}}, "lam has no values"),
        ({"seeds": []}, "seeds has no values"),
        ({"seeds": [1, 1.0]}, "seed1 stands twice"),
        ({"seeds": [-1]}, "seed must be"),
        ({"settings": {"seed": 2}}, "--seeds"),
    ],
)
def test_sweeps_that_are_refused(arguments, what):
    with pytest.raises(ReinforceDropoutError, match=what):
        grid.expand(**{"name": "policy-500", **arguments})


def test_a_file_lists_presets(tmp_path):
    path = tmp_path / "sweep.toml"
    path.write_text(
        """
        [[runs]]
        preset = "baseline-500"
        seeds = "1-2"
        [[runs]]
        preset = "policy-500"
        seeds = [4]
        set = {q = 0.2}
        grid = {n_units = [[500], [800, 800]], shuffle = [true]}
        data = "digits"
        execution = "block-sparse"
        """
    )
    runs = grid.read(path, None, {"n_epochs": 3})
    assert names(runs) == [
        "baseline-500-seed1",
        "baseline-500-seed2",
        "policy-500-n_units=500-shuffle=true-seed4",
        "policy-500-n_units=800,800-shuffle=true-seed4",
    ]
    assert runs[-1].experiment() == preset("policy-500").replace(
        n_units=(800, 800), shuffle=True, q=0.2, seed=4, n_epochs=3
    )
    own = {"data": "digits", "execution": "block-sparse"}
    assert [run.options for run in runs] == [{}, {}, own, own]
    assert names(grid.read(path, [7], {}))[:2] == [
        "baseline-500-seed7",
        "policy-500-n_units=500-shuffle=true-seed7",
    ]


def test_a_random_search_draws_logarithms_uniformly(tmp_path):
    path = tmp_path / "search.toml"
    path.write_text(
        """
        [[runs]]
        preset = "policy-500"
        seeds = [4, 5]
        set = {q = 0.2}
        space = {learning_rate = [0.001, 0.1], policy_learning_rate = [0.01, 1]}
        trials = 100
        """
    )
    runs = grid.read(path, None, {})
    assert len(runs) == 200 and runs == grid.read(path, None, {})
    experiments = [run.experiment() for run in runs]
    assert [e.seed for e in experiments] == [4, 5] * 100 and {e.q for e in experiments} == {0.2}
    first = experiments[0]
    assert runs[0].name == (
        f"policy-500-learning_rate={first.learning_rate}"
        f"-policy_learning_rate={first.policy_learning_rate}-seed4"
    )
    logs = np.log([[e.learning_rate, e.policy_learning_rate] for e in experiments[::2]])
    for values, low, width in zip(logs.T, np.log([0.001, 0.01]), np.log([100, 100]), strict=True):
        assert scipy.stats.kstest(values, scipy.stats.uniform(low, width).cdf).pvalue > 0.01
    assert abs(np.corrcoef(logs.T)[0, 1]) < 0.25
    assert all(float(f"{v:.1e}") == v for e in experiments for v in (e.learning_rate,))


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("runs = ", "is not TOML"),
        ("", r"tables \[\[runs\]\]"),
        ("runs = []", r"tables \[\[runs\]\]"),
        ("runs = 1", r"tables \[\[runs\]\]"),
        ("other = 1\n[[runs]]\npreset = 'policy-500'", "nothing else"),
        ("[[runs]]", "must have a preset"),
        ("[[runs]]\npreset = 1", "must have a preset"),
        ("[[runs]]\npreset = 'policy-500'\nsede = 1", "must have a preset"),
        ("[[runs]]\npreset = 'policy-500'\ndata = 1", "must have a preset"),
        ("[[runs]]\npreset = 'policy-500'\nseeds = ['a']", "seed must be"),
        ("[[runs]]\npreset = 'policy-500'\nseeds = [[1]]", "seed must be"),
        ("[[runs]]\npreset = 'policy-500'\ngrid = {lam = 1}", "list of values"),
        ("[[runs]]\npreset = 'policy-500'\nspace = {lam = 1}\ntrials = 2", "list of values"),
        ("[[runs]]\npreset = 'policy-500'\nspace = {lam = [1, 2]}", "needs space and trials"),
        ("[[runs]]\npreset = 'policy-500'\ntrials = 2", "needs space and trials"),
        ("[[runs]]\npreset = 'policy-500'\nspace = {lam = [1, 2]}\ntrials = 0", "1 or more"),
        (
            "[[runs]]\npreset = 'policy-500'\nspace = {lam = [1, 2]}\ntrials = 2\n"
            "grid = {q = [0.1]}",
            "no grid",
        ),
        ("[[runs]]\npreset = 'policy-500'\nspace = {q = [0.2, 0.1]}\ntrials = 2", "that rise"),
        ("[[runs]]\npreset = 'policy-500'\nspace = {q = [0, 0.1]}\ntrials = 2", "positive"),
        ("[[runs]]\npreset = 'policy-500'\nspace = {q = ['a', 'b']}\ntrials = 2", "positive"),
        ("[[runs]]\npreset = 'policy-500'\nspace = {q = [0.1]}\ntrials = 2", "two positive"),
        ("[[runs]]\npreset = 'policy-500'\nspace = {q = [0.1, 2]}\ntrials = 99", "q must be"),
        ("[[runs]]\npreset = 'policy-500'\n[[runs]]\npreset = 'policy-500'", "stands twice"),
    ],
)
def test_files_that_are_refused(tmp_path, text, what):
    path = tmp_path / "sweep.toml"
    path.write_text(text)
    with pytest.raises(ReinforceDropoutError, match=what) as caught:
        grid.read(path, None, {})
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ReinforceDropoutError, match="cannot read"):
        grid.read(tmp_path / "sweep.toml", None, {})


def test_more_units_policies_and_epochs_take_longer():
    def work(name, **settings):
        return grid.work(grid.expand(name, settings=settings)[0])

    order = [work("baseline-500"), work("policy-500"), work("policy-800-800")]
    assert order == sorted(order) and len(set(order)) == 3
    assert work("policy-500", n_epochs=3) < work("policy-500")
