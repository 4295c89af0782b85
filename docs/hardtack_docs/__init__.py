"""A Sphinx extension: pages and tables made from hardtack's own registries whenever the site is built.

Every method and every verb gets a page of its own, written into methods/ and verbs/ before Sphinx looks for
sources (git ignores them). Hand-written pages take tables by the directive `facts`:

    ```{facts} methods
    ```
"""

import html
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from hardtack_docs import facts, pages
from hardtack_docs.plain import escaped

LONGEST = 160  # characters of a page's description, as search engines show it


class Facts(SphinxDirective):
    """Puts a table of `facts.TABLES` into a page."""

    required_arguments = 1
    has_content: ClassVar[bool] = False

    def run(self) -> list[nodes.Node]:
        """Render the Markdown of the table that is named."""
        self.env.note_reread()  # the registries are no files that Sphinx could watch
        text = facts.TABLES[self.arguments[0]]()
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def write_pages(app: Sphinx) -> None:
    """Write the generated pages, and remove those of methods and verbs that are gone."""
    made = {Path(app.srcdir) / name: text for name, text in pages.generated().items()}
    for file, text in made.items():
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")
    for folder in {file.parent for file in made}:
        for file in folder.glob("*.md"):
            if file not in made and file.read_text(encoding="utf-8").startswith(pages.MARK):
                file.unlink()


def describe(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Give every page a description: its first paragraph."""
    if doctree is None:
        return
    first = next((p.astext() for p in doctree.findall(nodes.paragraph)), context["title"])
    words = " ".join(first.split())
    if len(words) > LONGEST:
        words = words[:LONGEST].rsplit(" ", 1)[0] + " ..."
    context["metatags"] += f'<meta name="description" content="{html.escape(words)}">\n'


def plain_docstrings(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Escape a docstring before napoleon reads it."""
    lines[:] = escaped(lines)
    if what in ("attribute", "data"):
        lines.insert(0, "\\ ")  # nothing, but what stands before a colon in a first line is taken for a type


def plain_signature(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Write a default that a dataclass makes anew each time so that Sphinx can read the signature."""
    return signature and signature.replace("<factory>", "..."), returns


def without_aliases(app: Sphinx, what: str, name: str, thing: Any, skip: bool, options: Any) -> bool | None:
    """Leave out the fields of named tuples ("Alias for field number 0"); their class describes them."""
    return True if str(getattr(thing, "__doc__", "")).startswith("Alias for field number") else None


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect everything to Sphinx."""
    app.add_directive("facts", Facts)
    app.connect("builder-inited", write_pages)
    app.connect("html-page-context", describe)
    app.connect("autodoc-process-docstring", plain_docstrings, priority=400)  # napoleon has 500
    app.connect("autodoc-skip-member", without_aliases)
    app.connect("autodoc-process-signature", plain_signature)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
