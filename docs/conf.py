"""How the documentation is built: `make docs`, or python -m sphinx -W docs build/docs."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # hardtack_docs, which makes pages from the registries

import hardtack

project = "hardtack"
author = "the hardtack authors"
project_copyright = "the hardtack authors, Apache-2.0"
version = release = hardtack.__version__
language = "en"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "hardtack_docs"]
exclude_patterns = ["hardtack_docs", "_static", "results"]
smartquotes = False  # or flags in prose would lose a dash: –seed

# Markdown: ::: fences for notes, and anchors on headings so that pages can link to each other's sections.
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

# Docstrings are plain text in Google form: hardtack_docs escapes what reStructuredText would misread.
autodoc_member_order = "bysource"
autodoc_default_options = {"exclude-members": "__new__, __init__"}
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 90
add_module_names = False
napoleon_numpy_docstring = False
napoleon_use_ivar = True
default_role = "literal"

# Every reference must resolve but for the types of other projects: their inventories would need a network.
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"(torch|np|numpy|nn|transformers|pa|filelock|argparse|collections|typing|pathlib)\b.*"),
    (r"py:.*", r"(Any|Callable|ClassVar|Generator|Iterable|Iterator|Literal|Mapping|Sequence|Path|Protocol)"),
    (r"py:.*", r"(Tensor|Json|Watch|Stream|Loss|Encode|Texts|Columns|Queries|NO_DEFAULT)"),
    (r"py:.*", r"hardtack\.storage\.Stored"),
]

html_theme = "furo"
html_title = "hardtack"
html_static_path = ["_static"]
html_css_files = ["prompts.css"]
html_copy_source = False
html_show_sourcelink = False
html_last_updated_fmt = None  # the same sources give the same pages
html_theme_options = {"navigation_with_keys": True, "top_of_page_buttons": []}
pygments_style = "friendly"
pygments_dark_style = "monokai"
