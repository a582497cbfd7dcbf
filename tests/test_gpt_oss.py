"""`hypotheses/gpt_oss` on a random GPT-OSS of four layers: nothing is trained, and every claim is judged."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import tiny
from mlx.utils import tree_flatten, tree_map
from mlx_lm.models import gpt_oss
from places import HYPOTHESES, python_path

from emergence.experiment import Experiment
from emergence.store import Store

CONFIG = {
    "model_type": "gpt_oss", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "num_local_experts": 4,
    "num_experts_per_tok": 2, "rms_norm_eps": 1e-5, "sliding_window": 6, "rope_theta": 150000,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "rope_scaling": {
        "rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False,
        "original_max_position_embeddings": 4096,
    },
}  # fmt: skip


def write_model(folder: Path) -> Path:
    """A random GPT-OSS with the tiny tokenizer, as an ordinary model folder."""
    tiny.write_model(folder)
    config = CONFIG | {"vocab_size": tiny.tokenizer().get_vocab_size()}
    mx.random.seed(0)
    net = gpt_oss.Model(gpt_oss.ModelArgs.from_dict(config))
    net.update(tree_map(lambda p: 0.3 * mx.random.normal(p.shape), net.parameters()))
    net.lm_head.weight = 5 * net.lm_head.weight  # so that a planted word can be told from the others
    (folder / "config.json").write_text(json.dumps(config))
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(net.parameters())))
    return folder


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    place = tmp_path_factory.mktemp("gpt_oss")
    folder = shutil.copytree(HYPOTHESES / "gpt_oss", place / "hypotheses" / "gpt_oss")
    overrides = {"model": str(write_model(place / "model")), "parameters.num_test": 30}
    return Experiment(folder, overrides, Store(place / "store"))


@pytest.mark.usefixtures("quick")
def test_the_base_model_alone_is_read_and_every_claim_judged(experiment: Experiment) -> None:
    assert experiment.runs == ()
    assert [r.arm for r in experiment.study.runs] == ["base"]
    assert experiment.study.runs[0].steps == (0,)
    judged = {(v.prediction, v.cls): v for v in experiment.verdicts}
    assert len(judged) == 4 * 3
    assert not any(v.outcome == "supported" for v in judged.values() if not v.control), "it is random"
    page = experiment.report()
    assert "GPT-OSS: operation words are read out at 54 % depth" in page.read_text()


def test_permuted_weights_are_read_by_the_same_lens_and_the_model_is_itself_again(
    experiment: Experiment,
) -> None:
    base, permuted = experiment.study.arm("base")[0], experiment.study.arm("permuted")[0]
    assert not np.allclose(base.words, permuted.words)
    assert np.array_equal(base.hidden_permuted, permuted.hidden)
    again = experiment.lens.streams(list(experiment.plan.prompt_ids[:3]))
    assert np.allclose(again, base.hidden[:, :3], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("model", "outcome"),
    [
        ((), "13 skipped"),
        pytest.param(("--model", "{model}"), "9 inconclusive", marks=pytest.mark.slow),
    ],
)
def test_pytest_skips_it_where_the_model_is_not_here(
    experiment: Experiment, tmp_path: Path, model: tuple[str, ...], outcome: str
) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["emergence.fixtures"]\n')
    shutil.copytree(experiment.folder, tmp_path / "hypotheses" / "gpt_oss")
    named = [part.format(model=experiment.config.model) for part in model]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "hypotheses", "-m", "slow", "-rs"]
    command += ["-k", "test_claim", *named, "--param", "parameters.num_test=30"]
    told = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=300,
        env={"PATH": "/usr/bin", "PYTHONPATH": python_path(), "HF_HUB_OFFLINE": "1", "HOME": str(tmp_path)},
    )  # fmt: skip
    assert outcome in told.stdout, told.stdout + told.stderr
    assert ("hf download openai/gpt-oss-20b" in told.stdout) == (not model)
