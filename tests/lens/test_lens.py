"""The lens is the model: last layer = logits, every layer = the model's own tail on its own stream, and no
lie passes."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

import architectures
import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import tiny
from mlx.utils import tree_flatten
from mlx_lm.tuner.lora import LoRAEmbedding
from scipy.special import log_softmax
from transformers import PreTrainedTokenizerFast

from emergence.errors import BrokenExperiment, NotMeasurable, UsageError
from emergence.lens import logit_lens as lens_module
from emergence.lens import proof
from emergence.lens import residual as stream
from emergence.lens.logit_lens import LogitLens
from emergence.lens.unembed import Head

PROMPTS = [[5, 6, 7, 8], [9, 10], [1, 2, 3, 4], [11, 12, 13, 14, 15], [20, 3]]
SETS = {"add": [1, 2, 3], "other": [40]}


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return tiny.model(n_layers=5)


@pytest.fixture(scope="module")
def lens(model: nn.Module) -> LogitLens:
    return LogitLens(model)


def _by_hand(model: nn.Module, prompt: list[int]) -> np.ndarray:
    """Logits [layer, position, vocab]: block by block with a causal mask, final norm, head."""
    h = model.model.embed_tokens(mx.array([prompt]))
    found = []
    for block in model.layers:
        h = block(h, "causal" if len(prompt) > 1 else None)
        found.append(model.model.embed_tokens.as_linear(model.model.norm(h))[0])
    return np.array(mx.stack(found))


def test_the_last_layer_is_the_models_logits(model: nn.Module, lens: LogitLens) -> None:
    own = np.stack([np.array(model(mx.array([p]))[0, -1]) for p in PROMPTS])
    np.testing.assert_allclose(lens.logits(PROMPTS)[-1], own, atol=1e-5)


def test_every_layer_is_the_tail_on_its_own_stream(model: nn.Module, lens: LogitLens) -> None:
    found = lens.logits(PROMPTS)
    for i, prompt in enumerate(PROMPTS):
        np.testing.assert_allclose(found[:, i], _by_hand(model, prompt)[:, -1], atol=1e-5)


def test_capture_changes_no_bit_and_is_undone(model: nn.Module, lens: LogitLens) -> None:
    tokens = mx.array([[5, 6, 7]])
    types = [type(b) for b in model.layers]
    before = model(tokens)
    with lens.capture() as streams:
        during = model(tokens)
        assert type(model.layers[0]) is not types[0]
    assert mx.array_equal(before, during)
    assert mx.array_equal(before, model(tokens))
    assert [type(b) for b in model.layers] == types
    assert len(streams) == 5
    assert streams[2].shape == (1, 3, 32)


def test_capture_is_undone_after_an_exception(model: nn.Module, lens: LogitLens) -> None:
    types = [type(m) for m in model.modules()]
    with pytest.raises(ZeroDivisionError), lens.capture():
        raise ZeroDivisionError
    with pytest.raises(ValueError, match="too many values"), lens.capture():
        model(mx.array([[[1, 2], [3, 4]]]))
    assert [type(m) for m in model.modules()] == types


def test_capture_holds_the_latest_pass(model: nn.Module, lens: LogitLens) -> None:
    with lens.capture() as streams:
        model(mx.array([[1, 2, 3, 4]]))
        model(mx.array([[1, 2]]))
    assert len(streams) == 5
    assert streams[0].shape[1] == 2


def test_another_model_of_the_same_type_is_not_observed(model: nn.Module, lens: LogitLens) -> None:
    other = tiny.model(seed=1)
    with lens.capture() as streams:
        other(mx.array([[1, 2, 3]]))
    assert len(streams) == 0


def test_a_loss_on_a_captured_layer_has_the_gradient_of_the_model_cut_there() -> None:
    model = tiny.model(n_layers=3)
    lens = LogitLens(model)
    tokens = mx.array([[5, 6, 7]])

    def by_lens(m: nn.Module) -> mx.array:
        with lens.capture() as streams:
            m(tokens)
        return nn.losses.cross_entropy(lens.tail(streams[1][:, -1]), mx.array([9])).sum()

    def by_hand(m: nn.Module) -> mx.array:
        h = m.model.embed_tokens(tokens)
        for block in m.layers[:2]:
            h = block(h, "causal")
        logits = m.model.embed_tokens.as_linear(m.model.norm(h))[:, -1]
        return nn.losses.cross_entropy(logits, mx.array([9])).sum()

    found, right = (dict(tree_flatten(nn.value_and_grad(model, f)(model)[1])) for f in (by_lens, by_hand))
    assert found.keys() == right.keys()
    for name in right:
        assert mx.allclose(found[name], right[name], atol=1e-6), name
    assert mx.abs(right["model.layers.1.mlp.up_proj.weight"]).max() > 1e-3


def test_the_tail_ignores_the_size_of_the_stream(lens: LogitLens) -> None:
    hidden = mx.random.normal((3, 32), key=mx.random.key(0)) * 10
    np.testing.assert_allclose(lens.tail(hidden * 7), lens.tail(hidden), atol=1e-4)


def test_the_tail_calls_no_block_where_it_is_the_same_without(
    model: nn.Module, lens: LogitLens, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden, calls = mx.random.normal((3, 32), key=mx.random.key(1)), []

    def counted(call: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        calls.append(1)
        return call(*args, **kwargs)

    with stream.observed([(block.mlp, counted) for block in model.layers]):
        quick = lens.tail(hidden)
        assert not calls
        monkeypatch.setattr(lens.trunk, "_idle", False)
        assert mx.array_equal(lens.tail(hidden), quick)
        assert len(calls) == lens.n_layers


def test_a_reading_is_the_statistics_of_the_logits(model: nn.Module, lens: LogitLens) -> None:
    found = lens.read(PROMPTS, SETS, top_k=3, token_ids=[7, 8])
    log_p = log_softmax(lens.logits(PROMPTS).astype(np.float64), axis=-1)
    np.testing.assert_allclose(
        np.exp(found.log_mass[..., 0]), np.exp(log_p[..., [1, 2, 3]]).sum(-1), atol=1e-6
    )
    np.testing.assert_allclose(found.log_probs, log_p[..., [7, 8]], atol=1e-4)
    np.testing.assert_array_equal(found.top_ids, np.argsort(-log_p, -1)[..., :3])
    np.testing.assert_allclose(found.entropy, -(np.exp(log_p) * log_p).sum(-1), atol=1e-4)
    kl = (np.exp(log_p[-1]) * (log_p[-1] - log_p)).sum(-1)
    np.testing.assert_allclose(found.kl, kl, atol=1e-4)
    previous = (np.exp(log_p[1:]) * (log_p[1:] - log_p[:-1])).sum(-1)
    np.testing.assert_allclose(found.kl_previous[1:], previous, atol=1e-4)
    assert np.isnan(found.kl_previous[0]).all()
    assert found.layers == ("L0", "L1", "L2", "L3", "L4")


@pytest.mark.parametrize("rows", [1, 3, 7])
def test_a_reading_does_not_depend_on_the_memory_it_may_take(
    lens: LogitLens, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = lens.read(PROMPTS, SETS, token_ids=[7])
    monkeypatch.setattr(lens_module, "LOGITS_BYTES", rows * 4 * lens.head_size)
    monkeypatch.setattr(lens_module, "FORWARD_TOKENS", 4)
    _same(lens.read(PROMPTS, SETS, token_ids=[7]), whole)


def test_a_head_that_cannot_be_cut_is_read_whole() -> None:
    model = tiny.model()
    lens = LogitLens(model)
    before, head = lens.read(PROMPTS, SETS), model.model.embed_tokens
    assert lens.head.in_parts()
    model.model.embed_tokens = LoRAEmbedding.from_base(head, r=2)
    assert not lens.head.in_parts()
    _same(lens.read(PROMPTS, SETS), before)
    model.model.embed_tokens = head
    with suppress(InterruptedError), lens.head.only(slice(0, 3)):
        assert model(mx.array([[1, 2]])).shape[-1] == 3
        raise InterruptedError
    assert model.model.embed_tokens["weight"] is head["weight"]
    assert model(mx.array([[1, 2]])).shape[-1] == lens.head_size


def test_logits_that_depend_on_one_another_are_read_whole() -> None:
    model = tiny.model()
    plain = type(model).__call__

    class Normalised(type(model)):  # type: ignore[misc]
        def __call__(self, *args: Any, **kwargs: Any) -> mx.array:
            return nn.log_softmax(plain(self, *args, **kwargs))

    model.__class__ = Normalised
    lens = LogitLens(model)
    assert not lens.head.in_parts()
    np.testing.assert_allclose(
        np.exp(lens.read(PROMPTS, {"all": range(lens.head_size)}).log_mass), 1, atol=1e-5
    )


CUT = ["llama", "gemma2", "cohere", "granite", "minicpm", "phi"]


@pytest.mark.parametrize("name", CUT)
def test_a_reading_by_parts_of_the_vocabulary_is_that_of_the_whole(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tied and untied heads, one with bias, soft-caps and logit scales: the tail is the model's own."""
    model = architectures.build(name)
    lens = LogitLens(model)
    weights = dict(tree_flatten(model.parameters()))
    assert lens.head.in_parts()
    prompts = [[3, 1, 4], [1, 5, 9]]
    with monkeypatch.context() as patch:
        patch.setattr(Head, "in_parts", lambda self: False)
        whole = lens.read(prompts, SETS)
    monkeypatch.setattr(lens_module, "LOGITS_BYTES", 4 * 17 * len(prompts) * lens.n_layers)
    widths, real = [], stream.Trunk.finish

    def finish(self: stream.Trunk, state: Any) -> mx.array:
        logits = real(self, state)
        widths.append(logits.shape[-1])
        return logits

    monkeypatch.setattr(stream.Trunk, "finish", finish)
    _same(lens.read(prompts, SETS), whole)
    assert widths == [17, 17, 17, 10]
    assert all(dict(tree_flatten(model.parameters()))[n] is w for n, w in weights.items())


