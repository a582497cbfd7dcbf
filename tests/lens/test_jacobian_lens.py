"""The Jacobian lens: exact by algebra and finite differences, in every kind of family; bound to its weights.

A slope is of order one, so a tolerance of 5e-6 is rounding in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import architectures
import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import tiny

from emergence import JacobianLens, TunedLens
from emergence.backend import numpy_ops
from emergence.errors import BrokenExperiment, NotMeasurable, UsageError
from emergence.lens.hooks import evaluating
from emergence.lens.logit_lens import LogitLens

RNG = np.random.default_rng(0)
TEXT = [RNG.integers(0, 366, n).tolist() for n in (6, 8, 6, 5)]
UNSEEN = [RNG.integers(0, 366, 7).tolist() for _ in range(4)]
FAMILIES = [
    "afmoe", "baichuan_m1", "bailing_hybrid", "cohere", "dbrx", "deepseek_v3", "falcon_h1", "gemma",
    "gemma2", "gemma3", "gpt2", "gpt_neox", "gpt_oss", "granite", "hunyuan", "iquestloopcoder", "jamba",
    "kimi_linear", "lfm2", "llama", "llama4", "longcat_flash", "mamba", "mamba2", "mixtral", "nanbeige",
    "nemotron-nas", "nemotron_h", "olmo2", "openelm", "phi", "prism_hadamard_qwen35", "qwen2",
    "qwen3_next", "recurrent_gemma", "rwkv7",
]  # fmt: skip
"""Every kind of block: loops, state spaces, recurrences, mixtures, parallel parts, soft-caps."""


@pytest.fixture(autouse=True, scope="module")
def _no_compiler() -> Iterator[None]:
    """On the CPU, MLX calls a C++ compiler for each fused function; the numbers are the same without."""
    mx.disable_compile()
    yield
    mx.enable_compile()


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return tiny.model(n_layers=3)


@pytest.fixture(scope="module")
def fitted(model: nn.Module) -> JacobianLens:
    return JacobianLens.fit(LogitLens(model), TEXT, skip_first=1)


class Shifting(nn.Module):
    """A block that is linear and looks back: h[p] + A h[p] + B h[p - 1]."""

    def __init__(self, size: int, rng: np.random.Generator):
        super().__init__()
        self.own, self.earlier = (
            mx.array(rng.normal(0, 0.3 * size**-0.5, (size, size)), mx.float32) for _ in "AB"
        )

    def __call__(self, h: mx.array) -> mx.array:
        before = mx.pad(h, [(0, 0), (1, 0), (0, 0)])[:, :-1]
        return h + h @ self.own.T + before @ self.earlier.T


class Linear(nn.Module):
    """Linear from its embedding to its logits."""

    def __init__(self, layers: int = 4, size: int = 8, vocab: int = 11):
        super().__init__()
        rng = np.random.default_rng(3)
        self.embed = nn.Embedding(vocab, size)
        self.embed.weight = mx.array(rng.normal(size=(vocab, size)), mx.float32)
        self.layers = [Shifting(size, rng) for _ in range(layers)]
        self.head = nn.Linear(size, vocab, bias=False)
        self.head.weight = mx.array(rng.normal(size=(vocab, size)), mx.float32)

    def __call__(self, ids: mx.array, cache: object = None) -> mx.array:
        h = self.embed(ids)
        for layer in self.layers:
            h = layer(h)
        return self.head(h)


def averaged(jacobian: np.ndarray, skip: int) -> np.ndarray:
    """The paper's mean of `[position after, hidden, position before, hidden]`, over all but the last."""
    counted = jacobian[skip:-1, :, skip:-1]
    return counted.sum(0).mean(1)


def test_of_a_linear_model_it_is_the_product_of_the_blocks() -> None:
    model, prompts, skip, size = Linear(), [[1, 2, 3, 4, 5, 6], [7, 8, 9]], 1, 8
    right = np.zeros((3, size, size))
    for prompt in prompts:
        length, through = len(prompt), np.eye(len(prompt) * size)
        for layer in (2, 1, 0):
            own, earlier = (
                np.array(m, np.float64)
                for m in (model.layers[layer + 1].own, model.layers[layer + 1].earlier)
            )
            step = np.kron(np.eye(length), np.eye(size) + own) + np.kron(np.eye(length, k=-1), earlier)
            through = through @ step
            right[layer] += averaged(through.reshape(length, size, length, size), skip) / len(prompts)
    found = JacobianLens.fit(LogitLens(model), prompts, skip_first=skip)
    np.testing.assert_allclose(found.jacobian, right, atol=2e-6)


