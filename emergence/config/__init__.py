"""What a `config.yaml` may say, and what it comes to."""

from typing import TYPE_CHECKING

from .._lazy import exports

if TYPE_CHECKING:
    from .loading import load, narrowed, parse, parse_override, settled
    from .overrides import Said
    from .settings import Arm, Config, LoRA

__all__ = ["Arm", "Config", "LoRA", "Said", "load", "narrowed", "parse", "parse_override", "settled"]
__getattr__ = exports(
    __name__,
    {
        "loading": "load narrowed parse parse_override settled",
        "overrides": "Said",
        "settings": "Arm Config LoRA",
    },
)
