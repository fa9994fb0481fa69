"""The junky sweeper with Hydra's own launcher, and with the junky launcher."""

import itertools
from pathlib import Path
from textwrap import dedent

import pytest
import warm_start
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus
from hydra.errors import ConfigCompositionException, HydraException
from omegaconf import OmegaConf

from junky_core.errors import ConfigError, FitParamsError, ResumeError, SweepFailed

# What plugins register must exist before the singletons are saved for the first time.
Plugins.instance()
pytestmark = pytest.mark.usefixtures("hydra_restore_singletons")

CONFIG = """
defaults:
  - _self_
  - optimizer: adam
width: 8
depth: 2
seed: 0
text: hello
nested: {a: 1, b: {c: 2}}
layers: [1, 2]
"""


@pytest.fixture(params=["basic", "junky"])
def app(request, tmp_path):
    """A folder with a config, two optimizers and two databases; once for each launcher."""
    conf = tmp_path / "conf"
    for name, text in {
        "optimizer/adam": "name: adam\nlr: 0.1",
        "optimizer/sgd": "name: sgd\nlr: 0.2\nmomentum: 0.0",
        "db/mysql": "port: 1",
        "db/sqlite": "port: 2",
    }.items():
        path = conf / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (conf / "config.yaml").write_text(CONFIG)
    return App(tmp_path, conf, request.param)


class App:
    def __init__(self, root, conf, launcher):
        self.root = root
        self.launcher = launcher
        self.conf = conf
        self.sweep_dir = root / "sweep"

    def sweeper(self, text):
        """Put ``hydra.sweeper`` settings into the config file."""
        node = {"hydra": {"sweeper": OmegaConf.create(text)}}
        (self.conf / "config.yaml").write_text(
            CONFIG.replace("adam", "adam\n  - override hydra/sweeper: junky")
            + OmegaConf.to_yaml(OmegaConf.create(node), resolve=False)
        )

    def run(self, *overrides, task=None):
        """Run a sweep in this process; return the batches and what each job saw."""
        seen = []

        def record(cfg):
            seen.append(OmegaConf.to_container(cfg, resolve=True))
            return None if task is None else task(cfg)

        hydra = Hydra.create_main_hydra_file_or_module(
            calling_file=str(self.root / "app.py"),
            calling_module=None,
            config_path="conf",
            job_name="app",
        )
        extra = ["hydra.job.chdir=false", f"hydra.sweep.dir={self.sweep_dir}"]
        extra.append(f"hydra/launcher={self.launcher}")
        if "override hydra/sweeper" not in self.text():
            extra.append("hydra/sweeper=junky")
        try:
            self.returns = hydra.multirun(
                config_name="config",
                task_function=record,
                overrides=[*extra, *overrides],
                with_log_configuration=False,
            )
        finally:
            GlobalHydra.instance().clear()
        return seen

    def text(self):
        return (self.conf / "config.yaml").read_text()

    def overrides(self):
        """The overrides of all jobs, as Hydra recorded them."""
        return [list(job.overrides) for batch in self.returns for job in batch]

    def results(self):
        return OmegaConf.to_container(OmegaConf.load(self.sweep_dir / "optimization_results.yaml"))


def test_without_a_grid_one_job_runs(app):
    assert len(app.run()) == 1
    assert app.overrides() == [[]]
    assert (app.sweep_dir / "multirun.yaml").is_file()


def test_the_sweeps_config_replaces_a_link(app):
    precious = app.sweep_dir.with_name("precious")
    precious.write_text("precious")
    app.sweep_dir.mkdir()
    (app.sweep_dir / "multirun.yaml").symlink_to(precious)
    app.run()
    assert precious.read_text() == "precious"
    assert "fit_params" in (app.sweep_dir / "multirun.yaml").read_text()


def test_the_documented_grid_gives_its_jobs_in_order(app):
    app.sweeper("fit_params: [[+a, [50, 100]], [[+b, [.1, .5]]], [[+b, null], [+c, [X, Y]]]]")
    app.run()
    assert app.overrides() == [
        ["+a=50", "+b=0.1"],
        ["+a=50", "+b=0.5"],
        ["+a=100", "+b=0.1"],
        ["+a=100", "+b=0.5"],
        ["+a=50", "+b=null", "+c=X"],
        ["+a=50", "+b=null", "+c=Y"],
        ["+a=100", "+b=null", "+c=X"],
        ["+a=100", "+b=null", "+c=Y"],
    ]


