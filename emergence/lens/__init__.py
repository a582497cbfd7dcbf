"""The residual stream of a model's own forward pass, read out by the model's own unembedding."""

from typing import TYPE_CHECKING

from .._lazy import exports

if TYPE_CHECKING:
    from .edits import Edit
    from .jacobian_lens import JacobianLens
    from .logit_lens import LogitLens
    from .proof import Proof, prove
    from .reading import LensReading
    from .tuned_lens import TunedLens

__all__ = ["Edit", "JacobianLens", "LensReading", "LogitLens", "Proof", "TunedLens", "prove"]
__getattr__ = exports(
    __name__,
    {
        "edits": "Edit",
        "jacobian_lens": "JacobianLens",
        "logit_lens": "LogitLens",
        "proof": "Proof prove",
        "reading": "LensReading",
        "tuned_lens": "TunedLens",
    },
)
