"""Figures as SVG in the page, which take their colours from its style sheet.

They are drawn in colours that stand for something (`INK`, `SERIES`, ...); in the text that comes
out these become CSS variables, so that one figure serves light, dark and paper. Lengths are pixels
of the page. Equal figures are equal bytes.
"""

import io
import math
import re
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from flexfas_jax.evaluation.report.formatting import printable, short

_PER_INCH = 72  # of a figure's units: one unit is one pixel
_FONT = 12
INK, MUTED, RULE, PAPER = '#000101', '#000102', '#000103', '#000104'
BONA_FIDE, ATTACK, GOOD = '#000105', '#000106', '#000107'
SERIES = tuple(f'#0002{i:02x}' for i in range(7))
HEAT = tuple(f'#0003{i:02x}' for i in range(8))  # from no error to more than half
_VARIABLES = {
  INK: '--ink',
  MUTED: '--muted',
  RULE: '--rule',
  PAPER: '--paper',
  BONA_FIDE: '--bona-fide',
  ATTACK: '--attack',
  GOOD: '--good',
  **{colour: f'--series-{i}' for i, colour in enumerate(SERIES)},
  **{colour: f'--heat-{i}' for i, colour in enumerate(HEAT)},
}
# Series differ without colour, too.
_DASHES = ('-', (0, (6, 2)), (0, (6, 2, 1.5, 2)), (0, (1.5, 1.5)), (0, (9, 2, 1.5, 2, 1.5, 2)))
_MARKERS = 'os^DvPXh'
_NO_LINE = {'linestyle': 'none'}

_STYLE = {
  'svg.fonttype': 'none',
  'text.parse_math': False,  # a dollar in a name is a dollar
  'font.family': ['DejaVu Sans'],  # measured by; wider than the page's own
  'font.size': _FONT,
  'axes.labelsize': _FONT,
  'axes.titlesize': _FONT,
  'xtick.labelsize': _FONT - 1,
  'ytick.labelsize': _FONT - 1,
  'legend.fontsize': _FONT - 1,
  'text.color': INK,
  'axes.labelcolor': MUTED,
  'axes.edgecolor': RULE,
  'axes.facecolor': 'none',
  'axes.linewidth': 1,
  'axes.grid': False,
  'axes.axisbelow': True,
  'axes.spines.top': False,
  'axes.spines.right': False,
  'axes.unicode_minus': True,
  'xtick.color': RULE,
  'ytick.color': RULE,
  'xtick.labelcolor': MUTED,
  'ytick.labelcolor': MUTED,
  'xtick.major.size': 0,
  'ytick.major.size': 0,
  'xtick.minor.size': 0,
  'ytick.minor.size': 0,
  'xtick.major.pad': 5,
  'ytick.major.pad': 5,
  'grid.color': RULE,
  'grid.linewidth': 0.8,
  'figure.facecolor': 'none',
  'figure.dpi': _PER_INCH,
  'savefig.dpi': _PER_INCH,
  'savefig.bbox': None,
  'savefig.facecolor': 'none',
  'savefig.edgecolor': 'none',
  'hatch.linewidth': 1,
  'legend.frameon': False,
  'legend.labelcolor': INK,
  'lines.solid_capstyle': 'round',
  'path.simplify': True,
}


class Drawing(NamedTuple):
  """A figure that is ready for the page."""

  name: str  # of its kind: 'det', 'roc', ...
  title: str
  alternative: str  # what is seen, in words
  svg: Markup


def style(i: int) -> dict:
  """How the i-th curve is drawn."""
  return {
    'color': SERIES[i % len(SERIES)],
    'linestyle': _DASHES[i % len(_DASHES)],
    'linewidth': 2,
    'marker': _MARKERS[i % len(_MARKERS)],
  }


def width_of(text: str) -> float:
  """About how wide a text becomes, in pixels."""
  return 0.62 * _FONT * len(text)


def axes(figure: Figure, left: float, bottom: float, right: float, top: float, **settings):
  """Axes with these margins, in pixels."""
  width, height = figure.get_size_inches() * _PER_INCH
  at = (
    left / width,
    bottom / height,
    max(width - left - right, 1) / width,
    max(height - bottom - top, 1) / height,
  )
  return figure.add_axes(at, **settings)


def boxes(axes, corners, **look) -> None:
  """Draws rectangles as one path: many bars cost as much as one.

  Args:
    axes: where.
    corners: (left, bottom, right, top) of each.
    **look: of `matplotlib.patches.PathPatch`.
  """
  corners = np.asarray(corners, np.float64).reshape(-1, 4)
  if corners.size:
    points = corners[:, [0, 1, 2, 1, 2, 3, 0, 3, 0, 1]].reshape(-1, 2)
    codes = [Path.MOVETO, *[Path.LINETO] * 3, Path.CLOSEPOLY] * len(corners)
    axes.add_artist(PathPatch(Path(points, codes), **look))