def test_a_grid_from_the_command_line(app):
    seen = app.run("hydra.sweeper.fit_params=[[width,[64,128]],{optimizer:sgd,depth:[3,4]}]")
    assert [(s["width"], s["depth"], s["optimizer"]["name"]) for s in seen] == [
        (64, 3, "sgd"),
        (64, 4, "sgd"),
        (128, 3, "sgd"),
        (128, 4, "sgd"),
    ]


def test_a_mapping_at_the_top_is_the_grid(app):
    app.sweeper("fit_params: {width: [1, 2], optimizer.lr: [.5]}")
    seen = app.run()
    assert [(s["width"], s["optimizer"]["lr"]) for s in seen] == [(1, 0.5), (2, 0.5)]


def test_the_command_line_varies_slowest(app):
    app.sweeper("fit_params: [[width, [1, 2]]]")
    app.run("seed=1,2", "depth=range(3,5)", "text=fixed")
    assert app.overrides() == [
        [f"seed={seed}", f"depth={depth}", "text=fixed", f"width={width}"]
        for seed, depth, width in itertools.product([1, 2], [3, 4], [1, 2])
    ]


def test_params_are_ordinary_sweeps_and_the_command_line_wins(app):
    app.sweeper("{params: {seed: '1,2', depth: '3,4', width: 5, layers: [7]}}")
    app.run("depth=9")
    assert app.overrides() == [
        ["seed=1", "depth=9", "width=5", "layers=[7]"],
        ["seed=2", "depth=9", "width=5", "layers=[7]"],
    ]


def test_choice_glob_and_sort_work_as_in_hydra(app):
    app.run("optimizer=glob(*)", "width=sort(3,1,2)", "depth=choice(1)")
    assert app.overrides() == [
        [f"optimizer={o}", f"width={w}", "depth=1"] for o in ("adam", "sgd") for w in (1, 2, 3)
    ]


def test_a_swept_key_replaces_the_grids(app):
    app.sweeper("fit_params: [[width, [1, 2]], [depth, [3, 4]]]")
    app.run("width=7,8")
    assert app.overrides() == [
        [f"width={w}", f"depth={d}"] for w, d in itertools.product((7, 8), (3, 4))
    ]


GRID = (
    "fit_params: [[width, [1, 2]], {optimizer: adam, depth: [3]}, {optimizer: sgd, depth: [4, 5]}]"
)


def test_a_fixed_key_keeps_the_alternatives_that_have_its_value(app):
    app.sweeper(GRID)
    app.run("optimizer=sgd")
    assert app.overrides() == [
        ["optimizer=sgd", f"width={w}", f"depth={d}"] for w, d in itertools.product((1, 2), (4, 5))
    ]


def test_a_fixed_key_is_not_undone_by_a_mapping_around_it(app):
    app.sweeper("fit_params: [[nested, [{a: 5}, {a: 6, b: {c: 7}}]]]")
    assert [s["nested"] for s in app.run("nested.b.c=9")] == [
        {"a": 5, "b": {"c": 9}},
        {"a": 6, "b": {"c": 9}},
    ]


def test_a_fixed_number_matches_by_value(app):
    app.sweeper("fit_params: [[optimizer.lr, [1.0, 2.0]], [width, [1, 2]]]")
    app.run("optimizer.lr=1")
    assert app.overrides() == [["optimizer.lr=1", "width=1"], ["optimizer.lr=1", "width=2"]]


def test_a_fixed_value_of_no_alternative_replaces_the_key_with_a_warning(app, caplog):
    app.sweeper("fit_params: [[width, [1, 2]], [depth, [3, 4]]]")
    app.run("width=9")
    assert app.overrides() == [["width=9", "depth=3"], ["width=9", "depth=4"]]
    assert any("width" in r.getMessage() for r in caplog.records if r.levelname == "WARNING")


@pytest.mark.parametrize("override", ["width=interval(1,2)", "width=tag(x,interval(1,2))"])
def test_an_interval_is_refused_before_anything_is_written(app, override):
    with pytest.raises(ConfigError, match=r"interval.*continuous"):
        app.run(override)
    assert not app.sweep_dir.exists()


