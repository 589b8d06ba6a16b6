"""How `make docs` builds the site: Sphinx, reading Markdown, with a theme that needs no network."""

project = "edgeeff"
author = "the edgeeff developers"
extensions = ["myst_parser"]
exclude_patterns: list[str] = []
myst_heading_anchors = 3  # links go to headings, as in Markdown everywhere
smartquotes = False  # "int8" in a JSON record has straight ones
html_theme = "furo"
html_title = "edgeeff"
html_copy_source = False
html_show_copyright = False
