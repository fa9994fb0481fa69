"""Unusual values on Hydra's command line and in config files give one message, and leave no files.

Hydra prints a ``CompactHydraException`` as a message, anything else as a traceback. What Hydra
itself refuses before any plugin is asked (``@x=1``, a number of 5,000 digits) is not looked at,
nor a job that cannot be composed: its ``multirun.yaml`` stays, as under Hydra's own sweeper.
"""

import pytest
from hydra.errors import CompactHydraException
from launching import multirun

from junky_core import current_job
from junky_core.errors import JunkyError

DIGITS = "9" * 5000
LONG = "n" * 300
BASE = "{lr: 0.1, width: 1, model: {a: 1}, any: null, hydra: {sweeper: {%s}}}"
NOWHERE = ("'${nope}'", "'${oc.env:JUNKY_NOT_SET}'", "'???'")


def task(_cfg):
    return 1.0


def outcome(tmp_path, overrides, sweeper="", sweep_dir=None):
    """Return the error of a sweep that must be refused without leaving files."""
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "config.yaml").write_text(BASE % sweeper)
    with pytest.raises(CompactHydraException) as caught:
        multirun(task, ["hydra/sweeper=junky", *overrides], None, tmp_path, sweep_dir=sweep_dir)
    assert [path.name for path in tmp_path.iterdir()] == ["conf"]
    text = str(caught.value)
    assert len(text) < 3000, "the message repeats the input"
    return text


def launcher_cases():
    names = ("devices", "seed", "max_retries", "threads_per_slot", "fail_fast", "job_timeout_s")
    names += (
        "sweep_timeout_s",
        "best_model_file_name",
        "resume",
        "progress",
        "report",
        "device_key",
    )
    for name in names:
        for value in NOWHERE if name == "devices" else NOWHERE[:1]:
            yield f"hydra.launcher.{name}={value}", f"hydra.launcher.{name}"
    for devices in (f"cpu*{DIGITS}", "cpu*99999999", "[cpu,'${nope}']", "{cpu:'${nope}'}", "[]", "'a\0b'",
                    "{cpu:1.5}", "[null]", LONG, "cuda:99999999999999999999"):  # fmt: skip
        yield f"hydra.launcher.devices={devices}", "hydra.launcher.devices"
    for path in ("'a\0b'", LONG, f"a/{LONG}/b", "x" * 5000, "/proc/x/y", "/sys/x", "/dev/null/x",
                 "/dev/null", "/", "..", "multirun.yaml/x", "'~nobody-here/x'"):  # fmt: skip
        yield f"hydra.launcher.best_model_file_name={path}", "best_model_file_name"
    for key in ("hydra", "hydra.job.num", "nope", "'@x'", "lr.x"):
        yield f"hydra.launcher.device_key={key}", "hydra.launcher.device_key"
    yield "hydra.launcher.direction='???'", "hydra.launcher.direction"


def sweeper_cases():
    for name in ("direction", "max_batch_size", "dry_run", "params", "fit_params"):
        for value in NOWHERE:
            yield f"hydra.sweeper.{name}={value}", f"hydra.sweeper.{name}"
    for params in ("[a]", "1", "abc", "{1:2}", "{lr:'${nope}'}", "{'@x':1}", "{hydra:1}", "{hydra:'1,2'}",
                   f"{{lr:'{DIGITS},1'}}", "{lr:'range(0,1,0)'}", "{lr:'range(1,1e9)'}",
                   "{lr:'range(0,inf)'}", "{lr:'choice('}", "{lr:'interval(0,1)'}", "{'':1}",
                   "{hydra.job.name:'a,b'}", "{'a b':1}", f"{{{LONG}:1}}",
                   "{lr:'[1,2'}", "{lr:'1,2', any:'${nope}'}"):  # fmt: skip
        yield f"hydra.sweeper.params={params}", ""
    for grid in ("[['@x',[1]]]", "[['+@x',[1]]]", "{'@x':[1,2]}", "{hydra:[1,2]}", "{hydra:1}", "[['hydra@x',[1]]]",
                 "[['',[1]]]", f"[[{LONG},[1]]]", f"[[+{LONG},[1]]]", "[['a\0b',[1]]]", "1", "[lr,[1]]",
                 "[[null,[1]]]", "[[lr,???]]", "[[lr,[]]]"):  # fmt: skip
        yield f"hydra.sweeper.fit_params={grid}", ""
    for line in ("hydra=1,2", "@x=1,2", "lr=range(1,1e8)", "+n=range(1,3,0)", "+n=range(nan,1)",
                 "+n=range(0,inf)", f"+{LONG}=1,2"):  # fmt: skip
        yield line, line.partition("=")[0][:20]