def test_keys_of_hydra_give_hydras_own_error(app):
    words = "Sweeping over Hydra's configuration is not supported"
    app.sweeper("fit_params: [[hydra.job.name, [a, b]]]")
    with pytest.raises(HydraException, match=words):
        app.run()
    app.sweeper("{params: {hydra.job.name: 'a,b'}}")
    with pytest.raises(HydraException, match=words):
        app.run()


@pytest.mark.parametrize(
    ("fit_params", "named"),
    [
        ("[[width, []]]", "width"),
        ("[[width, [1]], [[+width, [2]]]]", "width"),
        ("[[width, [1]], [[++width, [2]]]]", "width"),
        ("[[3, [1]]]", "3"),
        ("[[width, 1, 2]]", "width"),
        ("17", "17"),
        ("[['a b', [1]]]", "a b"),
        ("[[width, ['???']]]", "width"),
        ("[[nested, [{'1': 2}]]]", "nested"),
    ],
)
def test_a_bad_grid_is_named_before_anything_is_written(app, fit_params, named):
    app.sweeper(f"fit_params: {fit_params}")
    with pytest.raises(FitParamsError, match=named):
        app.run()
    assert not app.sweep_dir.exists()


def test_a_refusal_by_the_launcher_leaves_no_files(app):
    if app.launcher != "junky":
        pytest.skip("a refusal of the junky launcher")
    with pytest.raises(ConfigError, match="no such key"):
        app.run("hydra.launcher.device_key=nowhere.device", "width=1,2")
    assert not app.sweep_dir.exists()


def test_a_folder_of_another_sweep_keeps_its_config(app):
    if app.launcher != "junky":
        pytest.skip("only the junky launcher resumes")
    app.run("width=1,2", task=lambda cfg: cfg.width)
    before = (app.sweep_dir / "multirun.yaml").read_bytes()
    with pytest.raises(ResumeError, match="another sweep"):
        app.run("width=3,4", "hydra.launcher.resume=true")
    assert (app.sweep_dir / "multirun.yaml").read_bytes() == before


def test_a_key_that_does_not_exist_gives_hydras_message_with_the_jobs_overrides(app):
    app.sweeper("fit_params: [[width, [1, 2]], {nope: [5]}]")
    with pytest.raises(ConfigCompositionException) as caught:
        app.run()
    assert "Could not override 'nope'" in str(caught.value)
    assert "['width=1', 'nope=5']" in str(caught.value)
    assert [path.name for path in app.sweep_dir.iterdir()] == ["multirun.yaml"]


def test_a_wrong_option_late_in_the_grid_is_found_before_any_job(app):
    app.sweeper("fit_params: [[width, [1, 2, 3]], [optimizer, [adam, lion]]]")
    ran = []
    with pytest.raises(HydraException, match="lion"):
        app.run(task=ran.append)
    assert not ran


def test_signs_groups_packages_and_deletions(app):
    app.sweeper(
        "fit_params: [['+new.key', [1]], ['++width', [2]], ['+db@other', [mysql]],"
        " [optimizer, [sgd]], ['~optimizer.momentum', null], ['~text', hello], ['+db', [sqlite, mysql]]]"
    )
    seen = app.run()
    for job, port in zip(seen, (2, 1), strict=True):
        assert job["new"] == {"key": 1}
        assert job["width"] == 2
        assert job["other"] == {"port": 1}
        assert job["optimizer"] == {"name": "sgd", "lr": 0.2}
        assert "text" not in job
        assert job["db"] == {"port": port}


def test_targets_are_data(app):
    app.sweeper("fit_params: [['+model', [{_target_: nowhere.Nothing, size: 3}]]]")
    (job,) = app.run()
    assert job["model"] == {"_target_": "nowhere.Nothing", "size": 3}


def test_interpolations_resolve_in_the_job(app):
    app.sweeper(
        r"fit_params: [[width, [1, 2]], [text, ['${width}', '${hydra:job.num}', '\${width}']]]"
    )
    assert [(s["width"], s["text"]) for s in app.run()] == [
        (1, 1), (1, 1), (1, "${width}"), (2, 2), (2, 4), (2, "${width}"),
    ]  # fmt: skip


def test_an_interpolation_may_name_what_only_the_job_has(app):
    app.sweeper(
        "fit_params: [{optimizer: sgd, text: ['${optimizer.momentum}']}, {'+only': [3], text: ['${only}']}]"
    )
    assert [s["text"] for s in app.run()] == [0.0, 3]


