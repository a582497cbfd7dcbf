"""Changes of the residual stream at a layer and position, made on the real forward pass and undone."""