def test_memory_does_not_grow_with_the_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    lens = LogitLens(tiny.model(vocab=20_000))
    monkeypatch.setattr(lens_module, "LOGITS_BYTES", 4_000_000)
    monkeypatch.setattr(lens_module, "FORWARD_TOKENS", 32)
    monkeypatch.setattr("emergence.lens.distribution._THREADS", 1)  # how many peaks coincide is chance

    def peak(prompts: int) -> int:
        tokens = np.random.default_rng(0).integers(0, 20_000, (prompts, 4)).tolist()
        mx.clear_cache()
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        tracemalloc.start()
        lens.read(tokens, SETS)
        in_numpy = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return mx.get_peak_memory() - before + in_numpy

    few, many = peak(12), peak(120)
    assert many < 1.2 * few
    assert many < 120 * lens.n_layers * lens.head_size * 4 / 2


@pytest.mark.parametrize("name", ["gemma3n", "deepseek_v41", "kimi_k3"])
def test_a_tail_of_several_streams_is_read_and_its_one_stream_refused(name: str) -> None:
    model = architectures.build(name)
    lens = LogitLens(model)
    found = lens.read([[3, 1, 4], [1, 5], [9, 2, 6]], SETS, positions="all")
    log_p = log_softmax(np.array(model(mx.array([[3, 1, 4]]))[0]), axis=-1)
    np.testing.assert_allclose(found.top_log_probs[-1, 0, :, 0], log_p.max(-1), atol=1e-4)
    for call in (lambda: lens.streams([[1, 2]]), lambda: lens.tail(mx.zeros((1, 32)))):
        with pytest.raises(NotMeasurable, match=rf"{name}.*more than one stream"):
            call()


