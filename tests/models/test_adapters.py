"""Adapters: proven applied, and gone afterwards."""

from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import tiny
from mlx.utils import tree_flatten
from small_adapters import QKVO, Settings, checkpoint, randomise

from emergence.errors import BrokenExperiment, UsageError
from emergence.models import adapters
from emergence.models.adapters import adapted, adapter_config, lora, save_adapters

TOKENS = mx.array([[1, 2, 3, 4, 5], [9, 8, 7, 6, 5]])
KINDS = ["lora", "dora", "full"]
LAYERED_ATOL = 2e-5  # float32 logits of order 1, another order of the same sums


def parameters(model: nn.Module) -> dict[str, mx.array]:
    return dict(tree_flatten(model.parameters()))


def same_arrays(before: dict[str, mx.array], after: dict[str, mx.array]) -> bool:
    return before.keys() == after.keys() and all(mx.array_equal(before[k], after[k]).item() for k in before)


def rewrite(folder: Path, change: dict[str, mx.array | None]) -> None:
    """Replace tensors of a checkpoint; None drops one."""
    tensors = {**mx.load(str(folder / adapters.WEIGHTS)), **change}
    kept = {k: v for k, v in tensors.items() if v is not None}
    mx.eval(kept)
    mx.save_safetensors(str(folder / adapters.WEIGHTS), kept)


@pytest.mark.parametrize("kind", KINDS)
def test_step_zero_is_bitwise_the_base_model(kind: str, tmp_path: Path) -> None:
    model = tiny.model()
    base = model(TOKENS)
    with lora(model, kind, Settings(), seed=3):
        assert mx.array_equal(model(TOKENS), base)
    with adapted(model, checkpoint(model, tmp_path, kind, step=0)):
        assert mx.array_equal(model(TOKENS), base)


@pytest.mark.parametrize("kind", KINDS)
def test_a_later_step_differs_and_equals_the_trained_layers(kind: str, tmp_path: Path) -> None:
    model = tiny.model()
    base = model(TOKENS)
    with lora(model, kind, Settings(), seed=0):
        randomise(model)
        layered = model(TOKENS)
        mx.eval(layered)
        save_adapters(model, tmp_path, adapter_config(model, kind, Settings(), 10))
    with adapted(model, tmp_path):
        assert float(mx.abs(model(TOKENS) - base).max()) > 0.05
        np.testing.assert_allclose(model(TOKENS), layered, atol=LAYERED_ATOL, rtol=0)


