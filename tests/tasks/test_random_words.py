"""Random words: as many, as frequent and of the same forms as the real ones, and none of them."""

from itertools import combinations

import pytest
import tiny
from tokenizer_kinds import KINDS, VOCABULARY, audit, kind
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from emergence.errors import NotMeasurable
from emergence.tasks.random_words import random_words


@pytest.fixture(params=KINDS)
def tokenizer(request):
    return kind(request.param)


def test_random_words_have_no_id_in_common_with_each_other_or_with_the_vocabulary(tokenizer):
    audited = audit(tokenizer, VOCABULARY)
    sets = random_words(tokenizer, audited, 3, seed=0)
    every = [set(ids) for ids in sets.values()]
    every += [set(ids) for part in (audited.words, audited.glyphs) for ids in part.values()]
    assert all(not one & other for one, other in combinations(every, 2))
    for i in {i for ids in sets.values() for i in ids}:
        assert tokenizer.decode([i]).strip().isalpha()


def test_random_words_are_seeded():
    audited = audit(tiny.tokenizer(), VOCABULARY)
    draws = [random_words(tiny.tokenizer(), audited, 3, seed) for seed in (0, 0, 1)]
    assert draws[0] == draws[1]
    assert draws[0] != draws[2]


def _ranked() -> Tokenizer:
    """A vocabulary of 4000 made-up words, every one in all four variants, in order of frequency."""
    letters = [*"bcdfghjklmnprstvwz"]
    words = [
        a + v + b + w + c for a in letters for v in "aeiou" for b in letters[:9] for w in "ou" for c in "nrs"
    ]
    known = [w for ws in VOCABULARY.values() for w in ws if w.isalpha()]
    words = words[:2000] + known + words[2000:4000]
    pieces = [x for w in words for x in (w, f"Ġ{w}", w.capitalize(), f"Ġ{w.capitalize()}")]
    raw = Tokenizer(
        models.WordLevel({p: i for i, p in enumerate([*pieces, "+", "-", "*", "Ċ"])}, unk_token="Ċ")
    )
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    return raw


def test_random_words_match_the_real_ones_in_frequency_and_variants():
    tokenizer = _ranked()
    audited = audit(tokenizer, VOCABULARY)
    sets = random_words(tokenizer, audited, 6, seed=3)
    for k, ids in enumerate(sets.values()):
        real = audited.words[list(VOCABULARY)[k % 3]]
        assert len(ids) == len(real)
        # 6 sets of 3 words among the 40 nearest of 4 variants each: never further than a few hundred ids.
        assert max(min(abs(i - r) for r in real) for i in ids) < 400
        spaced = sum(tokenizer.id_to_token(i).startswith("Ġ") for i in ids)
        assert spaced == len(ids) // 2


def test_random_words_where_there_are_too_few_are_refused():
    raw = Tokenizer(models.WordLevel({"<unk>": 0, "add": 1, "minus": 2, "+": 3, "-": 4}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    audited = audit(raw, {"add": ("add",), "subtract": ("minus",)})
    with pytest.raises(NotMeasurable, match="too few words to match 'add'"):
        random_words(raw, audited, 1, 0)
