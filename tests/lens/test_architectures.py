"""The lens proves itself on every architecture of the installed mlx-lm; docs/architectures.md is what was
proven."""

from __future__ import annotations

import functools
import importlib.metadata
import os
from collections.abc import Iterator

import architectures
import mlx.core as mx
import numpy as np
import pytest
from places import ROOT

from emergence.errors import NotMeasurable
from emergence.lens.logit_lens import LogitLens
from emergence.lens.proof import Proof, prove

DOCS = ROOT / "docs" / "architectures.md"
REFUSED = {
    "bitnet": ("No Metal back-end", "its kernel is written for Metal only"),
    "muse_spark": ("No Metal back-end", "its kernel is written for Metal only"),
    "olmo": ("ai2-olmo", "mlx-lm takes the model from the package ai2-olmo, which it does not bring"),
    "phi3small": (
        "a token sees the tokens after it",
        "mlx-lm adds a boolean mask to the scores and so hides nothing: a token sees those after it",
    ),
}
"""Words of the refusal, and the reason."""
METAL_ONLY = ("bitnet", "muse_spark")
HEAD = """# Architectures

Every model type of mlx-lm {version}, as a tiny random model in float32. **Generated** by
`EMERGENCE_WRITE_DOCS=1 pytest tests/lens/test_architectures.py`; the same test fails when this table is no
longer true. `emergence models --check NAME` prints the proof for one model.

Of {total} types {passed} are read and {refused} are refused. Read means: the last layer, read out, is the
model's own logits; looking changes nothing; a prompt reads the same alone and in a batch; no token sees the
tokens after it.

- **layers**: what four blocks read as (five where the family needs them): a looped block counts once a pass.
- **padding**: tokens after the end change nothing. (The lens never pads: it groups prompts by length.)
- **cache**: one token at a time, with the family's cache, reads the same.
- **after attention**: layers with a stream of their own between attention and feed-forward part (`L13.attn`).
- **seen**: `blocks`: a block's output is the stream; `unrolled`: the model runs the parts of its blocks by
  itself, and the stream is seen at their inputs; `whole state`: the logits depend on more than one
  stream, and the unembedding is given all of it.

| type | layers | padding | cache | after attention | seen |
| --- | --- | --- | --- | --- | --- |
"""


@pytest.fixture(autouse=True, scope="module")
def _no_compiler() -> Iterator[None]:
    """On the CPU, MLX calls a C++ compiler for each fused function; the numbers are the same without."""
    mx.disable_compile()
    yield
    mx.enable_compile()


@functools.cache
def _proof(name: str) -> Proof:
    return prove(architectures.build(name))


def _is_refused(name: str) -> bool:
    return name in REFUSED and not (name in METAL_ONLY and mx.metal.is_available())


READ = [name for name in architectures.types() if not _is_refused(name)]


@pytest.mark.parametrize("name", READ)
def test_the_last_layer_of_every_architecture_is_its_logits(name: str) -> None:
    proof = _proof(name)
    assert proof.last_layer < 1e-5
    assert proof.inert == 0
    assert proof.batched < 1e-5
    assert proof.causal < 1e-5


@pytest.mark.parametrize("name", [name for name in architectures.types() if _is_refused(name)])
def test_what_cannot_be_read_is_refused_with_the_reason(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises((NotMeasurable, SystemExit)) as error:
        prove(architectures.build(name))
    assert REFUSED[name][0] in str(error.value) + capsys.readouterr().out


def test_at_least_ninety_architectures_are_read() -> None:
    assert len(READ) >= 90


@pytest.mark.parametrize(
    "name", ["llama", "gemma2", "gemma3n", "iquestloopcoder", "jamba", "deepseek_v41", "phi"]
)
def test_logits_of_prompts_of_unequal_length_are_the_models(name: str) -> None:
    model = architectures.build(name)
    prompts = [[3, 1, 4, 1, 5, 9], [2, 7], [1, 8, 2, 8, 1, 8], [6]]
    own = np.stack([np.array(model(mx.array([p]))[0, -1]) for p in prompts])
    np.testing.assert_allclose(LogitLens(model).logits(prompts)[-1], own, atol=2e-5)


def test_the_documented_table_is_what_was_proven() -> None:
    rows = []
    for name in architectures.types():
        if name in REFUSED:
            rows.append(f"| {name} | refused: {REFUSED[name][1]} | | | | |")
            continue
        proof = _proof(name)
        cache = "yes" if proof.holds("cached") else "no"
        padding = "yes" if proof.holds("padded") else "no"
        cells = (name, proof.n_layers, padding, cache, proof.midpoints or "none", proof.seen)
        rows.append(f"| {' | '.join(map(str, cells))} |")
    head = HEAD.format(
        version=importlib.metadata.version("mlx-lm"),
        total=len(rows),
        passed=len(rows) - len(REFUSED),
        refused=len(REFUSED),
    )
    table = head + "\n".join(rows) + "\n"
    if os.environ.get("EMERGENCE_WRITE_DOCS"):
        DOCS.write_text(table)
    assert DOCS.read_text() == table, "docs/architectures.md is stale: EMERGENCE_WRITE_DOCS=1 writes it anew"