def test_a_folded_layer_adds_scale_times_the_product_in_float64(tmp_path: Path) -> None:
    model = tiny.model()
    weight = np.array(model.layers[2].self_attn.k_proj.weight, dtype=np.float64)
    folder = checkpoint(model, tmp_path, "lora", settings=Settings(scale=0.75))
    tensors = mx.load(str(folder / adapters.WEIGHTS))
    a, b = (np.array(tensors[f"model.layers.2.self_attn.k_proj.lora_{x}"], dtype=np.float64) for x in "ab")
    with adapted(model, folder):
        found = np.array(model.layers[2].self_attn.k_proj.weight)
    np.testing.assert_allclose(found, weight + 0.75 * (a @ b).T, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fails", [False, True], ids=["ends well", "raises"])
def test_afterwards_the_model_is_exactly_the_one_before(kind: str, fails: bool, tmp_path: Path) -> None:
    model = tiny.model()
    model.layers[1].freeze()
    modules, before, logits = dict(model.named_modules()), parameters(model), model(TOKENS)
    frozen, mode = set(dict(tree_flatten(model.trainable_parameters()))), model.training
    folder = checkpoint(model, tmp_path, kind)
    for context in (lora(model, kind, Settings()), adapted(model, folder)):
        try:
            with context:
                model.train()
                randomise(model)
                if fails:
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            pass
        assert {k: id(m) for k, m in model.named_modules()} == {k: id(m) for k, m in modules.items()}
        assert same_arrays(before, parameters(model))
        assert set(dict(tree_flatten(model.trainable_parameters()))) == frozen
        assert model.training == mode
        assert not hasattr(model, "base_hash")
        assert mx.array_equal(model(TOKENS), logits)


def test_the_base_arrays_are_never_written_to(tmp_path: Path) -> None:
    model = tiny.model()
    folder = checkpoint(model, tmp_path, "full")
    held = {k: (v, np.array(v)) for k, v in parameters(model).items()}
    with adapted(model, folder):
        mx.eval(model(TOKENS))
    assert all(np.array_equal(np.array(array), copy) for array, copy in held.values())


@pytest.mark.parametrize("kind", KINDS)
def test_the_lens_does_not_move(kind: str, tmp_path: Path) -> None:
    model = tiny.model(tied=False)
    held = {k: (v, np.array(v)) for k, v in parameters(model).items() if ".layers." not in k}
    assert set(held) == {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"}
    with adapted(model, checkpoint(model, tmp_path, kind)):
        now = parameters(model)
        assert all(
            now[k] is array and np.array_equal(np.array(array), copy) for k, (array, copy) in held.items()
        )


@pytest.mark.parametrize("name", ["model.norm.weight", "lm_head.weight"])
def test_a_checkpoint_that_moves_the_lens_is_caught_by_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if it slips past the check that every tensor has its place in a block."""
    model = tiny.model(tied=False)
    folder = checkpoint(model, tmp_path, "full")
    tensors = dict(mx.load(str(folder / adapters.WEIGHTS)))
    tensors[name] = parameters(model)[name] + 0.01
    mx.save_safetensors(str(folder / adapters.WEIGHTS), tensors)
    with (
        pytest.raises(BrokenExperiment, match=f"has {name}, which nothing here takes"),
        adapted(model, folder),
    ):
        pass
    monkeypatch.setattr(adapters, "check_complete", lambda *_: None)
    monkeypatch.setattr(adapters, "_check_step", lambda *_: None)
    with pytest.raises(BrokenExperiment, match=f"changes {name}, .*moves the lens"), adapted(model, folder):
        pass


def test_first_factors_depend_on_the_seed_alone() -> None:
    def factors(seed: int, history: int) -> dict[str, mx.array]:
        model = tiny.model()
        mx.eval(mx.random.uniform(shape=(history,)))
        with lora(model, "lora", Settings(), seed=seed):
            return {k: v for k, v in parameters(model).items() if k.endswith("lora_a")}

    assert same_arrays(factors(5, 1), factors(5, 2))
    assert not same_arrays(factors(5, 1), factors(6, 1))
    spread = np.concatenate([np.array(v).ravel() for v in factors(5, 1).values()])
    assert 0.9 < np.abs(spread).max() * 32**0.5 <= 1.0  # uniform within ±1/sqrt(hidden)


@pytest.mark.parametrize("num_layers", [-1, 1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_only_the_last_blocks_train(kind: str, num_layers: int) -> None:
    model = tiny.model()
    with lora(model, kind, Settings(num_layers=num_layers)):
        names = dict(tree_flatten(model.trainable_parameters()))
    blocks = {int(name.split(".")[2]) for name in names}
    assert blocks == set(range(4)[-num_layers if num_layers > 0 else 0 :])
    assert all(name.startswith("model.layers.") for name in names)


def test_targets_may_be_given_by_their_path_in_the_block() -> None:
    model = tiny.model()
    with lora(model, "lora", Settings(targets=("mlp.up_proj", "q_proj"))):
        names = {name.split(".", 3)[3] for name, _ in tree_flatten(model.trainable_parameters())}
    assert names == {f"{m}.lora_{x}" for m in ("mlp.up_proj", "self_attn.q_proj") for x in "ab"}


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (("q_proj", "lm_head"), "lm_head is outside the blocks"),
        (("embed_tokens",), "embed_tokens is outside the blocks"),
        (("query",), "no block has a linear layer query; choose from down_proj, gate_proj, k_proj"),
        (("proj",), "no block has a linear layer proj"),
        (("input_layernorm",), "no block has a linear layer input_layernorm"),
        ((), "empty"),
    ],
)
def test_targets_that_would_move_the_lens_or_name_nothing_are_refused(
    targets: tuple[str, ...], message: str
) -> None:
    model = tiny.model(tied=False)
    before = parameters(model)
    with pytest.raises(UsageError, match=message), lora(model, "lora", Settings(targets=targets)):
        pass
    assert same_arrays(before, parameters(model))


def test_an_unknown_way_to_fine_tune_is_refused() -> None:
    with (
        pytest.raises(UsageError, match="'qlora' is none of lora, dora, full"),
        lora(tiny.model(), "qlora", Settings()),
    ):
        pass


def test_full_fine_tuning_of_quantised_weights_is_refused() -> None:
    model = tiny.model()
    nn.quantize(model, group_size=32, bits=4)
    with pytest.raises(UsageError, match="cannot train quantised"), lora(model, "full", Settings()):
        pass


def test_what_mlx_lm_cannot_adapt_is_one_clear_line() -> None:
    import architectures

    model = architectures.build("mixtral")
    with (
        pytest.raises(UsageError, match="cannot be trained with dora: SwitchLinear doesn't support DoRA"),
        lora(model, "dora", Settings(targets=("gate_proj",))),
    ):
        pass
    assert not any(hasattr(m, "lora_a") for m in model.modules())


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        ("qwen3", QKVO),
        ("gemma3_text", (*QKVO, "up_proj")),
        ("gpt_oss", (*QKVO, "down_proj")),  # experts too
        ("gpt2", ("c_attn", "c_proj")),
        ("mamba2", ("in_proj", "out_proj")),
    ],
)
def test_other_families_take_adapters_and_give_them_back(
    name: str, targets: tuple[str, ...], tmp_path: Path
) -> None:
    import architectures

    model, settings = architectures.build(name), Settings(targets=targets)
    base, before = model(TOKENS), parameters(model)
    with lora(model, "lora", settings, seed=0):
        assert mx.array_equal(model(TOKENS), base)
        randomise(model)
        layered = model(TOKENS)
        save_adapters(model, tmp_path, adapter_config(model, "lora", settings, 1))
    with adapted(model, tmp_path):
        np.testing.assert_allclose(model(TOKENS), layered, atol=1e-3 * float(mx.abs(layered).max()), rtol=0)
    assert not mx.allclose(layered, base, atol=1e-2)
    assert same_arrays(before, parameters(model))
    assert mx.array_equal(model(TOKENS), base)


def test_an_adapter_on_quantised_weights_is_applied_in_layers_without_rounding(tmp_path: Path) -> None:
    model = tiny.model()
    nn.quantize(model, group_size=32, bits=4)
    folder = checkpoint(model, tmp_path, "lora")
    with lora(model, "lora", Settings(), seed=0):
        randomise(model)
        layered = model(TOKENS)
        mx.eval(layered)
    with adapted(model, folder):
        assert mx.array_equal(model(TOKENS), layered)
        assert isinstance(model.layers[0].self_attn.q_proj.linear, nn.QuantizedLinear)


def test_an_adapter_on_bfloat16_weights_is_not_lost_in_their_rounding(tmp_path: Path) -> None:
    model, fine = tiny.model(), Settings(scale=1e-3)
    model.set_dtype(mx.bfloat16)
    with lora(model, "lora", fine, seed=0):
        randomise(model)
        layered = model(TOKENS)
        mx.eval(layered)
        save_adapters(model, tmp_path, adapter_config(model, "lora", fine, 1))
    with adapted(model, tmp_path):
        assert mx.array_equal(model(TOKENS), layered)
        assert hasattr(model.layers[0].self_attn.q_proj, "lora_a")


NAME = "model.layers.1.self_attn.v_proj.lora_b"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({NAME: None}, rf"lacks {NAME}"),
        ({"model.layers.1.mlp.up_proj.lora_a": mx.ones((32, 4))}, "which nothing here takes"),
        ({"lm_head.weight": mx.ones((3, 3))}, "has lm_head.weight, which nothing here takes"),
        ({"model.layers.1.self_attn.q_proj.linear.weight": mx.ones((32, 32))}, "which nothing here takes"),
        ({NAME: mx.ones((4, 5))}, rf"has {NAME} of shape \(4, 5\), not \(4, 16\)"),
        ({NAME: mx.full((4, 16), float("nan"))}, "hold NaN or infinity; training diverged"),
    ],
    ids=["missing", "extra layer", "head", "base weight", "shape", "NaN"],
)
def test_a_checkpoint_that_does_not_fit_exactly_is_refused(
    change: dict, message: str, tmp_path: Path
) -> None:
    model = tiny.model()
    folder = checkpoint(model, tmp_path, "lora")
    rewrite(folder, change)
    before = parameters(model)
    with pytest.raises(BrokenExperiment, match=message), adapted(model, folder):
        pass
    assert same_arrays(before, parameters(model))


def test_an_adapter_of_another_base_is_refused(tmp_path: Path) -> None:
    folder = checkpoint(tiny.model(seed=1), tmp_path, "lora")
    with (
        pytest.raises(BrokenExperiment, match="was trained on another base"),
        adapted(tiny.model(seed=2), folder),
    ):
        pass
    with adapted(tiny.model(seed=1), folder):
        pass


def test_an_adapter_that_does_not_say_its_base_is_no_checkpoint_but_can_be_loaded(tmp_path: Path) -> None:
    model = tiny.model()
    folder = checkpoint(model, tmp_path, "lora")
    config = json.loads((folder / adapters.CONFIG).read_text())
    del config["base_hash"]
    (folder / adapters.CONFIG).write_text(json.dumps(config))
    with pytest.raises(BrokenExperiment, match="another base"), adapted(model, folder):
        pass
    base = model(TOKENS)
    adapters.apply(model, folder)
    assert not mx.array_equal(model(TOKENS), base)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("written", "claimed", "message"), [(10, 0, "step 0 differs"), (0, 10, "step 10 equals")]
)
def test_the_step_that_a_checkpoint_claims_is_checked(
    kind: str, written: int, claimed: int, message: str, tmp_path: Path
) -> None:
    model = tiny.model()
    folder = checkpoint(model, tmp_path, kind, step=written)
    config = json.loads((folder / adapters.CONFIG).read_text())
    (folder / adapters.CONFIG).write_text(json.dumps({**config, "step": claimed}))
    with pytest.raises(BrokenExperiment, match=message), adapted(model, folder):
        pass


def test_adapters_outside_the_blocks_are_refused_when_read(tmp_path: Path) -> None:
    model = tiny.model(tied=False)
    folder = checkpoint(model, tmp_path, "lora")
    config = json.loads((folder / adapters.CONFIG).read_text())
    config["lora_parameters"]["keys"].append("lm_head")
    (folder / adapters.CONFIG).write_text(json.dumps(config))
    with pytest.raises(BrokenExperiment, match="lm_head, outside the blocks"), adapted(model, folder):
        pass


@pytest.mark.parametrize("name", [adapters.WEIGHTS, adapters.CONFIG])
@pytest.mark.parametrize(
    "content", [None, b"", b"\x00" * 100, b"[1]"], ids=["absent", "empty", "zeros", "a list"]
)
def test_a_broken_checkpoint_file_is_one_clear_line(name: str, content: bytes | None, tmp_path: Path) -> None:
    model = tiny.model()
    folder = checkpoint(model, tmp_path, "lora")
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(BrokenExperiment) as error, adapted(model, folder):
        pass
    assert name in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_training_writes_the_same_bytes(kind: str, tmp_path: Path) -> None:
    first, second = (checkpoint(tiny.model(), tmp_path / x, kind) for x in "ab")
    for name in (adapters.WEIGHTS, adapters.CONFIG):
        assert (first / name).read_bytes() == (second / name).read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_mlx_lm_reads_the_checkpoint_as_its_own(kind: str, tmp_path: Path) -> None:
    from mlx_lm import load

    folder = tiny.write_model(tmp_path / "model")
    base, _ = load(str(folder))
    written = checkpoint(base, tmp_path / "adapter", kind)
    with adapted(base, written):
        expected = base(TOKENS)
        mx.eval(expected)
    model, _ = load(str(folder), adapter_path=str(written))
    assert not mx.array_equal(model(TOKENS), base(TOKENS))
    np.testing.assert_allclose(model(TOKENS), expected, atol=LAYERED_ATOL, rtol=0)


def test_dropout_is_off_when_a_checkpoint_is_read(tmp_path: Path) -> None:
    model = tiny.model()
    nn.quantize(model, group_size=32, bits=4)  # keeps the layers
    model.train()
    folder = checkpoint(model, tmp_path, "lora", settings=Settings(dropout=0.9))
    with adapted(model, folder):
        assert mx.array_equal(model(TOKENS), model(TOKENS))
    assert model.training


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"num_layers": None}, "does not say num_layers"),
        ({"num_layers": None, "lora_layers": 16}, "said lora_layers: call it num_layers"),
        ({"lora_parameters": None}, "lora_parameters.rank, lora_parameters.scale, lora_parameters.dropout"),
        ({"lora_parameters": {"rank": 4, "alpha": 8, "dropout": 0.0}}, "does not say lora_parameters.scale"),
        ({"peft_type": "LORA", "r": 8}, "is peft's (LORA)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_older_or_a_foreign_configuration_is_told_as_such(tmp_path: Path, change: dict, said: str) -> None:
    model = tiny.model()
    folder = checkpoint(model, tmp_path, "lora")
    path = folder / adapters.CONFIG
    settings = {**json.loads(path.read_text()), **change}
    path.write_text(json.dumps({k: v for k, v in settings.items() if v is not None}))
    with pytest.raises(BrokenExperiment, match=r"^[^\n]+$") as error, adapted(model, folder):
        pass
    assert said in str(error.value)