def test_the_whole_grid_may_be_an_interpolation(app):
    app.sweeper("fit_params: ${oc.select:layers}")
    (app.conf / "config.yaml").write_text(
        app.text().replace("layers: [1, 2]", "layers: [[width, [5, 6]], [text, ['${width}']]]")
    )
    assert [(s["width"], s["text"]) for s in app.run()] == [(5, 5), (6, 6)]


def test_batches(app):
    app.sweeper("fit_params: [[width, [1, 2, 3, 4, 5]]]")
    app.run("hydra.sweeper.max_batch_size=2")
    assert [len(batch) for batch in app.returns] == [2, 2, 1]
    assert [job.hydra_cfg.hydra.job.num for batch in app.returns for job in batch] == [
        0,
        1,
        2,
        3,
        4,
    ]


@pytest.mark.parametrize("overrides", [["nowhere=1,2"], ["width=1,2", "nowhere=1,2"]])
def test_multirun_yaml_is_there_when_no_job_can_be_composed(app, overrides):
    with pytest.raises(ConfigCompositionException):
        app.run(*overrides)
    saved = OmegaConf.load(app.sweep_dir / "multirun.yaml")
    assert saved.hydra.overrides.task == overrides
    assert [path.name for path in app.sweep_dir.iterdir()] == ["multirun.yaml"]


def test_a_key_deleted_in_params_is_deleted_with_any_value(app):
    app.sweeper("{params: {~nested.a: null, width: '1,2'}}")
    app.run(task=lambda cfg: cfg.width)
    assert app.overrides() == [["~nested.a", "width=1"], ["~nested.a", "width=2"]]


def test_the_preview_shows_a_deleted_key_without_a_value(app, capsys):
    app.sweeper("{fit_params: [[[~nested.a, [null]]], [[width, [1]]]], dry_run: true}")
    app.run()
    out = capsys.readouterr().out
    assert "None" not in out
    assert [line.split() for line in out.splitlines()[-3:]] == [
        ["job", "~nested.a", "width"],
        ["0", "deleted"],
        ["1", "1"],
    ]


@pytest.mark.parametrize("size", ["0", "-3", "true"])
def test_a_bad_batch_size_is_refused(app, size):
    with pytest.raises((ConfigError, HydraException)):
        app.run(f"hydra.sweeper.max_batch_size={size}")


def test_results_name_the_best_job(app):
    app.sweeper("fit_params: [[width, [3, 9, 5]], ['+x.y', ['${width}']]]")
    app.run("seed=1,2", task=lambda cfg: cfg.width / 10 + cfg.seed)
    assert app.results() == {
        "name": "junky",
        "direction": "maximize",
        "best_evaluated_params": {"seed": 2, "width": 9, "+x.y": "${width}"},
        "best_evaluated_result": 2.9,
        "best_overrides": ["seed=2", "width=9", "+x.y='${width}'"],
        "best_job_num": 4,
        "model_path": None,
        "failed_jobs": [],
    }


def test_the_best_overrides_of_a_resumed_sweep_have_the_fixed_ones(app):
    if app.launcher != "junky":
        pytest.skip("only the junky launcher resumes")
    app.run(
        "hydra.sweeper.fit_params=[[width,[3,4]]]", "depth=7", "+tag=t", task=lambda cfg: cfg.width
    )
    app.run(
        "hydra.sweeper.fit_params=[[width,[9,4,3]]]",
        "depth=7",
        "+tag=t",
        "hydra.launcher.resume=true",
        task=lambda cfg: cfg.width,
    )
    assert app.results()["best_job_num"] == 2
    assert app.results()["best_overrides"] == ["depth=7", "+tag=t", "width=9"]


@pytest.mark.parametrize("direction", ["minimize", "MINIMIZE"])
def test_the_direction_can_be_minimize(app, direction):
    app.sweeper("fit_params: [[width, [3, 1, 1]]]")
    app.run(f"hydra.sweeper.direction={direction}", task=lambda cfg: cfg.width)
    assert app.results()["best_job_num"] == 1


def test_an_unknown_direction_is_refused(app):
    with pytest.raises(ConfigError, match=r"maximise.*maximize or minimize"):
        app.run("hydra.sweeper.direction=maximise")


