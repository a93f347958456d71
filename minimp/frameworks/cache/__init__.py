"""Autocast's cast cache beside PyTorch's: programs, their casts and their gradients."""
