"""What MLX computes with: which backend, a fast BLAS, kernels by NumPy on the CPU."""
