"""What is read of a model, by whom, and kept as arrays: MLX ends here."""

from typing import TYPE_CHECKING

from .._lazy import exports

if TYPE_CHECKING:
    from .controls import Control, before_training
    from .intervening import passes
    from .plan import Plan, make_plan
    from .reader import prompts_of_run, read_study
    from .readings import Prompt, Readings, Study

__all__ = [
    "Control",
    "Plan",
    "Prompt",
    "Readings",
    "Study",
    "before_training",
    "make_plan",
    "passes",
    "prompts_of_run",
    "read_study",
]
__getattr__ = exports(
    __name__,
    {
        "controls": "Control before_training",
        "intervening": "passes",
        "plan": "Plan make_plan",
        "reader": "prompts_of_run read_study",
        "readings": "Prompt Readings Study",
    },
)
