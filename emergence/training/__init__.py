"""One run, from base model to checkpoints."""
