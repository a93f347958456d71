"""Training beside PyTorch: the networks, runs in both libraries, and how far they are apart."""
