"""A name to a model that is proven to be the one named, and adapters that are proven to be applied."""

from typing import TYPE_CHECKING

from .._lazy import exports

if TYPE_CHECKING:
    from .adapters import adapted, lora
    from .loading import load, notices
    from .names import EMBEDDED, Source, is_here, require_known, resolve

__all__ = ["EMBEDDED", "Source", "adapted", "is_here", "load", "lora", "notices", "require_known", "resolve"]
__getattr__ = exports(
    __name__,
    {
        "adapters": "adapted lora",
        "loading": "load notices",
        "names": "EMBEDDED Source is_here require_known resolve",
    },
)
