"""Models stage: fields that mlx-lm asks for and transformers says in other words.

In: transformers' reading of a configuration. Out: the value of one of mlx-lm's fields, or NOTHING.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import PreTrainedConfig

from .architecture import Architecture

NOTHING = object()
PERIODS = ("sliding_window_pattern", "full_attention_interval")
"""Fields that say every which layer sees the whole prompt."""
_OLDER = {"linear_attention": "mamba", "full_attention": "attention"}


def said(theirs: PreTrainedConfig, name: str, default: Any = None) -> Any:
    """A field's value for transformers, that of all layers where single ones have another."""
    name = type(theirs).attribute_map.get(name, name)
    if name in vars(theirs):
        return vars(theirs)[name]
    try:
        return getattr(theirs, name)
    except Exception:  # a property may raise whatever it likes
        return default


def value(name: str, theirs: PreTrainedConfig, explicit: bool = True) -> Any:
    """Transformers' value for a field of mlx-lm's; `explicit=False` leaves out what the file says of it."""
    own = said(theirs, name, NOTHING) if explicit else NOTHING
    if name.startswith("global_") and said(theirs, "per_layer_config") is not None:
        kinds = said(theirs, "layer_types") or []
        full = theirs.per_layer_config[kinds.index("full_attention") if "full_attention" in kinds else 0]
        return getattr(full, name.removeprefix("global_"), NOTHING)
    if name in _DERIVED and (own is NOTHING or own is None):
        try:
            found = _DERIVED[name](theirs)
        except (AttributeError, TypeError, KeyError, ZeroDivisionError):
            return own
        return own if found is None else found
    return own


def period(theirs: PreTrainedConfig) -> int | None:
    """Every which layer sees the whole prompt, where that says all of `layer_types`; None otherwise."""
    kinds = said(theirs, "layer_types") or []
    if "full_attention" not in kinds:
        return None
    every = kinds.index("full_attention") + 1
    regular = all((kind == "full_attention") == ((i + 1) % every == 0) for i, kind in enumerate(kinds))
    return every if regular else None


def translated(name: str, written: Any, implementation: Architecture) -> Any:
    """A value of the file in mlx-lm's words, such as kinds of layers as transformers 4 called them."""
    if (
        name == "sliding_window_pattern"
        and isinstance(written, int)
        and implementation.name.startswith("exaone")
    ):
        return "L" * (written - 1) + "G" if written else None
    if name == "position_embedding_type" and implementation.name == "granitemoehybrid" and written != "rope":
        return "nope"  # transformers turns for "rope" alone, mlx-lm for everything but "nope"
    if name in ("layer_types", "layers_block_type") and isinstance(written, list):
        known = implementation.words
        older = {new: old for new, old in _OLDER.items() if new not in known and old in known}
        return [older.get(kind, kind) for kind in written]
    return written


_DERIVED: dict[str, Callable[[PreTrainedConfig], Any]] = {
    "head_dim": lambda t: t.hidden_size // t.num_attention_heads,
    "n_inner": lambda t: 4 * t.hidden_size,
    "intermediate_size": lambda t: t.expand * t.hidden_size,
    "rotary_dim": lambda t: int(said(t, "head_dim") * t.rope_parameters.get("partial_rotary_factor", 1.0)),
    "block_dim": lambda t: t.hidden_size,
    "is_moe_layer": lambda t: [kind == "sparse" for kind in t.mlp_layer_types],
    **dict.fromkeys(PERIODS, period),
}
