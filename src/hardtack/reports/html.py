"""Writes a page as one HTML file that needs nothing else: no script, no font, no picture from anywhere."""

from importlib.resources import files
from typing import TYPE_CHECKING

from hardtack.errors import InputError

if TYPE_CHECKING:
    from hardtack.reports.page import Page


def html(page: "Page") -> str:
    """Render a page; every text in it is escaped, the plots apart, which are our own."""
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError:
        raise InputError(
            "an HTML report needs jinja2: pip install 'hardtack[report]'; --out report.md does without"
        ) from None
    environment = Environment(
        loader=PackageLoader("hardtack.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = (files("hardtack.reports") / "templates" / "report.css").read_text(encoding="utf-8")
    return environment.get_template("report.html").render(page=page, style=style)
