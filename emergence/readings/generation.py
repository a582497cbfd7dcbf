"""What a model writes after a prompt, by mlx-lm's own generation, always the likeliest token.

Teacher forcing says whether each token of an answer is the likeliest after the right ones before it; this
says what a user of the model would see.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlx_lm.generate import batch_generate, stream_generate
from mlx_lm.tokenizer_utils import TokenizerWrapper

from ..backend import numpy_ops
from ..lens.hooks import evaluating

_AT_ONCE = 128


def generated(model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], most: int) -> list[str]:
    """The text that follows each prompt, up to the end of text or `most` tokens.

    Families whose caches mlx-lm cannot batch are asked one prompt at a time.
    """
    wrapped = tokenizer if isinstance(tokenizer, TokenizerWrapper) else TokenizerWrapper(tokenizer)
    asked = [list(ids) for ids in prompts]
    texts: list[str] = []
    with evaluating(model), numpy_ops.fast(model):
        for start in range(0, len(asked), _AT_ONCE):
            texts += _texts(model, wrapped, asked[start : start + _AT_ONCE], most)
    return texts


def _texts(model: Any, tokenizer: Any, prompts: list[list[int]], most: int) -> list[str]:
    sizes: dict[str, Any] = {"prefill_batch_size": _AT_ONCE, "completion_batch_size": _AT_ONCE}
    try:
        return list(batch_generate(model, tokenizer, prompts, max_tokens=most, **sizes).texts)
    except ValueError:  # "... does not yet support batching"
        return ["".join(r.text for r in stream_generate(model, tokenizer, ids, most)) for ids in prompts]
