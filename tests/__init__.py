"""The tests; a package, so that `from tests.tolerances import ...` never finds another project's `tests`."""
