"""What is kept: entries whose key hashes everything that decides their content, never half-written."""

from typing import TYPE_CHECKING

from .._lazy import exports

if TYPE_CHECKING:
    from .locks import locked
    from .store import Entry, Item, Store, default_root

__all__ = ["Entry", "Item", "Store", "default_root", "locked"]
__getattr__ = exports(__name__, {"locks": "locked", "store": "Entry Item Store default_root"})
