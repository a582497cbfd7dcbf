"""Models stage: what mlx-lm's implementation of a type reads of a configuration, looked up in its source.

In: a configuration. Out: the module of `mlx_lm.models` that serves it, the names of the fields that it
takes and really uses, and its activation. Nothing is listed by hand per type, so that a later mlx-lm is
read as it is.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm import utils

from ..errors import NotMeasurable

_PARTS = {"base", "cache", "switch_layers", "activations", "pipeline", "ssm", "rope_utils"}
ACTIVATIONS = {
    "silu": ("silu", "swiglu"),
    "gelu": ("gelu",),
    "gelu_approx": ("gelu_approx", "geglu"),
    "relu": ("relu",),
    "relu2": ("relu2", "relu_squared", "ReLU2"),
}
"""Activation to the names under which mlx-lm's modules call it."""
_SPELLINGS = {
    "swish": "silu",
    **dict.fromkeys(
        ("gelu_new", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_fast", "gelu_accurate"), "gelu_approx"
    ),
}
"""transformers' activation names to the keys of `ACTIVATIONS`; the tanh forms of GELU are one function."""


@dataclass(frozen=True)
class Architecture:
    """An mlx-lm module and what it reads.

    `fields` are the names that its argument classes take, `nested` those that they take from `text_config`;
    `words` are the attributes and strings in its source: a field that is taken and never used is not read.
    `activations` are those that it calls; it is `simple` if it calls one, in one place.
    """

    name: str
    fields: Mapping[str, inspect.Parameter]
    nested: frozenset[str]
    words: frozenset[str]
    activations: frozenset[str]
    simple: bool

    def reads(self, field: str, nested: bool = False) -> bool:
        """Whether the value of this field can change what the module computes."""
        return field in (self.nested if nested else self.fields) and field in self.words


@dataclass(frozen=True)
class Changes:
    """What is another in a copy of a module: its activation, and the dtype to which it rounds constants."""

    activation: str | None = None
    constants: str | None = None


def find(config: Mapping[str, Any]) -> Architecture:
    """The architecture that serves a configuration.

    Raises
    ------
    NotMeasurable
        mlx-lm has no such type, or it needs a package that is not installed.
    """
    return _inspected(module_of(config).__name__.rpartition(".")[2])


def module_of(config: Mapping[str, Any]) -> types.ModuleType:
    """The module of `mlx_lm.models` that mlx-lm itself takes for a configuration."""
    try:
        model, _ = utils._get_classes(dict(config))
    except SystemExit:  # mlx-lm's olmo ends the program where its own package is missing
        raise NotMeasurable(f"mlx-lm needs another package for model_type {config['model_type']}") from None
    except (ValueError, AttributeError):  # `cache` is a module beside the models, and holds none
        raise NotMeasurable(
            f"mlx-lm cannot run model_type {config['model_type']}: it has no such type"
        ) from None
    return importlib.import_module(model.__module__)


def classes(config: Mapping[str, Any], changes: Changes) -> tuple[Any, Any]:
    """`Model` and `ModelArgs`, from a copy of the module where something in its source is to be another.

    The copy is made of the same source, and nothing outside it changes: another model of this type, in the
    same process, keeps mlx-lm's own code.
    """
    module = module_of(config)
    if changes != Changes():
        module = _copied(module.__name__, changes)
    return module.Model, module.ModelArgs


def same_activation(name: str) -> str:
    """The key of one function among its spellings: `gelu_new` and `gelu_pytorch_tanh` are `gelu_approx`."""
    return _SPELLINGS.get(name, name)


@cache
def _inspected(name: str) -> Architecture:
    module = importlib.import_module(f"mlx_lm.models.{name}")
    own, words = _sources(name), set()
    used: set[str] = set()
    for tree in own.values():
        words |= _words(tree)
        used |= set(_activations(tree))
    calls = _activations(own[name])
    readers = [c for part in own for c in vars(importlib.import_module(f"mlx_lm.models.{part}")).values()]
    nested = {p for c in readers if _reads_a_dict(c) for p in inspect.signature(c).parameters}
    return Architecture(
        name=name,
        fields=dict(inspect.signature(module.ModelArgs).parameters),
        nested=frozenset(nested),
        words=frozenset(words),
        activations=frozenset(used),
        simple=len(own) == len(calls) == 1 and "switch_layers" not in _imports(own[name]),
    )


def _reads_a_dict(thing: Any) -> bool:
    return isinstance(thing, type) and is_dataclass(thing) and hasattr(thing, "from_dict")


def _sources(name: str, seen: dict[str, ast.Module] | None = None) -> dict[str, ast.Module]:
    """The module's syntax tree, and those of the other architectures that it is built on."""
    seen = {} if seen is None else seen
    spec = importlib.util.find_spec(f"mlx_lm.models.{name}")
    if name in seen or name in _PARTS or spec is None or spec.origin is None:
        return seen
    seen[name] = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    for other in _imports(seen[name]):
        _sources(other, seen)
    return seen


def _imports(tree: ast.Module) -> set[str]:
    relative = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 1]
    return {name for n in relative for name in ([n.module] if n.module else [a.name for a in n.names])}


def _words(tree: ast.Module) -> set[str]:
    attributes = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    return attributes | {
        n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)
    }


def _activations(tree: ast.Module) -> list[str]:
    """The activation of each place that calls one."""
    called = [
        n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and getattr(n.value, "id", "") == "nn"
    ]
    called += [n.id for n in ast.walk(tree) if isinstance(n, ast.Name)]
    return [key for name in called for key, names in ACTIVATIONS.items() if name in names]


@cache
def _copied(name: str, changes: Changes) -> types.ModuleType:
    """A second module of the same source, and of those that it is built on, with the changes."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    names = vars(module)
    for called, value in list(names.items()):
        package, _, part = getattr(value, "__name__", "").rpartition(".")
        if isinstance(value, types.ModuleType) and package == "mlx_lm.models" and part not in _PARTS:
            names[called] = _copied(value.__name__, changes)
    if changes.constants is not None:
        names["mx"] = types.SimpleNamespace(**vars(mx) | {"bfloat16": getattr(mx, changes.constants)})
    if changes.activation is not None:
        names |= _with_activation(names, getattr(nn, changes.activation))
    return module


def _with_activation(names: Mapping[str, Any], function: Callable[[Any], Any]) -> dict[str, Any]:
    called = {name for spellings in ACTIVATIONS.values() for name in spellings}
    within = {name: function for name in called if hasattr(nn, name)}
    gated = {name: lambda gate, x: function(gate) * x for name in called & names.keys()}
    return {"nn": types.SimpleNamespace(**vars(nn) | within), **gated}
