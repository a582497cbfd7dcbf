"""A lens is proven when it is made: no lens that lies about its model can be had."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import architectures
import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import tiny
from lens_case import PROMPTS, by_hand

from emergence.errors import BrokenExperiment, NotMeasurable
from emergence.lens import proof
from emergence.lens.hooks import observed
from emergence.lens.kinds import WholeStateStream
from emergence.lens.logit_lens import LogitLens
from emergence.lens.residual import ResidualStream, Seen


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


@contextmanager
def _without_final_norm(patch: pytest.MonkeyPatch) -> Iterator[None]:
    real = ResidualStream.unembed

    def unembed(self: ResidualStream, state: Any) -> mx.array:
        with observed([(self.model.model.norm, lambda call, args, kwargs: args[0])]):
            return real(self, state)

    patch.setattr(ResidualStream, "unembed", unembed)
    yield


@contextmanager
def _without_mask(patch: pytest.MonkeyPatch) -> Iterator[None]:
    real = ResidualStream.observe

    @contextmanager
    def observe(self: ResidualStream, middles: Any = None) -> Iterator[Seen]:
        def unmasked(call: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            return call(args[0], None, **kwargs)

        with real(self, middles) as seen, observed([(b, unmasked) for b in self.model.layers]):
            yield seen

    patch.setattr(ResidualStream, "observe", observe)
    yield


@contextmanager
def _without_soft_cap(patch: pytest.MonkeyPatch) -> Iterator[None]:
    real = ResidualStream.unembed

    def unembed(self: ResidualStream, state: Any) -> mx.array:
        cap, self.model.final_logit_softcapping = self.model.final_logit_softcapping, 1e6
        try:
            return real(self, state)
        finally:
            self.model.final_logit_softcapping = cap

    patch.setattr(ResidualStream, "unembed", unembed)
    yield


@contextmanager
def _with_last_layers_swapped(patch: pytest.MonkeyPatch) -> Iterator[None]:
    real = ResidualStream.observe

    @contextmanager
    def observe(self: ResidualStream, middles: Any = None) -> Iterator[Seen]:
        with real(self, middles) as seen:
            yield seen
        # after the pass, which is when states are read
        seen.states[-2:] = seen.states[-2:][::-1]

    patch.setattr(ResidualStream, "observe", observe)
    yield


@contextmanager
def _with_the_normed_state_read_again(patch: pytest.MonkeyPatch) -> Iterator[None]:
    def normed(real: Any) -> Any:
        return lambda self, state, index: self.model.model.norm(real(self, state, index))

    for kind in (ResidualStream, WholeStateStream):
        patch.setattr(kind, "pick", normed(kind.pick))
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
    right = by_hand(model, PROMPTS[0])[:, -1]
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