def legend(figure: Figure, names: Sequence[str], columns: int, lines: bool) -> None:
  """Names the curves above a figure, where `height_of_legend` leaves room."""
  handles = [
    Line2D([], [], label=short(name, 34), markersize=8, **style(i) | ({} if lines else _NO_LINE))
    for i, name in enumerate(names)
  ]
  figure.legend(
    handles=handles,
    loc='upper left',
    bbox_to_anchor=(0, 1),
    ncols=columns,
    handlelength=3.6 if lines else 1.2,
    columnspacing=1.6,
    borderaxespad=0,
  )


def height_of_legend(n: int, columns: int) -> int:
  """Of a legend of n names, in pixels."""
  return 19 * math.ceil(n / columns) + 12


def draw(
  name: str,
  salt: str,
  title: str,
  alternative: str,
  size: tuple[float, float],
  paint: Callable[[Figure], None],
) -> Drawing:
  """Draws a figure.

  Args:
    name: of its kind.
    salt: distinct for every figure of a page: its ids start with it.
    title, alternative: for those who do not see it, and for those who point at it.
    size: (width, height) in pixels.
    paint: draws on the empty figure, with the placeholders of this module as colours.
  """
  text = io.StringIO()
  with matplotlib.rc_context(_STYLE | {'svg.hashsalt': salt}), warnings.catch_warnings():
    warnings.simplefilter('ignore')  # a name may have letters that the font that measures lacks
    figure = Figure(figsize=(size[0] / _PER_INCH, size[1] / _PER_INCH))
    paint(figure)
    nothing = dict.fromkeys(('Date', 'Creator', 'Format', 'Type'))
    figure.savefig(text, format='svg', metadata=nothing)
  svg = _for_page(text.getvalue(), salt, title, alternative, size)
  return Drawing(name, title, alternative, svg)


def _for_page(text: str, salt: str, title: str, alternative: str, size) -> Markup:
  """The SVG element alone, without what belongs to a file, named and described."""
  text = text[text.index('<svg') :]
  text = text[text.index('>') + 1 :]
  text = re.sub(r'<metadata>.*?</metadata>', '', text, count=1, flags=re.S)
  text = re.sub(r'<defs>\s*<style.*?</style>\s*</defs>', '', text, count=1, flags=re.S)
  used = set(re.findall(r'(?:xlink:href="#|url\(#)([\w.-]+)', text))
  text = re.sub(r' id="([^"]*)"', lambda m: f' id="{salt}-{m[1]}"' if m[1] in used else '', text)
  text = re.sub(r'xlink:href="#([\w.-]+)"', rf'href="#{salt}-\1"', text)
  text = re.sub(r'url\(#([\w.-]+)\)', rf'url(#{salt}-\1)', text)
  text = re.sub(r'style="[^"]*"', _styled, text)
  # A hatch has its ground in an attribute.
  text = re.sub(r' fill="(#[0-9a-f]{6})"', lambda m: _styled(f' style="fill: {m[1]}"'), text)
  text = re.sub(r' transform="rotate\(-0 [^)]*\)"', '', text)
  text = _without_groups(text)
  text = re.sub(r'\s*\n\s*', '\n', text)
  about = f'<title id="{salt}-title">{escape(printable(title))}</title>\n'
  about += f'<desc id="{salt}-desc">{escape(printable(alternative))}</desc>'
  width, height = size
  return Markup(
    f'<svg role="img" aria-labelledby="{salt}-title {salt}-desc" viewBox="0 0 {width:g} {height:g}"'
    f' style="max-width: {width:g}px">\n{about}{text.rstrip()}'
  )


def _without_groups(text: str) -> str:
  """Without groups that have no attribute, a fifth of a page's elements: they change nothing."""
  kept, parts = [], []  # of the groups that are open, whether they are kept
  for part in re.split(r'(<g>|<g [^>]*[^>/]>|</g>)', re.sub(r'<g ?/>\n?', '', text)):
    if part.startswith('<g') and part.endswith('>'):
      kept.append(part != '<g>')
    is_kept = kept.pop() if part == '</g>' else part != '<g>'
    parts.append(part if is_kept else '')
  return re.sub(r'\n+', '\n', ''.join(parts))


def _styled(style) -> str:
  text = style if isinstance(style, str) else style[0]
  text = re.sub(r'font-family: [^;"]*(; )?', '', text)
  for colour, variable in _VARIABLES.items():
    if colour in text:
      text = text.replace(colour, f'var({variable})')
  return text
