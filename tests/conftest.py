"""Shape annotations are checked while the tests run; nowhere else."""

from jaxtyping import install_import_hook

_hook = install_import_hook("emergence", "beartype.beartype")
