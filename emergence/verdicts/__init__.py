"""Claims, how each is judged, what was decided: only here does a number become a decision. No MLX."""
