"""What a `config.yaml` may say, and what it comes to."""
