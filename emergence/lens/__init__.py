"""The residual stream of a model's own forward pass, read out by the model's own unembedding."""
