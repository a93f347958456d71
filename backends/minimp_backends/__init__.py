"""The array libraries that minimp can compute with, one class each; minimp.backend names them and loads them."""
