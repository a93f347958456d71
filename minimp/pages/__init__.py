"""HTML pages: one file each that works offline, with every string escaped.

Templates stand beside this file and need Jinja2. What they are given is text and numbers, never HTML.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from minimp.errors import SettingError

__all__ = ["render", "require_renderer"]


def require_renderer() -> None:
    """Make sure that pages can be made, before any work is done for one.

    Raises:
        SettingError: Jinja2 is not installed.
    """
    try:
        import jinja2  # noqa: F401 - only asked for
    except ImportError:
        raise SettingError(
            "HTML pages need Jinja2, which is not installed",
            op="pages", help='pip install "minimp[report]"',
        ) from None  # fmt: skip


def render(template: str, **values: Any) -> str:
    """Return the page that a template makes of `values`.

    Args:
        template: the name of a template beside this file, without its ending: ``"check"``.
        values: what the template names. One that is missing is an error, not an empty place.

    Raises:
        SettingError: Jinja2 is not installed.
    """
    require_renderer()
    import jinja2

    def source(name: str) -> str | None:
        held = files(__name__).joinpath(name)
        return held.read_text("utf-8") if held.is_file() else None

    pages = jinja2.Environment(
        loader=jinja2.FunctionLoader(source), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return str(pages.get_template(f"{template}.html.j2").render(**values))
