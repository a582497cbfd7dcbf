"""What is read of a model, by whom, and kept as arrays: MLX ends here."""