def norm(h: np.ndarray, weight: mx.array) -> np.ndarray:
    return h / np.sqrt((h**2).mean(-1, keepdims=True) + 1e-5) * np.array(weight, np.float64)


def rotated(h: np.ndarray) -> np.ndarray:
    """Rotary positions (Su et al. 2021) of `[..., position, 8]`, halves paired."""
    angle = np.arange(h.shape[-2])[:, None] * 10000.0 ** (-np.arange(4) / 4)
    a, b = h[..., :4], h[..., 4:]
    return np.concatenate([a * np.cos(angle) - b * np.sin(angle), a * np.sin(angle) + b * np.cos(angle)], -1)


def block64(block: nn.Module, h: np.ndarray) -> np.ndarray:
    """A llama's block on `[batch, position, 32]` in float64: four heads of eight, two of keys and values."""

    def product(x: np.ndarray, linear: nn.Module) -> np.ndarray:
        return x @ np.array(linear.weight, np.float64).T

    def heads(x: np.ndarray, linear: nn.Module) -> np.ndarray:
        return product(x, linear).reshape(*x.shape[:2], -1, 8).transpose(0, 2, 1, 3)

    x, attention = norm(h, block.input_layernorm.weight), block.self_attn
    query, key = rotated(heads(x, attention.q_proj)), rotated(heads(x, attention.k_proj)).repeat(2, 1)
    scores = query @ key.swapaxes(-1, -2) / np.sqrt(8)
    scores = np.where(np.tri(h.shape[1], dtype=bool), np.exp(scores), 0)
    mixed = scores / scores.sum(-1, keepdims=True) @ heads(x, attention.v_proj).repeat(2, 1)
    h = h + product(mixed.transpose(0, 2, 1, 3).reshape(h.shape), attention.o_proj)
    x, mlp = norm(h, block.post_attention_layernorm.weight), block.mlp
    gate = product(x, mlp.gate_proj)
    return h + product(gate / (1 + np.exp(-gate)) * product(x, mlp.up_proj), mlp.down_proj)


def test_it_is_what_finite_differences_in_float64_say(model: nn.Module, fitted: JacobianLens) -> None:
    right = np.zeros((2, 32, 32))
    for prompt in TEXT:
        h = np.array(model.model.embed_tokens(mx.array([prompt])), np.float64)
        for layer in (0, 1):
            h = block64(model.layers[layer], h)
            size = h.size
            steps = 1e-5 * np.concatenate([np.eye(size), -np.eye(size)]).reshape(-1, *h.shape[1:])
            moved = h + steps
            for block in model.layers[layer + 1 :]:
                moved = block64(block, moved)
            slopes = (moved[:size] - moved[size:]).reshape(size, size).T / 2e-5
            right[layer] += averaged(slopes.reshape(h.shape[1:] * 2), 1) / len(TEXT)
    np.testing.assert_allclose(fitted.jacobian, right, atol=5e-6)
    assert np.abs(right - np.eye(32)).max() > 0.1, "blocks do something"


def test_the_last_layer_is_the_models_own_logits(model: nn.Module, fitted: JacobianLens) -> None:
    np.testing.assert_array_equal(fitted.logits(UNSEEN)[-1], LogitLens(model).logits(UNSEEN)[-1])
    own = np.stack([np.array(model(mx.array([p]))[0, -1]) for p in UNSEEN])
    np.testing.assert_allclose(fitted.logits(UNSEEN)[-1], own, atol=1e-5)


def test_a_layer_reads_as_its_moved_stream_unembedded(model: nn.Module, fitted: JacobianLens) -> None:
    lens = LogitLens(model)
    h = lens.streams(UNSEEN, layers=[1])[0].astype(np.float64)
    right = lens.unembed(mx.array((h @ np.array(fitted.jacobian[1], np.float64).T).astype(np.float32)))
    np.testing.assert_allclose(fitted.logits(UNSEEN, layers=[1])[0], right, atol=1e-4)
    reading = fitted.read(UNSEEN, {"few": [1, 2]}, layers=[1, "embedding", "L1.attn"])
    plain = lens.read(UNSEEN, {"few": [1, 2]}, layers=[1, "embedding", "L1.attn"])
    np.testing.assert_array_equal(reading.log_mass[1:], plain.log_mass[1:])
    assert np.abs(reading.log_mass[0] - plain.log_mass[0]).min() > 0


