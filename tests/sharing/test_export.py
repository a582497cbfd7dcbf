"""What is exported is the model that was judged: mlx-lm and peft compute its logits from the folder alone."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx_lm
import numpy as np
import pytest
import tiny
import trained
from mlx.utils import tree_flatten, tree_unflatten

from emergence.cli.main import main
from emergence.config import LoRA
from emergence.errors import NotMeasurable
from emergence.models import adapters, loading
from emergence.models.folders import header
from emergence.report import figures
from emergence.sharing import card, folder, peft
from emergence.store import Store

PEERS = os.environ.get("EMERGENCE_PEERS", "")
needs_peers = pytest.mark.skipif(
    not PEERS, reason="EMERGENCE_PEERS names no Python with requirements/peers.txt"
)
THEIRS = """
import json, sys
import numpy as np, peft, torch, transformers
base, adapter, out = sys.argv[1:]
model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
if adapter:
    model = peft.PeftModel.from_pretrained(model, adapter)
ids = json.load(sys.stdin)
with torch.no_grad():
    np.save(out, model(torch.tensor([ids])).logits[0].numpy())
"""


def theirs(base: Path, adapter: Path | str, ids: list[int], place: Path) -> np.ndarray:
    """Logits [position, vocab] of transformers and peft."""
    out = place / "logits.npy"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    ran = subprocess.run(
        [PEERS, "-W", "error::UserWarning", "-c", THEIRS, str(base), str(adapter), str(out)],
        input=json.dumps(ids), capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return np.load(out)


@pytest.fixture(scope="module")
def judged(trained_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `tiny` was trained and judged, with its store; `model` is the base."""
    place = tmp_path_factory.mktemp("judged")
    copied = trained.copied(trained_folder, place / "hypotheses" / "tiny")
    shutil.move(copied / "store", place / ".emergence")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "write", lambda *_: [])
        made = trained.Experiment(copied, store=Store(place / ".emergence"), overrides={"seeds": 1})
        made.report()
    return place


@pytest.fixture
def here(judged: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(judged)
    return judged


def export(*arguments: Any) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["export", "tiny", *map(str, arguments)])
    return int(ended.value.code or 0)


def logits(model: Any, ids: list[int]) -> np.ndarray:
    return np.array(model(mx.array([ids])).astype(mx.float32))[0]


