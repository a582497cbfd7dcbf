"""Patching finds where a model hands on what it uses, on models whose inside is known."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import tiny

from emergence.errors import UsageError
from emergence.interventions import interchange, patch, random_basis
from emergence.lens.edits import Edit
from emergence.lens.logit_lens import LogitLens

WIDTH, USED, IDLE = 16, 3, 5
TOKENS = [[1, 4], [2, 4], [3, 4]]


class Block(nn.Module):
    """Adds to each position one linear map of its stream, and another of the position before."""

    def __init__(self, here: np.ndarray, before: np.ndarray):
        super().__init__()
        self.here, self.before = mx.array(here), mx.array(before)

    def __call__(self, x, mask=None, cache=None):
        shifted = mx.concatenate([mx.zeros_like(x[:, :1]), x[:, :-1]], axis=1)
        return x + x @ self.here + shifted @ self.before


class Model(nn.Module):
    """Two blocks: the first moves the token's mark from the first position to the last, in direction USED.

    It also writes the mark into direction IDLE, which the head would read out, and the second block wipes it.
    """

    model_type = "known"

    def __init__(self):
        super().__init__()
        marks = np.zeros((8, WIDTH), np.float32)
        marks[1:4, 0] = [-1.0, 1.0, 2.0]
        move, wipe = np.zeros((2, WIDTH, WIDTH), np.float32)
        move[0, USED] = move[0, IDLE] = 1.0
        wipe[IDLE, IDLE] = -1.0
        none = np.zeros_like(move)
        self.embed = nn.Embedding(8, WIDTH)
        self.embed.weight = mx.array(marks)
        self.layers = [Block(none, move), Block(wipe, none)]
        self.head = nn.Linear(WIDTH, 8, bias=False)
        out = np.zeros((8, WIDTH), np.float32)
        out[6, [USED, IDLE]], out[7, [USED, IDLE]] = 1.0, -1.0
        self.head.weight = mx.array(out)

    def __call__(self, tokens, cache=None):
        x = self.embed(tokens)
        for block in self.layers:
            x = block(x)
        return self.head(x)


@pytest.fixture(scope="module")
def lens() -> LogitLens:
    return LogitLens(Model())


def test_it_is_carried_where_it_is_and_nowhere_else(lens: LogitLens) -> None:
    base, source = [[1, 4], [1, 4]], [[2, 4], [3, 4]]
    found = patch(lens, base, source, [[7, 6], [7, 6]], ["embedding", 0, 1], positions=(0, -1))
    assert np.allclose(found.carried, [[1, 0], [0, 1], [0, 1]], atol=1e-5)
    assert np.allclose(found.switched, [[1, 0], [0, 1], [0, 1]])
    assert found.layers == ("embedding", "L0", "L1")


@pytest.mark.parametrize(("direction", "share"), [(USED, 1.0), (IDLE, 0.0)])
def test_a_direction_that_can_be_read_and_is_not_used_carries_nothing(
    lens: LogitLens, direction: int, share: float
) -> None:
    basis = np.eye(WIDTH, dtype=np.float32)[[direction]]
    base, source = [[1, 4]], [[3, 4]]
    own, other = (lens.logits(x)[:, 0] for x in (base, source))
    assert own[0, 7] > own[0, 6], "both directions are read out after the first block"
    streams = lens.streams(source, [0])[0]
    with lens.patched([Edit(0, -1, interchange(streams, basis))]):
        changed = lens.logits(base)[:, 0]
    assert abs(changed[0, 6] - own[0, 6]) > 1, "the lens sees the change"
    moved = (changed[-1, 6] - changed[-1, 7]) - (own[-1, 6] - own[-1, 7])
    whole = (other[-1, 6] - other[-1, 7]) - (own[-1, 6] - own[-1, 7])
    assert moved / whole == pytest.approx(share, abs=1e-5)


def test_random_directions_carry_their_share_and_no_more(lens: LogitLens) -> None:
    """A subspace of k of n dimensions carries k / n of what is there, on average."""
    base, source = [[1, 4]], [[3, 4]]
    own, other = (lens.logits(x)[-1, 0, 6] for x in (base, source))
    streams = lens.streams(source, [0])[0]
    shares = []
    for draw in range(60):
        with lens.patched([Edit(0, -1, interchange(streams, random_basis(4, WIDTH, draw)))]):
            shares.append((lens.logits(base)[-1, 0, 6] - own) / (other - own))
    assert abs(np.mean(shares) - 4 / WIDTH) < 0.1


def test_what_is_said_is_the_models_own_probability() -> None:
    lens = LogitLens(tiny.model())
    base, source = [[3, 1, 4], [9, 2, 6]], [[2, 7, 1], [5, 5, 5]]
    ids = [[10, 11], [12, 10]]
    found = patch(lens, base, source, ids, layers=[-1], positions=(-1,))
    for prompts, said in ((base, found.base), (source, found.source)):
        z = lens.logits(prompts)[-1].astype(np.float64)
        log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
        assert np.allclose(said, np.take_along_axis(log_p, np.array(ids), axis=1), atol=1e-4)
    assert np.allclose(found.log_probs[0, 0], found.source, atol=1e-5), "the last layer's patch is the source"
    assert np.allclose(found.carried, 1.0, atol=1e-4)


@pytest.mark.parametrize(
    ("base", "source", "ids", "message"),
    [
        ([[1, 4]], [[2, 4], [3, 4]], [[6, 7]], "1 base prompts, 2 source prompts"),
        ([[1, 4]], [[2, 4, 4]], [[6, 7]], "a base prompt of 2 tokens with a source of 3"),
        ([[1, 4]], [[2, 4]], [[6, 7, 1]], "give one source and two tokens a base prompt"),
    ],
)
def test_prompts_that_make_no_pair_are_told(lens: LogitLens, base, source, ids, message) -> None:
    with pytest.raises(UsageError, match=message):
        patch(lens, base, source, ids)