def test_every_prompt_counts_the_same_and_its_last_token_not_at_all(model: nn.Module) -> None:
    lens, prompts = LogitLens(model), [TEXT[0], TEXT[1]]
    both = JacobianLens.fit(lens, prompts, skip_first=1).jacobian
    each = [JacobianLens.fit(lens, [p], skip_first=1).jacobian for p in prompts]
    np.testing.assert_allclose(both, (each[0] + each[1]) / 2, atol=1e-6)
    assert mx.abs(each[0] - each[1]).max() > 0.01
    other = JacobianLens.fit(lens, [[*p[:-1], 7] for p in prompts], skip_first=1).jacobian
    assert mx.array_equal(both, other)


def test_first_positions_are_left_out_and_so_is_what_is_too_long(model: nn.Module) -> None:
    lens, prompt = LogitLens(model), TEXT[1]
    whole = JacobianLens.fit(lens, [prompt], skip_first=3).jacobian
    assert mx.array_equal(JacobianLens.fit(lens, [prompt + [5] * 9], skip_first=3, longest=8).jacobian, whole)
    assert mx.abs(JacobianLens.fit(lens, [prompt], skip_first=2).jacobian - whole).max() > 0.01


def test_many_batches_and_directions_are_one_and_the_same_text_gives_the_same_lens(
    model: nn.Module, fitted: JacobianLens, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = JacobianLens.fit(LogitLens(model), TEXT, skip_first=1)
    assert mx.array_equal(again.jacobian, fitted.jacobian)
    monkeypatch.setattr("emergence.lens.jacobian_lens.TOKENS", 5)
    monkeypatch.setattr("emergence.lens.jacobian_lens.ROWS", 35)
    parts = JacobianLens.fit(LogitLens(model), TEXT, skip_first=1)
    np.testing.assert_allclose(parts.jacobian, fitted.jacobian, atol=1e-6)


def slope_along(
    lens: LogitLens, prompts: list[list[int]], to: np.ndarray, along: np.ndarray, skip: int, step: float
) -> float:
    """Sum over layers of `to` · J · `along[layer]`: all counted positions of all layers are moved at once."""
    ids = mx.array(prompts)[:, :-1]
    counts = (np.arange(ids.shape[1]) >= skip)[:, None]

    def at(step: float) -> float:
        by = [mx.array((step * v * counts)[None], mx.float32) for v in along]
        return float((np.array(lens.stream.moved(ids, by), np.float64) * counts * to).sum())

    with evaluating(lens.model), numpy_ops.fast(lens.model):
        step *= float(np.abs(np.array(lens.stream.moved(ids, []))).mean())
        return (at(step) - at(-step)) / (2 * step) / (counts.sum() * len(prompts))


@pytest.mark.parametrize("name", FAMILIES)
def test_in_every_kind_of_family_it_is_the_slope_of_the_models_own_pass(name: str) -> None:
    lens = LogitLens(architectures.build(name))
    prompts, skip, rng = [[3, 1, 4, 1, 5, 9, 2], [2, 7, 1, 8, 2, 8, 1]], 1, np.random.default_rng(1)
    found = np.array(JacobianLens.fit(lens, prompts, skip_first=skip).jacobian, np.float64)
    to, along = rng.normal(size=found.shape[-1]), rng.normal(size=found.shape[::2])
    slopes = np.einsum("i,lij,lj->l", to, found, along)
    spread = np.linalg.norm(found) * np.linalg.norm(to)
    steps = (2e-3, 3e-4)  # a router that decides anew within the longer one makes a jump
    off = min(abs(slope_along(lens, prompts, to, along, skip, step) - slopes.sum()) for step in steps)
    assert off < 2e-3 * spread
    assert np.abs(found - np.eye(len(to))).max() > 0.01


@pytest.mark.parametrize("name", ["llama", "iquestloopcoder", "gemma2"])
def test_a_model_goes_on_with_the_stream_that_was_moved(name: str) -> None:
    stream, ids = LogitLens(architectures.build(name)).stream, mx.array([[3, 1, 4, 1, 5]])
    plain, _ = stream.look(ids)
    assert mx.allclose(stream.moved(ids, []), plain.states[-1], atol=1e-6)
    size = plain.states[-1].shape[-1]
    by = [mx.zeros((1, 5, size)), mx.full((1, 5, size), 1e4)]
    with stream.observe() as seen:
        last = stream.moved(ids, by)
    assert mx.allclose(seen.states[0], plain.states[0], atol=1e-6)
    assert mx.abs(last - 1e4).max() < 100, "the last stream has it, and so has every one on the way"


@pytest.mark.parametrize("name", ["gemma3n", "kimi_k3", "deepseek_v41"])
def test_a_family_without_one_stream_is_refused_by_name(name: str) -> None:
    with pytest.raises(NotMeasurable, match=rf"{name}.*Jacobian lens"):
        JacobianLens.fit(LogitLens(architectures.build(name)), [[3, 1, 4]], skip_first=0)


@pytest.mark.parametrize("name", ["llama", "iquestloopcoder", "gpt2"])
def test_a_model_in_half_precision_is_fitted_in_float32(name: str) -> None:
    model, text = architectures.build(name), [[3, 1, 4, 1, 5, 9]]
    model.set_dtype(mx.bfloat16)
    found = JacobianLens.fit(LogitLens(model), text, skip_first=1)
    model.set_dtype(mx.float32)  # the very same weights
    right = np.array(JacobianLens.fit(LogitLens(model), text, skip_first=1).jacobian)
    assert found.jacobian.dtype == mx.float32
    assert np.linalg.norm(found.jacobian - right) < 0.03 * np.linalg.norm(right)


def test_what_is_saved_is_loaded(model: nn.Module, fitted: JacobianLens, tmp_path: Path) -> None:
    fitted.save(tmp_path / "lens.safetensors")
    again = JacobianLens.load(model, tmp_path / "lens.safetensors")
    np.testing.assert_array_equal(again.logits(UNSEEN), fitted.logits(UNSEEN))


def test_it_is_refused_on_other_weights_and_once_they_change(fitted: JacobianLens, tmp_path: Path) -> None:
    path = tmp_path / "lens.safetensors"
    fitted.save(path)
    later = tiny.model(n_layers=3)
    lens = JacobianLens.load(later, path)
    later.layers[0].mlp.up_proj.weight = later.layers[0].mlp.up_proj.weight + 1e-6
    for read in (lambda: lens.read(UNSEEN), lambda: JacobianLens.load(later, path)):
        with pytest.raises(UsageError, match=r"this Jacobian lens was fitted on weights .* fit it anew"):
            read()


def test_files_that_are_none_are_refused(model: nn.Module, fitted: JacobianLens, tmp_path: Path) -> None:
    whole, cut, tuned = (tmp_path / f"{name}.safetensors" for name in ("whole", "cut", "tuned"))
    fitted.save(whole)
    for size in (4, 100, whole.stat().st_size - 1):
        cut.write_bytes(whole.read_bytes()[:size])
        with pytest.raises(UsageError, match="not a readable Jacobian lens"):
            JacobianLens.load(model, cut)
    TunedLens.fit(LogitLens(model), TEXT, steps=1).save(tuned)
    with pytest.raises(UsageError, match="not a Jacobian lens"):
        JacobianLens.load(model, tuned)
    with pytest.raises(UsageError, match="do not fit 3 layers"):
        JacobianLens(model, mx.zeros((4, 32, 32)), fitted.base)


WRONG = {
    "an empty corpus": ([], {}, "prompts without tokens"),
    "too few tokens": ([TEXT[1], TEXT[0]], {"skip_first": 5}, r"1 of 2 prompts .* \(prompt 1 has 6\)"),
    "the paper's default on short prompts": (TEXT, {}, "4 of 4 prompts .* a smaller skip_first"),
    "a negative skip": (TEXT, {"skip_first": -1}, "skip_first=-1"),
    "nothing between skip and longest": (TEXT, {"longest": 17}, "longest=17"),
}


@pytest.mark.parametrize(("prompts", "options", "match"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_fitted_is_one_line(
    model: nn.Module, prompts: list[list[int]], options: dict[str, int], match: str
) -> None:
    with pytest.raises(UsageError, match=match) as caught:
        JacobianLens.fit(LogitLens(model), prompts, **options)
    assert "\n" not in str(caught.value)


def test_weights_that_diverged_are_no_lens() -> None:
    model = tiny.model(n_layers=3)
    lens = LogitLens(model)
    model.layers[1].mlp.down_proj.weight = model.layers[1].mlp.down_proj.weight * float("nan")
    with pytest.raises(BrokenExperiment):
        JacobianLens.fit(lens, TEXT, skip_first=1)


def test_a_model_of_one_block_has_nothing_to_fit() -> None:
    model = tiny.model(n_layers=1)
    fitted = JacobianLens.fit(LogitLens(model), TEXT, skip_first=1)
    np.testing.assert_array_equal(fitted.logits(UNSEEN), LogitLens(model).logits(UNSEEN))
