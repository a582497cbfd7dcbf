"""Any model: the tokenizer files of the families on the hub, read as their models were trained on them."""

from __future__ import annotations

import json

import mlx.core as mx
import pytest
import tiny
import tokenizers_small
from mlx.utils import tree_flatten
from mlx_lm.tokenizer_utils import TokenizerWrapper
from tokenizer_kinds import audit
from tokenizers_small import FAMILIES

from emergence.models import loading as models
from emergence.tasks import encoding
from emergence.tasks.arithmetic import Problem

TEXTS = [
    "7 * 8 = ",
    "What is 12 plus 345? ",
    "12 + 345 = 357",
    " leading",
    "two  spaces",
    "naïve café 🙂\n",
    "x\ty",
]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple:
    """A tiny model with the family's tokenizer files: its name, the tokenizer as built, and as loaded."""
    folder = tiny.write_model(tmp_path_factory.mktemp("model"), n_layers=1, hidden=16)
    built = tokenizers_small.write(folder, request.param)
    size = built.get_vocab_size()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": size}))
    weights = dict(tree_flatten(tiny.model(n_layers=1, hidden=16, vocab=size).parameters()))
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    return request.param, built, models.load(folder)[1]


def test_loading_keeps_the_tokenizer_as_its_file_says(family: tuple) -> None:
    name, built, loaded = family
    for text in TEXTS:
        if name == "llama-2" and text.startswith(" "):
            continue  # transformers writes one ▁ there, the file two; no prompt begins so
        expected = built.encode(text, add_special_tokens=False).ids
        assert loaded.encode(text, add_special_tokens=False) == expected, text


def test_a_prompt_begins_as_the_family_begins(family: tuple) -> None:
    name, built, loaded = family
    ids = encoding.encode_prompt(loaded, "7 * 8 = ")
    bare = tuple(built.encode("7 * 8 = ", add_special_tokens=False).ids)
    bos = FAMILIES[name].bos
    assert ids == (((built.token_to_id(bos),) if bos else ()) + bare)


@pytest.mark.parametrize("style", ["symbolic", "worded"])
def test_prompt_and_answer_meet_without_a_seam_and_read_back(family: tuple, style: str) -> None:
    name, _, loaded = family
    problems = [
        Problem("add", 12, 345),
        Problem("subtract", 180, 3),
        Problem("multiply", 7, 8),
    ]
    for problem, row in zip(problems, encoding.rows(loaded, problems, [style]), strict=True):
        text = loaded.decode([*row.prompt_ids, *row.answer_ids[:-1]], skip_special_tokens=True)
        assert text.removeprefix(" ") == problem.prompt(style) + problem.answer
        assert row.answer_ids[-1] == loaded.eos_token_id
        digits = FAMILIES[name].digits
        first = loaded.decode([row.answer_ids[0]]).strip()
        assert first == problem.answer[:digits]


def test_every_class_has_words_of_one_token(family: tuple) -> None:
    _, _, loaded = family
    vocabulary = audit(loaded, {"add": ("plus", "sum", "+"), "multiply": ("times", "product", "*")})
    assert all(vocabulary.words.values())
    assert all(vocabulary.glyphs.values())


def test_loaded_tokenizers_are_of_mlx_lm(family: tuple) -> None:
    assert isinstance(family[2], TokenizerWrapper)