def test_a_reading_of_some_layers_is_that_part_of_the_whole(lens: LogitLens) -> None:
    whole = lens.read(PROMPTS, SETS)
    part = lens.read(PROMPTS, SETS, layers=[3, "L1", -1])
    assert part.layers == ("L3", "L1", "L4")
    for name in ("log_mass", "entropy", "kl", "kl_previous", "top_ids"):
        np.testing.assert_allclose(getattr(part, name), getattr(whole, name)[[3, 1, 4]], atol=1e-5)


def test_every_position_reads_as_the_prompt_that_ends_there(lens: LogitLens) -> None:
    found = lens.read(PROMPTS, SETS, positions="all")
    assert found.entropy.shape == (5, 5, 5)
    for i, prompt in enumerate(PROMPTS):
        for k in range(len(prompt)):
            alone = lens.read([prompt[: k + 1]], SETS)
            np.testing.assert_allclose(found.log_mass[:, i, k], alone.log_mass[:, 0], atol=1e-4)
            np.testing.assert_allclose(found.kl[:, i, k], alone.kl[:, 0], atol=1e-4)
        assert np.isnan(found.entropy[:, i, len(prompt) :]).all()
        assert (found.top_ids[:, i, len(prompt) :] == -1).all()


def test_positions_are_one_a_list_or_counted_from_the_end(lens: LogitLens) -> None:
    every = lens.read(PROMPTS[:1], SETS, positions="all")
    _close(lens.read(PROMPTS[:1], SETS, positions=[2, -4]).entropy, every.entropy[:, :, [2, 0]])
    _close(lens.read(PROMPTS[:1], SETS, positions=1).entropy, every.entropy[:, :, 1])
    _close(lens.read(PROMPTS[:1], SETS, positions=-1).entropy, lens.read(PROMPTS[:1], SETS).entropy)


