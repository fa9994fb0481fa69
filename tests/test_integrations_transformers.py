"""Models of ``transformers``, built and trained by several jobs at the same time."""

import sys
import threading
from pathlib import Path

import pytest
import torch
import warm_start

from junky_core import torch_autotrain
from junky_core.job.libraries import libraries_apart
from junky_core.job.libraries.transformers import builds_apart

pytest.importorskip("transformers", reason="needs the extra huggingface")

from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel, WhisperConfig, WhisperModel

sys.path.append(str(Path(__file__).parent / "apps"))
from running import run_plain, run_sweep

CONFIG = GPT2Config(vocab_size=64, n_positions=16, n_embd=32, n_layer=2, n_head=2)


@pytest.fixture(autouse=True)
def the_process_stays_as_it_is(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    before = PreTrainedModel.tie_weights, PreTrainedModel.initialize_weights, torch.linspace
    init = torch.nn.init.normal_
    yield
    assert (
        PreTrainedModel.tie_weights,
        PreTrainedModel.initialize_weights,
        torch.linspace,
    ) == before
    assert torch.get_default_dtype() == torch.float32
    assert torch.nn.init.normal_ is init


def test_trainer_trains_as_the_plain_script_does():
    jobs = [0, 1, 2, 3, 3, 2, 1, 0]
    alone = {
        number: run_plain("trainer_script", number, module="transformers.trainer")
        for number in sorted(set(jobs))
    }
    # transformers is imported by the jobs, all at the same time.
    assert run_sweep("trainer_script", 4, [[number] for number in jobs]) == [
        alone[number] for number in jobs
    ]


def sweep(train, count):
    """Run ``train(at, together)`` on as many slots; return what each gave."""
    together = threading.Barrier(count, timeout=60)
    result = torch_autotrain(
        lambda at: (torch.nn.Linear(1, 1), at),
        lambda _device, _loaders, _model, at, _save, _prefix: train(at, together),
        make_model_fit_params=[("at", list(range(count)))],
        devices=f"cpu*{count}",
        max_retries=0,
        progress=False,
    )
    assert not result.failed, result.failed[0].traceback
    return [value for *_, value in sorted(result.stats, key=lambda row: row[2]["at"])]


def test_models_loaded_and_built_at_the_same_time_are_correct():
    GPT2LMHeadModel(CONFIG).to(torch.bfloat16).save_pretrained("saved")

    def train(at, together):
        wrong = []
        for _ in range(20):
            together.wait()
            loaded = at % 2 == 0
            model = GPT2LMHeadModel.from_pretrained("saved") if loaded else GPT2LMHeadModel(CONFIG)
            if model.lm_head.weight is not model.transformer.wte.weight:
                wrong.append("untied")
            if any(parameter.is_meta for parameter in model.parameters()):
                wrong.append("on meta")
            if model.dtype != (torch.bfloat16 if loaded else torch.float32):
                wrong.append(model.dtype)
            if torch.nn.Linear(2, 2).weight.dtype != torch.float32:
                wrong.append("of another job's dtype")
        return wrong

    assert sweep(train, 4) == [[]] * 4


def state(model):
    return {**model.state_dict(), **dict(model.named_buffers())}


@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        WhisperConfig(
            vocab_size=64,
            d_model=32,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=32,
            decoder_ffn_dim=32,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=1,
        ),
    ],
    ids=["gpt2", "whisper"],
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_model_of_another_dtype_is_the_same_as_alone(config, dtype):
    kind = GPT2LMHeadModel if config is CONFIG else WhisperModel
    kind(config).save_pretrained("saved")

    def build():
        torch.manual_seed(1)
        made = kind._from_config(kind.config_class.from_pretrained("saved"), dtype=dtype)
        return state(made), state(kind.from_pretrained("saved", dtype=dtype))

    alone = build()
    with builds_apart(pytest.fail):
        beside = build()
    for one, other in zip(alone, beside, strict=True):
        assert one.keys() == other.keys()
        assert all(one[key].dtype == other[key].dtype for key in one)
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_wrong_dtype_gives_the_librarys_own_error():
    with builds_apart(pytest.fail):
        with pytest.raises(ValueError, match="not a floating-point dtype"):
            GPT2LMHeadModel._from_config(CONFIG, dtype=torch.int64)


def test_an_unknown_version_is_named(monkeypatch):
    from transformers import modeling_utils

    monkeypatch.delattr(modeling_utils.init, "no_tie_weights")
    said = []
    plain = PreTrainedModel.tie_weights
    with builds_apart(said.append):
        assert PreTrainedModel.tie_weights is plain
    (message,) = said
    assert "is not known" in message
    assert "one slot" in message


def test_one_slot_needs_nothing():
    plain = PreTrainedModel.tie_weights
    with libraries_apart(pytest.fail, slots=1):
        assert PreTrainedModel.tie_weights is plain


def test_a_module_that_a_job_reloads_is_patched_again():
    script = """
import importlib, sys
import transformers.modeling_utils as modeling
from junky_core.job.libraries.transformers import builds_apart
plain = modeling.PreTrainedModel.tie_weights
with builds_apart(sys.exit):
    assert modeling.PreTrainedModel.tie_weights is not plain
    importlib.reload(modeling)
    assert modeling.PreTrainedModel.tie_weights is not plain
    assert hasattr(modeling.PreTrainedModel.tie_weights, "__wrapped__")
assert not hasattr(modeling.PreTrainedModel.tie_weights, "__wrapped__")
"""
    modules = (*warm_start.MODULES, "transformers.trainer")
    warm_start.checked(["-c", script], modules=modules)
