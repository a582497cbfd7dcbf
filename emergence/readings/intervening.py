"""Exchanges the last token's stream between prompts that differ in their class alone, at every layer.

In: a lens on a checkpoint, the plan's pairs, what claims ask of the arm. Out: `Effects`. Subspaces are made
of the prompts of one half and used on the pairs of the other; none is optimised for what it does. Beside each
exchange stand placebos: changes of the same size, pair by pair, along the difference of two prompts of the
base's own class.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import mlx.core as mx
import numpy as np
from jaxtyping import Float, Int

from ..errors import BrokenExperiment, NotMeasurable
from ..interventions.bases import mean_difference_basis, readout_basis
from ..interventions.last_token import LastToken
from ..interventions.patching import patch
from ..interventions.rules import Basis, interchange, placebo
from ..lens.edits import Rule
from ..lens.logit_lens import LogitLens
from ..lens.places import slices
from .bands import layers
from .effects import PLACEBOS, STREAM, WORDS, Effects
from .plan import Plan

Asked = Sequence[tuple[str, str]]
"""Parts of the stream and bands of depth that the claims about an arm speak of."""
BASE, SOURCE, OTHER = range(3)
MAPPED = 10
"""Pairs of a class among which the one that is shown position by position is chosen."""
FEWEST = 2
"""Prompts of a class in each half with which anything is exchanged; verdicts ask for more."""
AT_ONCE = 64
MOST_ROWS = 16
"""Layers of a map; of more blocks every other one is exchanged."""


def intervene(
    lens: LogitLens,
    plan: Plan,
    asked: Asked,
    with_maps: bool = False,
    advance: Callable[[], None] = lambda: None,
) -> Effects:
    """The effects on the model as it is now, told of by `advance` as often as `passes` says.

    The whole stream is exchanged at every layer; subspaces, and placebos, at the layers of the bands. With
    `with_maps`, a pair of each class has every position exchanged by itself, too, for people to look at.
    """
    try:
        exchange = _Exchange(lens, plan, advance)
        found = exchange.effects(_wanted(asked, lens.n_layers))
    except NotMeasurable as refused:
        none = np.zeros((lens.n_layers, 0), np.float32)
        both = np.zeros((lens.n_layers, 0, 2), np.float32)
        no_pairs = np.zeros((0, 2), np.int64)
        return Effects(no_pairs, none[0], {STREAM: none}, {}, none, both, both[0], *_no_maps(), str(refused))
    return exchange.with_maps(found) if with_maps else found


def passes(asked: Asked, n_layers: int) -> int:
    """How often all pairs go through what is left of the model after a layer."""
    wanted = _wanted(asked, n_layers)
    changes = sum(len(at) * (PLACEBOS + (part != STREAM)) for part, at in wanted.items())
    return 2 * n_layers + changes


def _wanted(asked: Asked, n_layers: int) -> dict[str, list[int]]:
    """The layers of each part, of all bands that are asked for."""
    found: dict[str, set[int]] = {}
    for part, band in asked:
        found.setdefault(part, set()).update(layers(band, n_layers))
    return {part: sorted(at) for part, at in found.items()}


def _no_maps() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """`shown`, `map_layers`, `maps` and `map_ids` where there are none."""
    none = np.zeros(0, np.int64)
    return none, none, np.zeros((0, 0, 0), np.float32), np.zeros((0, 2, 0), np.int64)


class _Exchange:
    """The plan's pairs on one checkpoint."""

    def __init__(self, lens: LogitLens, plan: Plan, advance: Callable[[], None]):
        self.lens, self.plan, self.advance = lens, plan, advance
        self.members = sorted({i for pair in plan.pairs for i in pair if i >= 0})
        ids = [list(plan.prompt_ids[i]) for i in self.members]
        row = {prompt: k for k, prompt in enumerate(self.members)}
        rows = [[row[i] if i >= 0 else row[pair[SOURCE]] for i in pair] for pair in plan.pairs]
        self.rows = np.array(rows, dtype=np.int64).reshape(-1, 3)
        self.cls = np.array([plan.prompts[i].cls for i in self.members])
        self.half = np.array([plan.prompts[i].half for i in self.members])
        self._require_enough()
        self.base = LastToken(lens, [ids[r] for r in self.rows[:, BASE]])
        self.streams: Float[np.ndarray, "layer member hidden"] = np.asarray(lens.streams(ids), np.float32)
        said, z = _said(lens, ids)
        self.tokens: Int[np.ndarray, "pair three"] = said[self.rows]
        """What the model says first after the base prompt, after its source, after another prompt."""
        column = np.searchsorted(np.unique(said), self.tokens)
        own, source, other = (z[self.rows[:, [k]], column] for k in (BASE, SOURCE, OTHER))
        self.before = own
        self.whole = _odds(source, SOURCE) - _odds(own, SOURCE)
        self.crossed_whole = np.stack([self.whole, _odds(other, OTHER) - _odds(own, OTHER)], axis=1)
        # Of two answers that are one token none can be told from the other: such a pair weighs nothing.
        base, theirs, others = self.tokens.T
        self.alike = (base == theirs) | (base == others) | (theirs == others)
        self.crossed_whole[self.alike] = 0.0
        self.crossed_whole[[pair[OTHER] < 0 for pair in plan.pairs]] = np.nan

    def _require_enough(self) -> None:
        """Planes are made of the other half, placebos of two prompts of a class."""
        fewest = {
            cls: min(int(((self.cls == cls) & (self.half == half)).sum()) for half in (0, 1))
            for cls in self.plan.classes
            if not len(self.cls) or cls in self.cls
        }
        for cls, n in fewest.items():
            if n < FEWEST:
                raise NotMeasurable(
                    f"{n} prompts of {cls} in one half have a counterpart of as many tokens whose answer "
                    f"begins otherwise; {FEWEST} are needed"
                )

    def effects(self, wanted: dict[str, list[int]]) -> Effects:
        n_layers, n = self.lens.n_layers, len(self.rows)
        gained = {part: np.full((n_layers, n), np.nan, np.float32) for part in (STREAM, *wanted)}
        placebos = {part: np.full((n_layers, PLACEBOS, n), np.nan, np.float32) for part in wanted}
        left = np.full((n_layers, n), np.nan, np.float32)
        crossed = np.full((n_layers, n, 2), np.nan, np.float32)
        for layer in range(n_layers):
            gained[STREAM][layer] = self._gained(layer, self._at(layer, SOURCE))[:, 0]
            crossed[layer] = self._gained(layer, self._at(layer, OTHER))
            for part in (part for part, at in wanted.items() if layer in at):
                rules = self._rules(part, layer)
                if part != STREAM:
                    changed = self._changed(layer, rules)
                    gained[part][layer] = self._gained(layer, changed)[:, 0]
                    if part == WORDS:
                        left[layer] = self._left(changed)
                for draw in range(PLACEBOS):
                    changed = self._changed(layer, rules, draw)
                    placebos[part][layer, draw] = self._gained(layer, changed)[:, 0]
        crossed[:, self.alike] = 0.0
        crossed[:, np.isnan(self.crossed_whole[:, 1])] = np.nan
        pairs = np.array([pair[:2] for pair in self.plan.pairs])
        return Effects(pairs, self.whole, gained, placebos, left, crossed, self.crossed_whole, *_no_maps())

    def with_maps(self, found: Effects) -> Effects:
        """The same, with every position of one pair a class exchanged: of the first, that with most to gain.

        All have prompts of the commonest length, so that they go through the model together.
        """
        lengths = np.array([len(self.plan.prompt_ids[pair.base]) for pair in self.plan.pairs])
        cls, common = self.cls[self.rows[:, BASE]], lengths == np.bincount(lengths).argmax()
        candidates = [np.flatnonzero(common & (cls == one))[:MAPPED] for one in dict.fromkeys(cls.tolist())]
        shown = np.array([here[self.whole[here].argmax()] for here in candidates if len(here)])
        at = np.arange(self.lens.n_layers - 1, -1, -1 if self.lens.n_layers <= MOST_ROWS else -2)[::-1]
        ids = np.array([[self.plan.prompt_ids[i] for i in self.plan.pairs[k][:2]] for k in shown])
        return replace(found, shown=shown, map_layers=at, maps=self._maps(shown, at, ids), map_ids=ids)

    def _maps(
        self, shown: Int[np.ndarray, " map"], at: Int[np.ndarray, " row"], ids: Int[np.ndarray, "map two n"]
    ) -> Float[np.ndarray, "map row n"]:
        """What the source's stream brings over, by layer and position; nothing where the two are the same."""
        base, source = (ids[:, which].tolist() for which in (BASE, SOURCE))
        first = int((ids[:, BASE] != ids[:, SOURCE]).any(axis=0).argmax())
        positions, tokens = list(range(first, ids.shape[2])), self.tokens[shown, :2]
        read = patch(self.lens, base, source, tokens, [int(i) for i in at], positions)
        own = read.base[:, 1] - read.base[:, 0]
        found = np.zeros((len(shown), len(at), ids.shape[2]), np.float32)
        gained = read.log_probs[..., 1] - read.log_probs[..., 0] - own
        found[..., first:] = np.moveaxis(gained, 2, 0)
        return found

    def _at(self, layer: int, which: int) -> Float[np.ndarray, "pair hidden"]:
        return np.asarray(self.streams[layer][self.rows[:, which]])

    def _gained(self, layer: int, vectors: np.ndarray) -> Float[np.ndarray, "pair two"]:
        """Log-odds gained by the source's token and by the other's, against the base's own."""
        after = self.base.logits(self.tokens, layer, vectors)
        if not np.isfinite(after).all():
            raise BrokenExperiment(f"NaN or infinity after an exchange at L{layer}; the weights are damaged")
        self.advance()
        return np.stack([_odds(after, k) - _odds(self.before, k) for k in (SOURCE, OTHER)], axis=1)

    def _rules(self, part: str, layer: int) -> dict[tuple[str, int], tuple[Rule, Basis | None]]:
        """By class and half of the base prompt: what is exchanged there, made of the other half's prompts."""
        found: dict[tuple[str, int], tuple[Rule, Basis | None]] = {}
        source = self._at(layer, SOURCE)
        for half in sorted({*self.half.tolist()}):
            basis = self._basis(part, layer, self.half != half)
            for cls in dict.fromkeys(self.cls.tolist()):
                found[cls, half] = interchange(source, basis), basis
        return found

    def _basis(self, part: str, layer: int, known: np.ndarray) -> Basis | None:
        streams = self.streams[layer][known]
        if part == STREAM:
            return None
        if part == WORDS:
            words = self.plan.words[self.plan.prompts[self.members[0]].style]
            sets = [words[cls] for cls in self.plan.classes]
            return readout_basis(self.lens, streams.mean(axis=0), sets)
        return mean_difference_basis(streams, self.cls[known])

    def _changed(
        self, layer: int, rules: dict[tuple[str, int], tuple[Rule, Basis | None]], draw: int | None = None
    ) -> Float[np.ndarray, "pair hidden"]:
        """The base prompts' streams after the exchange, or after a placebo of it."""
        base = self._at(layer, BASE)
        changed, row = base.copy(), self.rows[:, BASE]
        for (cls, half), (rule, basis) in rules.items():
            here = np.flatnonzero((self.cls[row] == cls) & (self.half[row] == half))
            if draw is not None:
                pool = self.streams[layer][self.cls == cls]
                rule = placebo(rule, "natural", draw, pool, basis)
            if len(here):
                changed[here] = np.array(rule(mx.array(base[here][:, None]), here.tolist()))[:, 0]
        return changed

    def _left(self, changed: np.ndarray) -> Float[np.ndarray, " pair"]:
        """Mass on the own class's words, as the logit lens reads the changed streams."""
        words = self.plan.words[self.plan.prompts[self.members[0]].style]
        own = [mx.array(list(words[cls])) for cls in self.cls[self.rows[:, BASE]]]
        left = []
        for part in slices(len(own), AT_ONCE):
            z = self.lens.unembed(mx.array(changed[part]))[:, : self.lens.vocab_size].astype(mx.float32)
            log_p = z - mx.logsumexp(z, axis=1, keepdims=True)
            left += [float(mx.exp(mx.logsumexp(log_p[i, w]))) for i, w in enumerate(own[part])]
        return np.array(left)


def _said(
    lens: LogitLens, ids: Sequence[Sequence[int]]
) -> tuple[Int[np.ndarray, " prompt"], Float[np.ndarray, "prompt said"]]:
    """The token that the model says first after each prompt, and the logits of all of these, in their order.

    Some prompts at a time: the logits of hundreds over a vocabulary of 262,144 are half a gigabyte.
    """
    parts = [ids[part] for part in slices(len(ids), AT_ONCE)]
    said = np.concatenate([lens.logits(p, [-1])[0, :, : lens.vocab_size].argmax(axis=1) for p in parts])
    return said, np.concatenate([lens.logits(p, [-1])[0][:, np.unique(said)] for p in parts])


def _odds(z: Float[np.ndarray, "pair three"], which: int) -> Float[np.ndarray, " pair"]:
    return np.asarray(z[:, which] - z[:, BASE])