def test_nan_and_no_number_are_never_best(app):
    scores = iter([float("nan"), float("inf"), None, "9", True, -3.5])
    app.run("width=1,2,3,4,5,6", task=lambda cfg: next(scores))
    assert app.results()["best_job_num"] == 5
    assert app.results()["best_evaluated_result"] == -3.5


def test_no_score_at_all_leaves_the_best_empty(app):
    app.run("width=1,2")
    assert app.results()["best_job_num"] is None
    assert app.results()["best_evaluated_params"] is None


def test_a_failed_job_runs_again_after_the_others_in_its_own_folder(app):
    order = []

    def task(cfg):
        num = HydraConfig.get().job.num
        order.append((num, Path(HydraConfig.get().runtime.output_dir).name))
        if order.count((num, str(num))) == 1 and num == 1:
            raise ValueError("once")
        return num

    app.run("width=1,2,3", task=task)
    assert order == [(0, "0"), (1, "1"), (2, "2"), (1, "1")]
    assert [job.return_value for job in app.returns[0]] == [0, 1, 2]
    assert app.results()["best_job_num"] == 2


def test_a_job_that_fails_again_stops_no_other_and_is_named_at_the_end(app):
    calls = []

    def task(cfg):
        calls.append(cfg.width)
        if cfg.width == 2:
            raise ValueError("no good")
        return cfg.width

    with pytest.raises(
        SweepFailed, match=r"1 of 3 jobs .*\n  #1 \(width=2\): ValueError: no good"
    ) as caught:
        app.run("width=1,2,3", task=task)
    assert calls == [1, 2, 3, 2]
    assert [failed.num for failed in caught.value.failed] == [1]
    assert caught.value.failed[0].attempts == 2
    assert app.results()["best_job_num"] == 2
    assert app.results()["failed_jobs"] == [1]


@pytest.mark.parametrize("app", ["basic"], indirect=True)  # ours survives sys.exit() in a job
def test_the_results_so_far_are_kept_when_the_launcher_fails(app):
    def task(cfg):
        if cfg.width == 3:
            raise SystemExit(5)
        return cfg.width

    with pytest.raises(SystemExit):
        app.run("width=1,2,3", "hydra.sweeper.max_batch_size=2", task=task)
    assert app.results()["best_job_num"] == 1


def test_a_dry_run_prints_the_jobs_and_runs_none(app, capsys):
    app.sweeper("fit_params: [[width, [1, 2]], [depth, [3, 4]]]")
    assert app.run("seed=1,2", "hydra.sweeper.dry_run=true") == []
    out = capsys.readouterr().out
    assert out.startswith("8 jobs")
    assert out.splitlines()[-1].split() == ["7", "2", "2", "4"]
    assert not app.sweep_dir.exists()


def test_a_dry_run_of_many_jobs_is_cut(app, capsys):
    app.run("width=range(0,3000)", "hydra.sweeper.dry_run=true")
    out = capsys.readouterr().out
    assert out.startswith("3000 jobs")
    assert len(out.splitlines()) < 60


def test_multirun_yaml_holds_the_grid_as_written(app):
    app.sweeper("fit_params: [[text, ['${width}']]]")
    app.run()
    saved = OmegaConf.load(app.sweep_dir / "multirun.yaml")
    assert OmegaConf.to_container(saved.hydra.sweeper)["fit_params"] == [["text", ["${width}"]]]


def test_a_failing_sweep_ends_a_script_with_a_status_and_one_message(tmp_path):
    (tmp_path / "app.py").write_text(
        dedent(
            """
            import hydra

            @hydra.main(config_path=None, version_base=None)
            def main(cfg):
                if cfg.x == 2:
                    raise ValueError("no good")
                return cfg.x

            main()
            """
        )
    )
    done = warm_start.run(["app.py", "-m", "hydra/sweeper=junky", "+x=1,2"], cwd=tmp_path)
    assert done.returncode == 1
    assert "1 of 2 jobs failed for good" in done.stderr
    assert "#1 (+x=2): ValueError: no good" in done.stderr
    assert (tmp_path / "multirun").is_dir()


def test_jobs_keep_their_status(app):
    app.run("width=1,2", task=lambda cfg: cfg.width)
    assert [job.status for job in app.returns[0]] == [JobStatus.COMPLETED] * 2
