"""The documentation as a site: `.ci/docs`, or `sphinx-build -c docs . OUT` from the root.

The sources are the Markdown pages of the whole repository, so that a link between any two of them
is the same there and here. docs/index.md is the map, and the navigation is made of it.
"""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import flexfas_jax  # noqa: E402

project = 'flexfas_jax'
author = 'the flexfas_jax authors'
copyright = author  # noqa: A001 - Sphinx's name
version = release = flexfas_jax.__version__

extensions = [
  'myst_parser',
  'sphinx.ext.autodoc',
  'sphinx.ext.napoleon',
  'sphinx.ext.viewcode',
  'sphinx_copybutton',
]
root_doc = 'docs/index'
include_patterns = [
  'docs/**.md',
  *('README.md', 'CHANGELOG.md', 'CONTRIBUTING.md', 'SECURITY.md'),
  *('data/*/README.md', 'experiments/*/README.md', 'launch/README.md', 'requirements/README.md'),
]
# What a clone may also hold; the walk over the sources stays out of it.
exclude_patterns = ['.*', 'build', 'dist', 'flexfas_jax', 'prepared', 'runs', 'tests', '*.egg-info']

myst_heading_anchors = 4  # as GitHub makes them: links to headings work in both
myst_enable_extensions = ['strikethrough']
suppress_warnings = ['myst.strikethrough']

autodoc_member_order = 'bysource'
autodoc_typehints = 'signature'
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
add_module_names = False

viewcode_follow_imported_members = False

highlight_language = 'text'  # of blocks that name none

html_theme = 'furo'
html_title = f'flexfas_jax {version}'
html_extra_path = ['index.html']  # leads to docs/index.html
html_static_path = ['static']
html_css_files = ['style.css']
html_search_scorer = str(ROOT / 'docs' / 'scorer.js')  # guides before references
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
  'sidebar_hide_name': False,
  'light_css_variables': {'color-brand-primary': '#1f5fa8', 'color-brand-content': '#1f5fa8'},
  'dark_css_variables': {'color-brand-primary': '#8ab8ef', 'color-brand-content': '#8ab8ef'},
}
copybutton_exclude = '.linenos, .gp, .go'

_LINK = re.compile(r'\[([^\]]+)\]\(([^)#\s]+\.md)\)')


def _add_navigation(app, docname: str, source: list[str]) -> None:
  """Appends a table of contents to the map for each of its sections, in the order of its links."""
  if docname != root_doc:
    return
  for section in source[0].split('\n## ')[1:]:
    title, _, text = section.partition('\n')
    entries = [f'{name} </{_docname(link)}>' for name, link in _LINK.findall(text)]
    caption = title.partition(':')[0]
    source[0] += f'\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n' + '\n'.join(entries)
    source[0] += '\n```\n'


def _docname(link: str) -> str:
  path = (ROOT / 'docs' / link).resolve().relative_to(ROOT)
  return path.with_suffix('').as_posix()


def setup(app) -> None:
  app.connect('source-read', _add_navigation)