def test_the_embedding_row_is_the_tail_on_the_embedding(model: nn.Module, lens: LogitLens) -> None:
    found = lens.logits([[5, 6, 7]], layers=["embedding"])[0, 0]
    embedding = model.model.embed_tokens(mx.array([7]))
    np.testing.assert_allclose(found, lens.tail(embedding)[0], atol=1e-5)
    reading = lens.read([[5, 6, 7]], layers=["embedding", 0, 1])
    assert np.isnan(reading.kl_previous[0]).all()
    assert (reading.kl_previous[1:] > 0).all()


def test_the_stream_after_attention_is_read_where_it_is(model: nn.Module, lens: LogitLens) -> None:
    found = lens.streams([[5, 6, 7]], layers=["L0.attn"])[0, 0]
    h, block = model.model.embed_tokens(mx.array([[5, 6, 7]])), model.layers[0]
    right = h + block.self_attn(block.input_layernorm(h), "causal")
    np.testing.assert_allclose(found, right[0, -1], atol=1e-5)


@pytest.mark.parametrize("name", ["cohere", "phi", "mamba", "gemma3n"])
def test_a_block_without_a_stream_after_attention_is_refused(name: str) -> None:
    with pytest.raises(NotMeasurable, match=rf"{name}.*L1\.attn"):
        LogitLens(architectures.build(name)).logits([[1, 2]], layers=["L1.attn"])


def test_each_pass_of_a_loop_is_a_layer() -> None:
    for name in ("nanbeige", "iquestloopcoder"):
        lens = LogitLens(architectures.build(name))
        assert lens.n_layers == 8
        found = lens.logits([[3, 1, 4]])
        assert len({row.tobytes() for row in found[:, 0]}) == 8


def test_padded_rows_of_the_head_are_left_out_and_said_so(model: nn.Module) -> None:
    lens = LogitLens(model, vocab_size=300)
    found = lens.read(PROMPTS, {"all": range(300)})
    np.testing.assert_allclose(found.log_mass, 0, atol=1e-5)
    assert found.left_out == lens.head_size - 300
    assert "padded ids left out" in repr(found)
    with pytest.raises(UsageError, match="vocabulary of 300"):
        lens.read(PROMPTS, {"add": [301]})


