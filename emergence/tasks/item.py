"""One question of a task, as every stage sees it: its class, its prompt in a style, its checked answer.

`Problem` (arithmetic) and `Example` (prompts of one's own) are items; so is whatever a further task makes
that has these members. Items are frozen and hashable.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable


@runtime_checkable  # tests check types at run time
class Item(Protocol):
    """What a stage may ask of an item; `7 * 8` is the example."""

    @property
    def cls(self) -> str:
        """What the classifier should tell: `multiply`."""

    @property
    def answer(self) -> str:
        """The checked answer as it is written after the prompt: `56`, or ` even` with its space."""

    @property
    def key(self) -> str:
        """Equal for two items that are one problem, in whatever style: `7 * 8` for `8 * 7`, too."""

    @property
    def numbers(self) -> tuple[int, ...]:
        """The operands, for tests on operands that were never seen: `(7, 8)`; empty where there are none."""

    @property
    def control_label(self) -> int | None:
        """What a control task gives its labels to (Hewitt & Liang 2019): the operand `7`, or None."""

    @property
    def names_class(self) -> bool:
        """Whether the prompt says the class: `*` does, `The number 48 is` does not say even."""

    def prompt(self, style: str) -> str:
        """The prompt in a style, up to where the answer begins: `7 * 8 = `. Raises `UsageError`."""

    def row(self) -> dict[str, Any]:
        """What a line of the kept JSONL file says of it, in its order."""
