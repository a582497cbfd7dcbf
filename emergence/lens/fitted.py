"""A lens that was fitted: what it has learned belongs to the very weights that it was fitted on.

In: a model, and the hash of the weights that the lens belongs to. Out: a `FittedLens`, which refuses to read
any other weights, and is kept as safetensors with that hash beside its arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import mlx.core as mx
import mlx.nn as nn

from ..backend.weights import parameters, weights_hash
from ..errors import UsageError
from ..wording import first_line
from .logit_lens import LogitLens


class FittedLens(LogitLens):
    """A lens bound to weights: `base` is their hash.

    Reading raises UsageError once the model's weights are not those that it was fitted on (another model, a
    later checkpoint, an adapter): fit it anew there. NotMeasurable where the logits depend on more than one
    stream.
    """

    kind: ClassVar[str]
    """What messages and the file's format call it, such as `tuned lens`."""

    def __init__(self, model: nn.Module, base: str, tokenizer: Any = None, vocab_size: int | None = None):
        super().__init__(model, tokenizer, vocab_size)
        self._require_one_array(f"a {self.kind}")
        self.base = base
        self._held: list[tuple[str, mx.array]] = []
        self._check_base()

    @classmethod
    def _fits(cls, lens: LogitLens) -> LogitLens:
        """The plain lens that this kind is fitted with, proven anew on the weights as they are now."""
        plain = LogitLens(lens.model, lens.tokenizer, lens.vocab_size)
        plain._require_one_array(f"a {cls.kind}")
        return plain

    def _write(self, path: Path | str, arrays: dict[str, mx.array]) -> None:
        metadata = {"format": self._format(), "base": self.base, "vocab_size": str(self.vocab_size)}
        mx.save_safetensors(str(path), arrays, metadata)

    @classmethod
    def _read(cls, path: Path | str, names: Sequence[str]) -> tuple[list[mx.array], str, int]:
        """Arrays by name, hash of the weights, and vocabulary; raises UsageError where the file is none."""
        try:
            loaded: Any = mx.load(str(path), return_metadata=True)
            mx.eval(loaded[0])  # the data is read only now: a file that was cut ends here
        except (RuntimeError, ValueError, OSError) as error:
            raise UsageError(f"{path}: not a readable {cls.kind}: {first_line(error)}") from error
        arrays, metadata = loaded
        if metadata.get("format") != cls._format() or not set(names) <= set(arrays):
            raise UsageError(f"{path}: not a {cls.kind} (its format is {metadata.get('format')!r})")
        return [arrays[name] for name in names], metadata["base"], int(metadata["vocab_size"])

    @classmethod
    def _format(cls) -> str:
        return f"emergence {cls.kind} 1"

    def _begin(self) -> None:
        self._check_base()

    def _check_base(self) -> None:
        """Hash the weights if any array is another than at the last look."""
        now = parameters(self.model)
        if len(now) == len(self._held) and all(
            a is b and name == held for (name, a), (held, b) in zip(now, self._held, strict=True)
        ):
            return
        found = weights_hash(self.model)
        if found != self.base:
            raise UsageError(
                f"this {self.kind} was fitted on weights {self.base[:12]}, the model has {found[:12]}; "
                "fit it anew on this model or checkpoint"
            )
        self._held = now