BAD = {
    "id out of range": (lambda ln: ln.read([[1, 10_000]]), r"10000.*outside the vocabulary"),
    "negative id": (lambda ln: ln.read([[1, -1]]), r"-1.*outside the vocabulary"),
    "empty prompt": (lambda ln: ln.read([[1], []]), r"without tokens: \[1\]"),
    "no prompts": (lambda ln: ln.logits([]), "without tokens"),
    "empty set": (lambda ln: ln.read([[1]], {"add": []}), "without ids: add"),
    "duplicate in a set": (lambda ln: ln.read([[1]], {"add": [3, 3]}), "'add'.*twice"),
    "set out of range": (lambda ln: ln.read([[1]], {"add": [9999]}), "'add'.*outside"),
    "layer out of range": (lambda ln: ln.read([[1]], layers=[5]), "layer 5.*0 to 4"),
    "layer unknown": (lambda ln: ln.read([[1]], layers=["mlp3"]), "mlp3"),
    "layer twice": (lambda ln: ln.read([[1]], layers=[1, 1]), "once"),
    "position out of range": (lambda ln: ln.read([[1, 2]], positions=2), "prompt 0 has 2 tokens"),
    "position unknown": (lambda ln: ln.read([[1, 2]], positions="first"), "first"),
    "top_k too large": (lambda ln: ln.read([[1]], top_k=10_000), "top_k=10000"),
    "vocabulary larger than the head": (lambda ln: LogitLens(ln.model, vocab_size=10_000), "10000.*rows"),
    "one token to prove on": (lambda ln: ln.verify([[1]]), "at least two tokens"),
}


