"""The array libraries that minimp can compute with, one class each; minimp.backend loads them by name."""
