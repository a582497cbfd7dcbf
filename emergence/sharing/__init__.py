"""A trained run as a folder to give away: adapters of mlx-lm and peft, a model card, the base on request."""

from .folder import Made, write
from .kept import Chosen, choose

__all__ = ["Chosen", "Made", "choose", "write"]