@pytest.mark.parametrize(("call", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_clear_line(lens: LogitLens, call: Callable[[LogitLens], Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        call(lens)
    assert "\n" not in str(error.value)


def test_nan_weights_are_named_when_a_lens_is_made_and_when_it_reads() -> None:
    model = tiny.model()
    lens = LogitLens(model)
    model.layers[2].mlp.up_proj.weight = model.layers[2].mlp.up_proj.weight * float("nan")
    with pytest.raises(BrokenExperiment, match="NaN from L2 on"):
        lens.read(PROMPTS)
    with pytest.raises(BrokenExperiment, match=r"llama.*NaN"):
        LogitLens(model)


def test_a_model_without_blocks_is_refused() -> None:
    with pytest.raises(NotMeasurable, match=r"Linear.*layers"):
        LogitLens(nn.Linear(3, 4))


# What a lens must not do. Each of these is a lens that lies; the proof must not let it be made.


@contextmanager
def _without_final_norm(patch: pytest.MonkeyPatch) -> Iterator[None]:
    real = stream.Trunk.finish

    def finish(self: stream.Trunk, state: Any) -> mx.array:
        with stream.observed([(self.model.model.norm, lambda call, args, kwargs: args[0])]):
            return real(self, state)

    patch.setattr(stream.Trunk, "finish", finish)
    yield


@contextmanager
def _without_mask(patch: pytest.MonkeyPatch) -> Iterator[None]:
    real = stream.Trunk.observe

    @contextmanager
    def observe(self: stream.Trunk, middles: Any = None) -> Iterator[stream.Seen]:
        def unmasked(call: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            return call(args[0], None, **kwargs)

        with real(self, middles) as seen, stream.observed([(b, unmasked) for b in self.model.layers]):
            yield seen

    patch.setattr(stream.Trunk, "observe", observe)
    yield


@contextmanager
def _without_soft_cap(patch: pytest.MonkeyPatch) -> Iterator[None]:
    real = stream.Trunk.finish

    def finish(self: stream.Trunk, state: Any) -> mx.array:
        cap, self.model.final_logit_softcapping = self.model.final_logit_softcapping, 1e6
        try:
            return real(self, state)
        finally:
            self.model.final_logit_softcapping = cap

    patch.setattr(stream.Trunk, "finish", finish)
    yield


@contextmanager
def _with_last_layers_swapped(patch: pytest.MonkeyPatch) -> Iterator[None]:
    real = stream.Trunk.observe

    @contextmanager
    def observe(self: stream.Trunk, middles: Any = None) -> Iterator[stream.Seen]:
        with real(self, middles) as seen:
            yield seen
        # after the pass, which is when states are read
        seen.states[-2:] = seen.states[-2:][::-1]

    patch.setattr(stream.Trunk, "observe", observe)
    yield


@contextmanager
def _with_the_normed_state_read_again(patch: pytest.MonkeyPatch) -> Iterator[None]:
    real = stream.Trunk.pick

    def pick(self: stream.Trunk, state: Any, index: mx.array) -> Any:
        return self.model.model.norm(real(self, state, index))

    patch.setattr(stream.Trunk, "pick", pick)
    yield


LIES: dict[str, tuple[str, Callable[[pytest.MonkeyPatch], AbstractContextManager[None]]]] = {
    "drops the final norm": ("llama", _without_final_norm),
    "drops the mask": ("llama", _without_mask),
    "drops the soft-cap": ("gemma2", _without_soft_cap),
    "swaps two layers": ("llama", _with_last_layers_swapped),
    "reads the normed state twice": ("llama", _with_the_normed_state_read_again),
}


@pytest.mark.parametrize(("name", "lie"), LIES.values(), ids=LIES.keys())
def test_a_lens_that_lies_is_refused(name: str, lie: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = architectures.build(name)
    assert LogitLens(model).proof.last_layer < 1e-5
    with lie(monkeypatch), pytest.raises(NotMeasurable, match=name):
        LogitLens(model)


def test_swapped_inner_layers_would_be_seen() -> None:
    model = tiny.model(n_layers=5)
    right = _by_hand(model, PROMPTS[0])[:, -1]
    found = LogitLens(model).logits(PROMPTS[:1])[:, 0]
    assert np.abs(found[[0, 2, 1, 3, 4]] - right).max() > 0.1


def test_a_model_that_sees_the_future_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlx_lm.models.llama.create_attention_mask", lambda *args, **kwargs: None)
    with pytest.raises(NotMeasurable, match="sees the tokens after it"):
        LogitLens(tiny.model())


def test_a_proof_prints_what_was_measured() -> None:
    text = str(proof.prove(tiny.model()))
    assert text.startswith("llama: 4 layers, float32")
    for name in ("last layer", "inert", "batched", "causal", "padded", "cached", "midpoints"):
        assert name in text


def test_tidy_rows_and_the_table_say_what_the_arrays_say(lens: LogitLens) -> None:
    found = lens.read(PROMPTS, SETS, positions="all", token_ids=[7])
    frame = found.to_pandas()
    assert len(frame) == 5 * sum(map(len, PROMPTS))
    row = frame[(frame["layer"] == "L2") & (frame["prompt"] == 3) & (frame["position"] == 4)].iloc[0]
    assert row["mass add"] == pytest.approx(np.exp(found.log_mass[2, 3, 4, 0]))
    assert row["rank 7"] == found.ranks[2, 3, 4, 0]
    assert row["token"] == 15
    assert "layer × prompt × position = 5 × 5 × 5" in repr(found)
    assert "rows more" in repr(found)


def test_a_drawing_has_the_fed_tokens_and_the_likeliest_and_is_escaped(lens: LogitLens) -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tiny.tokenizer())
    drawing = lens.show("<b>2 & 3", tokenizer)
    assert drawing.ids == tuple(tokenizer.encode("<b>2 & 3"))
    reading = lens.read([drawing.ids], positions="all", top_k=1)
    assert tokenizer.decode([reading.top_ids[4, 0, 2, 0]]).strip() in drawing.tops[4][2]
    markup = drawing._repr_html_()
    assert "<b>" not in markup
    assert "&lt;" in markup
    assert "&amp;" in markup
    assert f"={drawing.ids[0]}" in str(drawing)
    assert "L4" in str(drawing)


def test_a_chat_template_is_used_when_asked_and_missed_when_absent(lens: LogitLens) -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tiny.tokenizer())
    with pytest.raises(UsageError, match="no chat template"):
        lens.show("2", tokenizer, chat=True)
    tokenizer.chat_template = "answer {% for m in messages %}{{ m['content'] }}{% endfor %}"
    assert lens.show("2", tokenizer, chat=True).ids == tuple(tokenizer.encode("answer 2"))


def _close(found: np.ndarray, right: np.ndarray) -> None:
    np.testing.assert_allclose(found, right, atol=1e-4)


def _same(found: lens_module.LensReading, right: lens_module.LensReading) -> None:
    for name in ("log_mass", "top_log_probs", "entropy", "kl", "kl_previous", "log_probs"):
        np.testing.assert_allclose(getattr(found, name), getattr(right, name), atol=1e-4, err_msg=name)
    np.testing.assert_array_equal(found.top_ids, right.top_ids)
    np.testing.assert_array_equal(found.ranks, right.ranks)