@pytest.mark.parametrize(
    ("override", "named"),
    [*launcher_cases(), *sweeper_cases()],
    ids=lambda value: ascii(value)[1:40].strip("'"),
)
def test_an_unusual_override_gives_one_message(override, named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert named in outcome(tmp_path, [override, "width=1,2"])


@pytest.mark.parametrize(
    "folder", [*NOWHERE, "'${hydra:job.num}'", "'${hydra.job.num}'", "'a\0b'", LONG, "x" * 5000, "/proc/x/y",
               "/sys/x", "/dev/null", "/dev/null/x"], ids=lambda value: ascii(value)[1:30]
)  # fmt: skip
def test_an_impossible_sweep_dir_is_an_error(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "hydra.sweep.dir" in outcome(tmp_path, ["lr=1,2"], sweep_dir=folder)


@pytest.mark.parametrize("devices", ["cpu", "cpu*2"])
@pytest.mark.parametrize(
    "folder", [*NOWHERE, "'${hydra:nope}'", "'a\0b'", LONG, "x" * 5000, "/proc/x/y", "/sys/x", "/dev/null",
               "/dev/null/x"], ids=lambda value: ascii(value)[1:30]
)  # fmt: skip
def test_an_impossible_sweep_subdir_is_an_error(folder, devices, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    overrides = [f"hydra.sweep.subdir={folder}", f"hydra.launcher.devices={devices}", "lr=1,2"]
    assert "hydra.sweep.subdir" in outcome(tmp_path, overrides)


@pytest.mark.parametrize("launcher", ["basic", "junky"])
def test_an_impossible_sweep_dir_is_an_error_under_any_launcher(launcher, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    overrides = ["hydra/sweeper=junky", "lr=1,2"]
    with pytest.raises(CompactHydraException, match=r"hydra\.sweep\.dir"):
        multirun(task, overrides, {"lr": 1}, tmp_path, launcher=launcher, sweep_dir="/proc/x/y")


@pytest.mark.parametrize(
    "grid",
    ["fit_params: {1: [1]}", "fit_params: {'@x': [1]}", "fit_params: {hydra: [1]}",
     "fit_params: {hydra: {job: {name: x}}}", "params: {'@x': 1}", "params: {hydra: 1}", "params: {1: 2}", "params: [a]", "params: '${nope}'", "params: {any: '${nope}'}",
     "fit_params: '${nope}'", "fit_params: [['${nope}', [1]]]",
     "fit_params: [%s]" % ",".join(f"[+k{num}, [1, 2]]" for num in range(70))],
    ids=lambda value: ascii(value)[1:40].strip("'"),
)  # fmt: skip
def test_an_unusual_config_gives_one_message(grid, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome(tmp_path, [], sweeper=grid)


@pytest.mark.parametrize(
    ("form", "jobs"),
    [("{lr:'1,2'}", 2), ("{lr:1}", 1), ("{lr:'1,2',width:'3,4'}", 4),  ("{lr:null}", 1),
     ("{lr:[1,2]}", 1), ("{any:{b:2}}", 1), ("{lr:'choice(1,2,3)'}", 3), ("{lr:'range(1,4)'}", 3), ("{}", 1),
     ("null", 1)],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("sign", ["", "+", "++"])
def test_params_can_be_given_on_the_command_line(form, jobs, sign, tmp_path):
    config = {"lr": 0.1, "width": 1, "any": None}
    overrides = ["hydra/sweeper=junky", f"{sign}hydra.sweeper.params={form}"]
    assert len(multirun(task, overrides, config, tmp_path)) == jobs


@pytest.mark.parametrize(
    "override",
    ["devices='${nope}'", f"devices=cpu*{DIGITS}", "devices=nope", "best_model_file_name='a\0b'",
     "seed='${nope}'"],
    ids=lambda value: ascii(value)[1:30],
)  # fmt: skip
def test_unusual_settings_in_a_single_run_give_one_message(override, tmp_path, monkeypatch):
    from hydra import compose, initialize_config_dir
    from hydra.core.hydra_config import HydraConfig
    from launching import ON_1_4, as_before

    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "config.yaml").write_text("lr: 0.1\n")
    overrides = ["hydra/launcher=junky", f"hydra.launcher.{override}"]
    version = {} if ON_1_4 else {"version_base": None}
    with as_before(), initialize_config_dir(str(tmp_path / "conf"), **version):
        HydraConfig.instance().set_config(
            compose("config", overrides=overrides, return_hydra_config=True)
        )
        with pytest.raises(CompactHydraException) as caught:
            _ = current_job().device
    assert isinstance(caught.value, JunkyError)
    assert f"hydra.launcher.{override}".partition("=")[0].rpartition(".")[2] in str(caught.value)
