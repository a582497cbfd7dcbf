"""Models stage: the tensors of a folder become a model, and each of them is accounted for.

In: a folder that was checked and its settled configuration. Out: an mlx-lm model with lazy weights. A
tensor that is stored and would not be used is named, and so are whole numbers where weights belong.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
from mlx_lm.utils import load_model

from ..backend.weights import parameters
from ..errors import BrokenExperiment, NotMeasurable
from ..wording import first_line, some
from . import architecture, fields, folders, rope, tensors
from .configuration import Settled
from .tensors import MISFITS, Tensors


def load(folder: Path, settled: Settled) -> tuple[Any, dict[str, Any]]:
    """The model, its weights not yet in memory, and its configuration.

    Raises
    ------
    NotMeasurable
        mlx-lm cannot build such a model, or would not use a stored tensor.
    BrokenExperiment
        Tensors and configuration do not fit together.
    """
    assembly = _Assembly(folder, settled)
    try:
        with _view(folder) as place:
            loaded: tuple[Any, dict[str, Any]] = load_model(
                place,
                lazy=True,
                model_config=assembly.changes,
                get_model_classes=cast(Any, assembly.classes),
                trust_remote_code=False,
            )
    except MISFITS as error:
        raise assembly.failed(error) from None
    model, config = loaded
    del model.sanitize
    assembly.refuse_whole_numbers(model)
    for path, module in model.named_modules():
        if eps := fields.EPSILONS.get(settled.implementation.name, {}).get(path.rpartition(".")[2]):
            module.eps = eps
    if settled.theirs is not None:
        rope.settle(model, settled.theirs, settled.implementation)
    model.longest = settled.longest
    return model, config


def run_once(folder: Path, settled: Settled, model: Any) -> None:
    """Compute two tokens: some configurations make a model that cannot be run.

    Raises NotMeasurable.
    """
    try:
        mx.eval(model(mx.array([[0, 0]])))
    except MISFITS as error:
        nulls = f", with {', '.join(settled.nulls)}" if settled.nulls else ""
        raise NotMeasurable(
            f"{folder}: mlx-lm's {settled.implementation.name} builds this model{nulls}, and cannot run it: "
            f"{first_line(error)}"
        ) from None


_OF_NULL = (AttributeError, TypeError)
"""What Python raises where a value is null and should not be."""


@contextmanager
def _view(folder: Path) -> Iterator[Path]:
    """A folder of links for mlx-lm, which reads `[` in a path as a pattern and opens every weight file."""
    files = [*folder.glob("*.json"), folders.shards(folder)[0]]
    with tempfile.TemporaryDirectory() as place:
        for path in files:
            (Path(place) / path.name).symlink_to(path.resolve())
        yield Path(place)


class _Assembly:
    """One load: what mlx-lm is given at each of its steps, and at which of them it stopped."""

    def __init__(self, folder: Path, settled: Settled):
        self.folder, self.settled = folder, settled
        self.step = "configuration"
        self.stored = tensors.read(folder)
        self.dtypes: dict[str, mx.Dtype] = {}
        self.model: Any = None
        self.again: Callable[[Tensors], Tensors] = dict
        self.changes = self.tied(dict(settled.changes))

    def tied(self, changes: dict[str, Any]) -> dict[str, Any]:
        """A head that is stored is used, whatever `tie_word_embeddings` says: so does transformers."""
        raw, nested = self.settled.raw, self.settled.nested
        part = changes.get("text_config", changes)
        said = any("tie_word_embeddings" in config for config in (raw, raw.get("text_config") or {}))
        if self.settled.implementation.reads("tie_word_embeddings", nested):
            if tensors.own_heads(self.stored):
                part["tie_word_embeddings"] = False
            elif not tensors.heads(self.stored) and (self.settled.tied or not said):
                part["tie_word_embeddings"] = True
        return changes

    def classes(self, config: dict[str, Any]) -> tuple[Callable[[Any], Any], Any]:
        """What mlx-lm builds the model with: its own classes, watched."""
        words, cpu = self.settled.implementation.words, mx.default_device().type == mx.DeviceType.cpu
        # gemma3_text rounds the embedding's scale to bfloat16: right where it computes in that alone.
        exact = cpu and "bfloat16" in words and "from_fp8" not in words
        changes = architecture.Changes(self.settled.activation, "float32" if exact else None)
        model_class, arguments = architecture.classes(config, changes)

        def build(args: Any) -> Any:
            self.model = model_class(args)
            self.dtypes = {name: p.dtype for name, p in parameters(self.model)}
            self.again = lambda given: _renamed(model_class(args), given)
            own = getattr(self.model, "sanitize", dict)
            self.model.sanitize = lambda _: self.sanitize(own)
            return self.model

        return build, arguments

    def sanitize(self, own: Callable[[Tensors], Tensors]) -> Tensors:
        """mlx-lm's own renaming, of the tensors that the folder's index names; what it drops is looked at."""
        self.step = "weights"
        self.stored = self.named()
        renamed = own(dict(self.stored))
        self.refuse_unused(renamed)
        if self.settled.tied and (table := tensors.embedding(self.stored)) is not None:
            names = [name for name, _ in parameters(self.model)]
            renamed = {name: table for name in tensors.heads(names)} | renamed  # it has no tied form
        return renamed

    def named(self) -> Tensors:
        """The tensors under the names that this type expects."""
        expected = self.dtypes.keys() - set(tensors.heads(self.dtypes))
        for form in tensors.forms(self.stored):
            try:
                if expected <= self.again(form).keys():
                    return form
            except MISFITS:
                continue
        return self.stored

    def refuse_unused(self, renamed: Tensors) -> None:
        name, used = (
            self.settled.implementation.name,
            {id(renamed[n]) for n in renamed.keys() & self.dtypes.keys()},
        )
        if strange := [n for n in tensors.own_heads(self.stored) if id(self.stored[n]) not in used]:
            raise _Refused(
                f"{self.folder}: mlx-lm's {name} reads out with the embedding (tie_word_embeddings), and "
                f"{some(strange)} is stored and is another"
            )
        layers = getattr(self.settled.theirs, "num_hidden_layers", None)
        if dropped := tensors.unused(self.stored, renamed, self.again, layers):
            raise _Refused(
                f"{self.folder}: mlx-lm's {name} would not use {some(dropped)}, and its logits would not be "
                "this model's"
            )

    def refuse_whole_numbers(self, model: Any) -> None:
        """FP8 without its scales arrives as bytes, and would be read as 0 to 255."""
        for path, module in model.named_modules():
            for name, p in module.items():
                full = f"{path}.{name}".lstrip(".")
                if "scales" in module or not isinstance(p, mx.array) or mx.issubdtype(p.dtype, mx.floating):
                    continue
                if mx.issubdtype(self.dtypes.get(full, mx.float32), mx.floating):
                    found = tensors.stored_dtype(self.folder, full) or p.dtype
                    raise NotMeasurable(
                        f"{self.folder}: {full} holds {found}, whole numbers without the scales that make "
                        "them weights; use a conversion that mlx-lm reads"
                    )

    def failed(self, error: Exception) -> Exception:
        """The cause in one line, by the step at which mlx-lm stopped."""
        name, settled, line = self.settled.implementation.name, self.settled, readable(error)
        if isinstance(error, _Refused):
            return NotMeasurable(str(error))
        if lacking := re.search(r"__init__\(\) missing \d+ required positional arguments?: (.*)", str(error)):
            names = lacking[1].replace("'", "")
            line = f"{self.folder / 'config.json'} does not say {names}, which mlx-lm's {name} needs"
            return NotMeasurable(line) if settled.theirs is not None else BrokenExperiment(line)
        named = (
            settled.suspects
            if self.step == "weights"
            else settled.nulls
            if isinstance(error, _OF_NULL)
            else ()
        )
        if named:
            return NotMeasurable(f"{self.folder}: mlx-lm's {name} has no form for {', '.join(named)}: {line}")
        if self.step == "configuration":
            return BrokenExperiment(
                f"mlx-lm's {name} makes no model of {self.folder / 'config.json'}: {line}"
            )
        return BrokenExperiment(f"{self.folder}: weights and config.json do not fit together: {line}")


class _Refused(ValueError):
    """A stored tensor that would not be used."""


def _renamed(model: Any, given: Tensors) -> Tensors:
    """What a model of its own makes of the tensors: renaming may change the model, and arrays in place."""
    copies = {name: mx.array(t) for name, t in given.items()}
    return model.sanitize(copies) if hasattr(model, "sanitize") else copies


def readable(error: Exception) -> str:
    """mlx's message about misfitting weights in one line, with the names that stand below it."""  # noqa: D403
    lines = [line.strip(" \t,.") for line in str(error).strip().splitlines() if line.strip()]
    counted = re.match(r"(Missing|Received) \d+ parameters", lines[0] if lines else "")
    if not counted:
        return first_line(error)
    names = some([name.strip() for line in lines[1:] for name in line.split(",") if name.strip()])
    if counted[1] == "Missing":
        return f"config.json asks for {names}, which the files do not hold"
    return f"the files hold {names}, which the configured model does not have"
