"""Models stage: what training adds to a model, put in and *proven applied*, and taken out again exactly.

In: a model and a checkpoint folder (`adapters.safetensors`, `adapter_config.json`: mlx-lm's own format, so
that `mlx_lm.generate --adapter-path` reads each). Out: the same model object, changed for a `with` block.
The layers are mlx-lm's. LoRA: Hu et al. 2021 (arXiv:2106.09685); DoRA: Liu et al. 2024 (arXiv:2402.09353).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.tuner.dora import DoRALinear
from mlx_lm.tuner.lora import LoRALinear, LoRASwitchLinear
from mlx_lm.tuner.utils import linear_to_lora_layers

from ..backend.weights import parameters, weights_hash
from ..errors import BrokenExperiment, UsageError
from ..store.files import digest
from ..wording import first_line, some
from .folders import read_json
from .targets import LAYERS, block_paths, outside_blocks, settings_of

if TYPE_CHECKING:
    from ..config import LoRA
from .tensors import MISFITS

WEIGHTS, CONFIG = "adapters.safetensors", "adapter_config.json"
_STATE = {"_no_grad", "_training"}  # what a module keeps beside its arrays


@contextmanager
def lora(model: Any, fine_tune_type: str, lora: LoRA, seed: int | None = None) -> Iterator[Any]:
    """Make `model` trainable for the length of the `with`: new LoRA or DoRA layers, or the blocks themselves.

    Only blocks are ever trained, in "full" too: embedding, final norm and head stay frozen, being the lens.
    With a `seed`, the first factors come from it, whatever the global generator did. On exit, also after an
    exception, modules, arrays and frozen states are those from before. Raises UsageError for a target that
    names no linear layer of a block.
    """
    settings = settings_of(model, fine_tune_type, lora)
    with restored(model):
        model.base_hash = base_hash(model)
        try:
            insert(model, settings)
        except MISFITS as error:
            raise UsageError(
                f"this model cannot be trained with {fine_tune_type}: {first_line(error)}"
            ) from None
        model.train(model.training)
        if seed is not None:
            _draw(model, seed)
        yield model


@contextmanager
def adapted(model: Any, checkpoint: Path) -> Iterator[Any]:
    """`model` with a checkpoint applied, for the length of the `with`; its own arrays stay untouched.

    Every tensor is consumed, none is missing, each has the right shape and is finite, the checkpoint names
    this very model as its base, and embedding, final norm and head stay the base's own arrays. Raises
    BrokenExperiment otherwise.
    """
    with restored(model):
        apply(model, checkpoint, strict=True)
        yield model


def apply(model: Any, checkpoint: Path, strict: bool = False) -> None:
    """Apply a checkpoint for good; where the weights are float32 the low-rank product is added to them.

    `strict` also refuses adapters that do not say which base they belong to (mlx-lm's own do not).
    """
    settings, base = settings_in(checkpoint / CONFIG), base_hash(model)
    recorded = settings.get("base_hash")
    if recorded != base and (strict or recorded is not None):
        raise BrokenExperiment(
            f"{checkpoint} was trained on another base ({str(recorded)[:12]}, this model is {base[:12]}); "
            "load the model that it was trained on"
        )
    tensors = read_tensors(checkpoint / WEIGHTS)
    try:
        insert(model, settings)
    except MISFITS as error:
        raise BrokenExperiment(f"{checkpoint / CONFIG} fits no layers: {first_line(error)}") from None
    before, lens = trained(model, settings), _outside(model)
    check_complete(checkpoint, tensors, before)
    _check_step(checkpoint, settings, tensors, before)
    model.load_weights(list(tensors.items()), strict=False)
    model.eval()
    _fold(model)
    _check_lens(checkpoint, lens, _outside(model))
    mx.eval(model.parameters())
    model.base_hash = hashlib.sha256(f"{base} {digest(checkpoint / WEIGHTS)}".encode()).hexdigest()


def settings_in(path: Path) -> dict[str, Any]:
    """What an `adapter_config.json` says; an older or another tool's form is told as such."""
    settings = read_json(path)
    if "peft_type" in settings:
        raise BrokenExperiment(
            f"{path} is peft's ({settings['peft_type']}); only mlx-lm's own adapters are applied"
        )
    kind, layers = settings.get("fine_tune_type", "lora"), settings.get("lora_parameters")
    lacking = [name for name in ("num_layers",) if not isinstance(settings.get(name), int)]
    if kind != "full":
        given = layers if isinstance(layers, Mapping) else {}
        lacking += [f"lora_parameters.{name}" for name in ("rank", "scale", "dropout") if name not in given]
    if lacking:
        older = (
            "; mlx-lm before 0.19 said lora_layers: call it num_layers" if "lora_layers" in settings else ""
        )
        raise BrokenExperiment(f"{path} does not say {', '.join(lacking)}, without which nothing fits{older}")
    return settings


def adapter_config(model: Any, fine_tune_type: str, lora: LoRA, step: int) -> dict[str, Any]:
    """What `adapter_config.json` says: mlx-lm's keys, plus the step and the hash of the base model."""
    return {**settings_of(model, fine_tune_type, lora), "step": step, "base_hash": base_hash(model)}


def save_adapters(model: Any, folder: Path, config: Mapping[str, Any]) -> None:
    """Write what is trained in `model`, and its `adapter_config`, into `folder`; sorted: the bytes repeat."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = dict(sorted(trained(model, config).items()))
    mx.save_safetensors(str(folder / WEIGHTS), tensors, {"format": "mlx"})
    (folder / CONFIG).write_text(json.dumps(dict(config), indent=4, sort_keys=True) + "\n", encoding="utf-8")


def base_hash(model: Any) -> str:
    """Hash of the base model: of its files where `models.load` loaded it, of its parameters otherwise."""
    known = getattr(model, "base_hash", None)
    return known if isinstance(known, str) else weights_hash(model)


def insert(model: Any, settings: Mapping[str, Any]) -> None:
    """Freeze the model, then let the blocks train: their own weights ("full") or new layers beside them."""
    model.freeze()
    kind, count = settings.get("fine_tune_type", "lora"), settings["num_layers"]
    if kind == "full":
        for block in model.layers[-max(count, 0) :]:
            block.unfreeze()
        return
    layers = settings["lora_parameters"]
    if moved := sorted(set(layers.get("keys") or ()) & outside_blocks(model)):
        raise BrokenExperiment(
            f"the adapter changes {', '.join(moved)}, outside the blocks: it moves the lens"
        )
    linear_to_lora_layers(model, count, layers, use_dora=kind == "dora")
    if not any(isinstance(m, LAYERS) for m in model.modules()):
        raise BrokenExperiment(f"no layer of this model is named by {layers.get('keys')}")


def _draw(model: Any, seed: int) -> None:
    """First factors from this seed alone: uniform within ±1/sqrt(inputs), as mlx-lm draws them."""
    layers = sorted((path, m) for path, m in model.named_modules() if isinstance(m, LAYERS))
    for key, (_, layer) in zip(mx.random.split(mx.random.key(seed), len(layers)), layers, strict=True):
        inputs = layer.lora_a.shape[-1 if isinstance(layer, LoRASwitchLinear) else 0]
        layer.lora_a = mx.random.uniform(-(inputs**-0.5), inputs**-0.5, layer.lora_a.shape, key=key)


def trained(model: Any, settings: Mapping[str, Any]) -> dict[str, mx.array]:
    """Exactly what a checkpoint of these settings holds, by name."""
    if settings.get("fine_tune_type") == "full":
        return cast(dict[str, mx.array], dict(tree_flatten(model.trainable_parameters())))
    factors = {"lora_a", "lora_b", "m"}
    layers = [(path, m) for path, m in model.named_modules() if isinstance(m, LAYERS)]
    return {f"{path}.{name}": m[name] for path, m in layers for name in factors & m.keys()}


def read_tensors(path: Path) -> dict[str, mx.array]:
    """The tensors of a file, all finite; raises `BrokenExperiment` otherwise."""
    try:
        tensors: dict[str, mx.array] = cast(Any, mx.load(str(path)))
        fine = [name for name, t in tensors.items() if mx.isfinite(t).all().item()]
    except (RuntimeError, ValueError, OSError) as error:
        raise BrokenExperiment(f"{path} cannot be read: {first_line(error)}") from None
    if bad := sorted(tensors.keys() - set(fine)):
        raise BrokenExperiment(f"{path}: {some(bad)} hold NaN or infinity; training diverged")
    return tensors


def check_complete(checkpoint: Path, tensors: dict[str, mx.array], wanted: dict[str, mx.array]) -> None:
    """Every tensor consumed, none missing, each of the right shape; all problems at once."""
    problems = []
    if missing := sorted(wanted.keys() - tensors.keys()):
        problems.append(f"lacks {some(missing)}")
    if extra := sorted(tensors.keys() - wanted.keys()):
        problems.append(f"has {some(extra)}, which nothing here takes")
    if shapes := sorted(k for k in tensors.keys() & wanted.keys() if tensors[k].shape != wanted[k].shape):
        first = shapes[0]
        problems.append(f"has {some(shapes)} of shape {tensors[first].shape}, not {wanted[first].shape}")
    if problems:
        raise BrokenExperiment(f"adapter {checkpoint} is not applied: it {'; '.join(problems)}")


def _outside(model: Any) -> dict[str, mx.array]:
    """Embedding, final norm, head: what the lens reads out with."""
    inside = tuple(f"{path}." for path in block_paths(model))
    return {name: p for name, p in parameters(model) if not name.startswith(inside)}


def _check_lens(checkpoint: Path, before: Mapping[str, mx.array], after: Mapping[str, mx.array]) -> None:
    """Outside the blocks are the very arrays that were there: no hash of a hundred megabytes is needed."""
    if moved := sorted(k for k in before.keys() | after.keys() if before.get(k) is not after.get(k)):
        raise BrokenExperiment(
            f"adapter {checkpoint} changes {some(moved)}, outside the blocks: it moves the lens"
        )


def _check_step(
    checkpoint: Path, settings: Mapping[str, Any], tensors: dict[str, mx.array], before: dict[str, mx.array]
) -> None:
    """Step 0 is the base model, a later step is not."""
    if (step := settings.get("step")) is None:
        return
    if settings.get("fine_tune_type") == "full":
        same = all(mx.array_equal(t, before[name]).item() for name, t in tensors.items())
    else:
        same = not any(t.any().item() for name, t in tensors.items() if name.endswith("lora_b"))
    if same != (step == 0):
        raise BrokenExperiment(
            f"adapter {checkpoint}: step {step} {'equals' if same else 'differs from'} the base; train again"
        )


def _fold(model: Any) -> None:
    """Replace each adapted float32 layer by an ordinary one with the same function: the lens reads it faster.

    Other dtypes keep the layered form: a sum rounded to bfloat16, or quantised again, would lose the adapter.
    """
    folded = [(path, m.fuse()) for path, m in model.named_modules() if _foldable(m)]
    if folded:
        model.update_modules(tree_unflatten(folded))


def _foldable(layer: Any) -> bool:
    plain = isinstance(layer, LoRALinear | DoRALinear) and type(layer.linear) is nn.Linear
    return plain and layer.linear.weight.dtype == mx.float32


@contextmanager
def restored(model: Any) -> Iterator[None]:
    """Afterwards the model has the modules, arrays, frozen names, mode and hash from before."""
    modules = dict(model.named_modules())
    arrays = parameters(model)
    states = [(m, {k: copy(vars(m)[k]) for k in _STATE & vars(m).keys()}) for m in modules.values()]
    known = getattr(model, "base_hash", None)
    try:
        yield
    finally:
        now = dict(model.named_modules())
        changed = [(path, m) for path, m in modules.items() if path and now.get(path) is not m]
        tops = [(p, m) for p, m in changed if not any(p.startswith(f"{other}.") for other, _ in changed)]
        if tops:
            model.update_modules(tree_unflatten(tops))
        model.update(tree_unflatten(arrays))
        for module, state in states:
            for name, value in state.items():
                setattr(module, name, value)
        if known is None:
            vars(model).pop("base_hash", None)
        else:
            model.base_hash = known
