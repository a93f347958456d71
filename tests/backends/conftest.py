"""The CuPy backend on the strict device, for tests of which of its kernels serve what."""

from __future__ import annotations

from typing import Any

import pytest

from minimp import backend as backends


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return CuPy's backend on the strict device, under its name; `ran` lists its kernels but for casts."""
    pytest.importorskip("cupy")
    from tests.backends.cupy_on_strict import CupyOnStrict, run_reference

    made, ran = CupyOnStrict(), []

    def run(name: str, /, **arguments: Any) -> None:
        if not name.startswith("cast"):
            ran.append(name)
        run_reference(name, **arguments)

    object.__setattr__(made.gpu, "kernels", run)
    made.ran = ran
    monkeypatch.setitem(backends.MADE, "cupy", made)
    return made
