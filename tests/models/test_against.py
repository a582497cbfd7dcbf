"""Against transformers: another interpreter computes the same logits, or the difference is told."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from emergence.cli.main import main
from emergence.errors import BrokenExperiment, NotMeasurable
from emergence.models import against, loading
from emergence.store.store import Store

PEERS = os.environ.get("EMERGENCE_PEERS", "")
needs_peers = pytest.mark.skipif(
    not PEERS, reason="EMERGENCE_PEERS names no Python with requirements/peers.txt"
)

SAVE_AGAIN = """
import sys, torch, transformers
model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
model.save_pretrained(sys.argv[2])
"""


def test_differences_are_the_largest_over_all_positions() -> None:
    ours = [np.array([[1.0, 2.0, 5.0], [0.0, 3.0, 1.0]]), np.array([[2.0, 1.0, 0.0]])]
    theirs = [np.array([[1.0, 2.5, 5.0], [0.0, 3.0, 1.0]]), np.array([[1.0, 2.0]])]  # one pads its vocabulary
    found = against.compared(ours, theirs)
    assert (found.positions, found.largest, found.same_first) == (3, 1.0, 2)
    assert "1.0e+00 over 3 positions" in str(found)


def test_without_torch_there_is_one_clear_line(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EMERGENCE_PEERS", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(NotMeasurable, match=r"no torch here.*requirements/peers\.txt.*EMERGENCE_PEERS"):
        against.transformers(str(saved))


@pytest.mark.parametrize("python", ["/no/such/python", sys.executable])
def test_an_interpreter_that_has_no_torch_is_told(
    saved: Path, python: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMERGENCE_PEERS", python)
    with pytest.raises(NotMeasurable, match=r"cannot be started|No module named 'torch'"):
        against.transformers(str(saved))


def test_the_verb_says_what_is_missing(
    saved: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMERGENCE_PEERS", "/no/such/python")
    with pytest.raises(SystemExit) as ended:
        main(["models", "--check", str(saved), "--against", "transformers"])
    assert ended.value.code == 2
    assert "cannot be started" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["models", "--check", str(saved), "--against", "llama.cpp"])
    assert ended.value.code == 2
    assert "only transformers" in capsys.readouterr().err


@needs_peers
@pytest.mark.slow
def test_a_folder_agrees_with_torch_and_a_changed_one_does_not(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = against.transformers(str(saved))
    assert found.largest < 1e-4
    assert found.positions == found.same_first > 20
    other = Path(shutil.copytree(saved, tmp_path / "other"))
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.5}))
    monkeypatch.setattr(against, "_readable", lambda *_: other)
    with pytest.raises(
        BrokenExperiment, match=r"is not computed as transformers computes it: .*largest difference"
    ):
        against.transformers(str(saved))


@needs_peers
@pytest.mark.slow
def test_the_embedded_model_saved_again_by_transformers_is_the_same_model(tmp_path: Path) -> None:
    """transformers 5 writes `rope_theta` into `rope_parameters` alone, where mlx-lm's llama does not look."""
    store = Store(tmp_path / "store")
    model, tokenizer = loading.load(loading.EMBEDDED, store=store)
    source = loading.resolve(loading.EMBEDDED, store)
    config = json.loads((source.folder / "config.json").read_text())
    plain = against.unquantised(config, model, tmp_path / "plain")
    again = tmp_path / "again"
    subprocess.run([PEERS, "-c", SAVE_AGAIN, str(plain), str(again)], check=True, capture_output=True)
    saved = json.loads((again / "config.json").read_text())
    assert "rope_theta" not in saved
    assert saved["rope_parameters"]["rope_theta"] == 100000.0
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(source.folder / name, again / name)
    other, _ = loading.load(again)
    ids = tokenizer.encode("The capital of France is Paris, and 7 * 8 = ")
    first, second = (np.array(m(loading.mx.array([ids]))) for m in (model, other))
    np.testing.assert_allclose(second, first, atol=1e-4)
    assert against.transformers(loading.EMBEDDED, store).largest < 1e-3
