"""What the kernels must give, in NumPy: where the engine has the function already, that function."""
