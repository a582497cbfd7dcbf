"""Models stage: rotary position tables, as the configuration says them and as the built model has them.

In: transformers' reading of a configuration and a model that mlx-lm built from it. Out: the same model in
which every rotary module turns by the angles that transformers computes; the right modules stay, others are
replaced. Scalings: Peng et al. 2023 (YaRN, arXiv:2309.00071), Ding et al. 2024 (LongRoPE,
arXiv:2402.13753), Llama 3.1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_unflatten
from transformers import PreTrainedConfig

from ..errors import NotMeasurable
from .architecture import Architecture

_THETA = ("rope_theta", "rotary_emb_base")
_PARTIAL = ("partial_rotary_factor", "rotary_pct")
_NOT_SCALING = {"rope_theta", "partial_rotary_factor"}


class Rotation(nn.Module):
    """Turns the first `dims` dimensions of each head by given angles per position.

    `freqs` are the wavelengths over 2π (positions a radian), [dims / 2]; `gain` multiplies what is turned.
    """

    def __init__(self, dims: int, freqs: np.ndarray, gain: float, traditional: bool):
        super().__init__()  # type: ignore[no-untyped-call]
        self.dims, self.gain, self.traditional = dims, gain, traditional
        self._freqs = mx.array(freqs.astype(np.float32))

    def __call__(self, x: mx.array, offset: Any = 0) -> mx.array:
        """`x` is [batch, head, position, dimension]; its first position is number `offset`."""
        if self.gain != 1.0:
            x = mx.concatenate([x[..., : self.dims] * self.gain, x[..., self.dims :]], axis=-1)
        return mx.fast.rope(
            x, self.dims, traditional=self.traditional, base=None, scale=1.0, offset=offset, freqs=self._freqs
        )


def by_layer_type(theirs: PreTrainedConfig) -> dict[str | None, Mapping[str, Any]]:
    """`rope_parameters` for each kind of layer; under None where all layers share one."""
    found = getattr(theirs, "rope_parameters", None) or {}
    if nested := {kind: value for kind, value in found.items() if isinstance(value, Mapping)}:
        return nested
    return {None: found} if found.get("rope_theta") is not None else {}


def flat(theirs: PreTrainedConfig, implementation: Architecture, nested: bool) -> dict[str, Any]:
    """What `rope_parameters` says, under the flat names that the implementation takes."""
    tables = by_layer_type(theirs)
    if not tables:
        return {}
    first = tables.get("full_attention") or next(iter(tables.values()))
    local = tables.get("sliding_attention") or first
    scaling = {k: v for k, v in first.items() if k not in _NOT_SCALING}
    kind = scaling.get("rope_type", "default")
    values: dict[str, Any] = {name: first["rope_theta"] for name in _THETA}
    values |= {name: first.get("partial_rotary_factor") for name in _PARTIAL}
    values |= {"rope_local_base_freq": local["rope_theta"], "rope_parameters": theirs.rope_parameters}
    values["rope_scaling"] = None if kind == "default" else {**scaling, "type": kind}
    taken = implementation.nested if nested else implementation.fields
    return {
        name: value
        for name, value in values.items()
        if name in taken and (value is not None or name == "rope_scaling")
    }


def limit(theirs: PreTrainedConfig) -> int | None:
    """Tokens of the longest prompt whose angles do not depend on its length (None: any)."""
    limits = []
    for parameters in by_layer_type(theirs).values():
        if parameters.get("rope_type") == "longrope":
            limits.append(parameters["original_max_position_embeddings"])
        if parameters.get("rope_type") == "dynamic":
            limits.append(theirs.max_position_embeddings)
    return min(limits, default=None)


def settle(model: Any, theirs: PreTrainedConfig, implementation: Architecture) -> None:
    """Replace each rotary module of `model` that turns by other angles than the configuration says.

    Raises
    ------
    NotMeasurable
        A scaling of an unknown kind.
    """
    tables = by_layer_type(theirs)
    changed = []
    for path, module in model.named_modules():
        if (own := _own(module)) is None or not tables:
            continue
        parameters = tables.get(_kind(path, theirs)) or tables.get(None) or {}
        if not parameters:
            continue
        dims = len(own[0]) * 2
        if not any(name in implementation.words for name in (*_PARTIAL, "rotary_dim", "qk_rope_head_dim")):
            dims = int(dims * (parameters.get("partial_rotary_factor") or 1.0))
        freqs, gain = expected(theirs, parameters, dims)
        if not _same(own, (freqs, gain)):
            changed.append(
                (path, Rotation(2 * len(freqs), freqs, gain, bool(getattr(module, "traditional", False))))
            )
    if changed:
        model.update_modules(tree_unflatten(changed))


def expected(theirs: PreTrainedConfig, parameters: Mapping[str, Any], dims: int) -> tuple[np.ndarray, float]:
    """Positions a radian for each pair of dimensions, and the gain on cos and sin, as in transformers.

    Raises NotMeasurable for a scaling that is none of theirs.
    """
    base, kind = float(parameters["rope_theta"]), parameters.get("rope_type", "default")
    if kind == "dynamic" and parameters.get("alpha"):  # Hunyuan's: a constant that only stretches the base
        base *= parameters["alpha"] ** (dims / (dims - 2))
    freqs = base ** (np.arange(0, dims, 2, dtype=np.float64) / dims)
    if kind in ("default", "dynamic", "mrope", "axial"):
        return freqs, 1.0
    if kind == "linear":
        return freqs * parameters["factor"], 1.0
    if kind == "proportional":
        turned = int(parameters.get("partial_rotary_factor", 1.0) * dims // 2)
        return np.where(np.arange(dims // 2) < turned, freqs * parameters.get("factor", 1.0), np.inf), 1.0
    if kind == "llama3":
        return _llama3(freqs, parameters), 1.0
    if kind == "longrope":
        return freqs * np.array(parameters["short_factor"], np.float64), _longrope_gain(theirs, parameters)
    if kind == "yarn":
        return _yarn(freqs, base, dims, parameters), _yarn_gain(parameters)
    raise NotMeasurable(f"rope_scaling of type {kind!r} is none that is known here")


def _llama3(freqs: np.ndarray, p: Mapping[str, Any]) -> np.ndarray:
    waves, length = 2 * np.pi * freqs, p["original_max_position_embeddings"]
    low, high = p["low_freq_factor"], p["high_freq_factor"]
    smooth = np.clip((length / waves - low) / (high - low), 0, 1)
    return np.asarray(freqs / ((1 - smooth) / p["factor"] + smooth))


def _longrope_gain(theirs: PreTrainedConfig, p: Mapping[str, Any]) -> float:
    if p.get("attention_factor") is not None:
        return float(p["attention_factor"])
    length = p["original_max_position_embeddings"]
    factor = p.get("factor") or theirs.max_position_embeddings / length
    return 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(length))


def _yarn(freqs: np.ndarray, base: float, dims: int, p: Mapping[str, Any]) -> np.ndarray:
    def dimension(rotations: float) -> float:
        length = p["original_max_position_embeddings"]
        return dims * math.log(length / (rotations * 2 * math.pi)) / (2 * math.log(base))

    low, high = dimension(float(p.get("beta_fast") or 32)), dimension(float(p.get("beta_slow") or 1))
    if p.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dims - 1)
    slowed = np.clip((np.arange(dims // 2) - low) / ((high - low) or 0.001), 0, 1)
    return np.asarray(freqs / (slowed / p["factor"] + 1 - slowed))


def _yarn_gain(p: Mapping[str, Any]) -> float:
    if p.get("attention_factor") is not None:
        return float(p["attention_factor"])
    logarithm = 0.1 * math.log(p["factor"]) if p["factor"] > 1 else 0.0
    if p.get("mscale") and p.get("mscale_all_dim"):
        return float((p["mscale"] * logarithm + 1) / (p["mscale_all_dim"] * logarithm + 1))
    return logarithm + 1


def _own(module: Any) -> tuple[np.ndarray, float] | None:
    """The table of a rotary module of mlx or mlx-lm; None for every other module."""
    if isinstance(module, nn.RoPE) or type(module).__name__ == "DynamicNTKScalingRoPE":
        pairs = np.arange(0, module.dims, 2, dtype=np.float64) / module.dims
        return module.base**pairs / getattr(module, "scale", 1.0), 1.0
    if isinstance(freqs := getattr(module, "_freqs", None), mx.array):
        gain = getattr(module, "mscale", None) or getattr(module, "_scale", None) or 1.0
        return np.array(freqs.astype(mx.float32), np.float64), float(gain)
    return None


def _same(one: tuple[np.ndarray, float], other: tuple[np.ndarray, float]) -> bool:
    alike = one[0].shape == other[0].shape and np.allclose(1 / one[0], 1 / other[0], rtol=2e-5, atol=0)
    return alike and math.isclose(one[1], other[1], rel_tol=1e-5)


def _kind(path: str, theirs: PreTrainedConfig) -> str | None:
    """The kind of the layer that a module lies in."""
    kinds = getattr(theirs, "layer_types", None)
    number = re.search(r"(?:layers|h|blocks)\.(\d+)\.", f"{path}.")
    if not kinds or number is None or int(number[1]) >= len(kinds):
        return None
    return str(kinds[int(number[1])])
