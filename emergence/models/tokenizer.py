"""Models stage: the tokenizer of a model folder, held against the model that it belongs to.

In: a folder, its configuration, the rows of the model's embedding. Out: mlx-lm's wrapper around it, which
ends a text where the configuration says so. Ids that have no row are refused or told: MLX reads past the
end in silence.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.utils import load_tokenizer

from ..errors import BrokenExperiment, NotMeasurable
from ..tasks import encoding
from ..wording import first_line
from . import folders

_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
_OTHERS = {"tiktoken.model": "tiktoken", "*.tiktoken": "tiktoken", "tekken.json": "tekken"}
_PROBE = "7 * 8 = 56. What is the answer?"


def load(folder: Path, config: dict[str, Any], rows: int) -> TokenizerWrapper:
    """The folder's tokenizer; `config` says which ids end a text, `rows` how many ids have a vector.

    Raises
    ------
    NotMeasurable
        The folder holds it in a form that only its own code or another package reads.
    BrokenExperiment
        There is none, it cannot be read, or it belongs to another model.
    """
    _refuse_missing(folder)
    ends = _ends(folder, config)
    try:
        read: Any = load_tokenizer
        tokenizer: TokenizerWrapper = read(folder, {"trust_remote_code": False}, ends or None)
        ids = tokenizer.encode(_PROBE, add_special_tokens=False)
    except Exception as error:  # `tokenizers` raises bare Exception
        line = first_line(error)
        raise BrokenExperiment(f"{folder}: its tokenizer cannot be read: {line}") from None
    if not ids or max(ids) >= rows:
        raise BrokenExperiment(
            f"{folder}: its tokenizer gives ids {ids[:5]}… for a model of {rows}; it belongs to another model"
        )
    if tokenizer.eos_token_id is None and ends and min(ends) < len(tokenizer):
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(min(ends))
    _refuse_marks(folder, tokenizer, rows)
    return tokenizer


def notices(tokenizer: TokenizerWrapper, rows: int) -> list[str]:
    """What a person should know: ids without a row, and a BOS that is asked for and not put."""
    lines = []
    beyond = sorted((i, token) for token, i in tokenizer.get_vocab().items() if i >= rows)
    if beyond:
        names = ", ".join(token for _, token in beyond[:3]) + (" …" if len(beyond) > 3 else "")
        lines.append(
            f"the tokenizer has {len(beyond)} tokens that the model has no row for ({names}, from id "
            f"{beyond[0][0]} on, of {rows}); a text that holds one cannot be computed"
        )
    return [*lines, *encoding.missing_bos(tokenizer)]


def _ends(folder: Path, config: dict[str, Any]) -> list[int]:
    """The ids that end a text, as the configurations name them; mlx-lm overlooks an id of 0."""
    path = folder / "generation_config.json"
    places = [folders.read_json(path) if path.exists() else {}, config, config.get("text_config") or {}]
    said: Any = next((ids for ids in (place.get("eos_token_id") for place in places) if ids is not None), [])
    return [i for i in (said if isinstance(said, list) else [said]) if isinstance(i, int)]


def _refuse_missing(folder: Path) -> None:
    if any((folder / name).is_file() for name in _FILES):
        return
    for pattern, kind in _OTHERS.items():
        if found := sorted(folder.glob(pattern)):
            raise NotMeasurable(
                f"{folder} holds its tokenizer as {kind} alone ({found[0].name}), which takes code of its "
                "own to read; use a conversion of this model with a tokenizer.json"
            )
    raise BrokenExperiment(f"{folder} holds no tokenizer ({', '.join(_FILES)}); copy one there")


def _refuse_marks(folder: Path, tokenizer: TokenizerWrapper, rows: int) -> None:
    """The tokens that begin and end a text are fed to the model, so each needs a row."""
    for kind in ("bos_token", "eos_token"):
        index = getattr(tokenizer, f"{kind}_id")
        if index is not None and index >= rows:
            raise BrokenExperiment(
                f"{folder}: its {kind} {getattr(tokenizer, kind)} has id {index}, and the model has rows for "
                f"{rows} ids; name another in tokenizer_config.json, or use the tokenizer of this very model"
            )