def test_mlx_lm_computes_the_judged_model_from_the_folder(
    here: Path, trained_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert export("-o", out, "--base") == 0
    assert capsys.readouterr().out.strip() == str(out)
    assert sorted(p.name for p in out.iterdir()) == ["README.md", "base", "mlx", "peft"]
    model, tokenizer = loading.load(trained_folder / "model")
    ids = tokenizer.encode("23 + 4 = ")
    before = logits(model, ids)
    run = trained.experiment(trained_folder).runs[0]
    with adapters.adapted(model, run.checkpoints[4]):
        ours = logits(model, ids)
    other, words = mlx_lm.load(str(out / "base"), adapter_path=str(out / "mlx"))
    assert words.encode("23 + 4 = ") == ids
    np.testing.assert_allclose(logits(other, ids), ours, atol=1e-5)
    assert np.abs(ours - before).max() > 1e-3, "the adapter does something"


def test_pefts_factors_are_the_same_change_of_the_weights(
    here: Path, trained_folder: Path, tmp_path: Path
) -> None:
    assert export("-o", tmp_path / "out", "--step", 2) == 0
    said = json.loads((tmp_path / "out" / "peft" / "adapter_config.json").read_text())
    assert said["target_modules"] == [f"self_attn.{x}_proj" for x in "koqv"]
    theirs: Any = mx.load(str(tmp_path / "out" / "peft" / "adapter_model.safetensors"))
    model, _ = loading.load(trained_folder / "model")
    before = {name: np.array(p, np.float64) for name, p in adapters.parameters(model)}
    run = trained.experiment(trained_folder).runs[0]
    with adapters.adapted(model, run.checkpoints[2]):
        after = {name: np.array(p, np.float64) for name, p in adapters.parameters(model)}
    for name in before:
        path = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{path}.lora_A.weight" in theirs:
            a, b = (np.array(theirs[f"{path}.lora_{x}.weight"], np.float64) for x in "AB")
            change = said["lora_alpha"] / said["r"] * b @ a
            assert np.abs(change).max() > 0
            np.testing.assert_allclose(before[name] + change, after[name], atol=1e-6)
        else:
            assert np.array_equal(before[name], after[name])
    assert len(theirs) == 2 * 4 * 4


def test_the_card_holds_verdicts_provenance_and_the_command(here: Path, tmp_path: Path) -> None:
    assert export("-o", tmp_path / "out", "--arm", "classified") == 0
    text = (tmp_path / "out" / "README.md").read_text()
    assert text.startswith("---\nlibrary_name: peft\n")
    assert "base_model" not in text.partition("\n---\n")[0], "a folder is no model of the hub"
    assert "# tiny, classified, seed 0, step 2" in text
    assert re.search(r"\| P \| an answer emerges \| sft \| \? inconclusive ", text)
    assert "    emergence run tiny --seeds 1\n" in text
    document = json.loads(next(here.glob(".emergence/experiments/tiny/*/verdicts.json")).read_text())
    known = document["provenance"]
    for part in (known["model"]["hash"], known["runs"]["classified seed 0"], known["versions"]["mlx-lm"]):
        assert part in text
    assert str(here) not in text


def test_text_of_others_is_no_markup() -> None:
    said = card._table(("", "claim"), [("E1", "a | b\n# c <img src=x> [l](u) `x`")])
    assert said.splitlines()[2:] == ["| E1 | a \\| b \\# c \\<img src=x\\> \\[l\\](u) \\`x\\` |"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--arm", "dpo"), "--arm dpo: there is none; there are: sft, classified, shuffled"),
        (("--seed", 7), "--seed 7: there is none; there are: 0"),
        (("--step", 3), "--step 3: there is none; there are: 0, 2, 4"),
        (("--model", "nowhere"), "model 'nowhere' is neither"),
        (("--key", "abc"), "no results 'abc'"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    here: Path, tmp_path: Path, arguments: tuple[Any, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export("-o", tmp_path / "out", *arguments) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert message in told[-1]
    assert list(tmp_path.iterdir()) == []


def test_another_base_is_refused(here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tiny.write_model(tmp_path / "other", seed=5)
    assert export("-o", tmp_path / "out", "--model", other) == 3
    assert "is not the model that this run was trained on" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_there_is_left_alone(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    assert export("-o", tmp_path / "out") == 2
    assert "is there already" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


def test_what_fails_half_way_leaves_nothing_and_what_was_killed_is_swept(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = tmp_path / ".out.partial"
    killed.mkdir()
    (killed / "stray").write_text("")
    with monkeypatch.context() as patch:
        patch.setattr(folder, "card", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            main(["export", "tiny", "-o", str(tmp_path / "out")])
    assert list(tmp_path.iterdir()) == []
    killed.mkdir()
    (killed / "stray").write_text("")
    assert export("-o", tmp_path / "out") == 0
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert not (tmp_path / "out" / "stray").exists()


# Other kinds of adapters


def checkpoint(model: Any, kind: str, lora: LoRA, place: Path) -> Path:
    """One with every factor drawn, as if it had been trained."""
    with adapters.lora(model, kind, lora, seed=3):
        config = adapters.adapter_config(model, kind, lora, 2)
        drawn = {
            name: p + 0.1 * mx.random.normal(p.shape, key=mx.random.key(i))
            for i, (name, p) in enumerate(tree_flatten(model.trainable_parameters()))
        }
        model.update(tree_unflatten(list(drawn.items())))
        adapters.save_adapters(model, place, config)
    return place


KINDS = {
    "lora": ("lora", LoRA(rank=4, alpha=8.0, dropout=0.0, targets=("q_proj", "down_proj"), num_layers=-1)),
    "last-blocks": ("lora", LoRA(rank=2, alpha=3.0, dropout=0.1, targets=("v_proj",), num_layers=2)),
    "dora": ("dora", LoRA(rank=4, alpha=6.0, dropout=0.0, targets=("q_proj", "up_proj"), num_layers=-1)),
}


def test_adapters_of_some_blocks_are_named_one_by_one(tmp_path: Path) -> None:
    base = tiny.write_model(tmp_path / "model")
    model, _ = loading.load(base)
    made = checkpoint(model, *KINDS["last-blocks"], tmp_path / "mlx")
    peft.convert(made, None, set(header(base / "model.safetensors")), tmp_path / "peft")
    said = json.loads((tmp_path / "peft" / "adapter_config.json").read_text())
    assert said["target_modules"] == [f"model.layers.{i}.self_attn.v_proj" for i in (2, 3)]
    assert said["lora_alpha"] == pytest.approx(3.0)


def test_what_peft_has_no_form_for_is_told(tmp_path: Path) -> None:
    base = tiny.write_model(tmp_path / "model")
    model, _ = loading.load(base)
    names = set(header(base / "model.safetensors"))
    full = checkpoint(model, "full", KINDS["lora"][1], tmp_path / "full")
    with pytest.raises(NotMeasurable, match="no adapter"):
        peft.convert(full, None, names, tmp_path / "peft")
    made = checkpoint(model, *KINDS["lora"], tmp_path / "mlx")
    renamed = {name.replace("model.layers", "language_model.layers") for name in names}
    with pytest.raises(NotMeasurable, match="otherwise than mlx-lm"):
        peft.convert(made, None, renamed, tmp_path / "peft")
    assert not (tmp_path / "peft").exists()


@needs_peers
@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_peft_computes_the_same_logits(kind: str, tmp_path: Path) -> None:
    base = tiny.write_model(tmp_path / "model")
    model, tokenizer = loading.load(base)
    ids = tokenizer.encode("What is 23 plus 4? Answer: 27")
    plain = logits(model, ids)
    made = checkpoint(model, *KINDS[kind], tmp_path / "mlx")
    peft.convert(made, None, set(header(base / "model.safetensors")), tmp_path / "peft")
    with adapters.adapted(model, made):
        ours = logits(model, ids)
    assert np.abs(ours - plain).max() > 0.1
    np.testing.assert_allclose(theirs(base, tmp_path / "peft", ids, tmp_path), ours, atol=1e-5)


@needs_peers
@pytest.mark.slow
def test_the_exported_folder_is_all_that_peft_needs(here: Path, trained_folder: Path, tmp_path: Path) -> None:
    assert export("-o", tmp_path / "out", "--base") == 0
    model, tokenizer = loading.load(trained_folder / "model", adapter=tmp_path / "out" / "mlx")
    ids = tokenizer.encode("23 + 4 = ")
    found = theirs(tmp_path / "out" / "base", tmp_path / "out" / "peft", ids, tmp_path)
    np.testing.assert_allclose(found, logits(model, ids), atol=1e-5)


@needs_peers
@pytest.mark.slow
def test_the_embedded_model_written_out_is_the_same_model_for_transformers_and_mlx_lm(tmp_path: Path) -> None:
    """Its own file is quantised in a form that only MLX reads."""
    source = loading.resolve(loading.EMBEDDED, Store(tmp_path / "store"))
    folder._write_base(source, set(header(source.folder / "model.safetensors")), tmp_path / "base")
    model, tokenizer = loading.load(loading.EMBEDDED, store=Store(tmp_path / "store"))
    ids = tokenizer.encode("The capital of France is Paris, and 7 * 8 = ")
    ours = logits(model, ids)
    again, words = mlx_lm.load(str(tmp_path / "base"))
    assert words.encode("23 + 45 = ") == tokenizer.encode("23 + 45 = ")
    np.testing.assert_allclose(logits(again, ids), ours, atol=1e-4)
    np.testing.assert_allclose(theirs(tmp_path / "base", "", ids, tmp_path), ours, atol=1e-3)
