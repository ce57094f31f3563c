"""Checks the links of a built site: `python docs/check_site.py FOLDER`; exit code 1: one is dead.

A link is alive if its file exists and, where it has a fragment, an element of that page has this
id. Links to other hosts are not followed.
"""

import functools
import html.parser
import pathlib
import sys
import urllib.parse

ATTRIBUTES = {'a': 'href', 'link': 'href', 'img': 'src', 'script': 'src', 'source': 'src'}


class Page(html.parser.HTMLParser):
  """The links and ids of a page."""

  def __init__(self, text: str):
    super().__init__()
    self.links: list[str] = []
    self.ids: set[str] = set()
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    attributes = dict(attrs)
    self.ids |= {value for key in ('id', 'name') if (value := attributes.get(key))}
    if link := attributes.get(ATTRIBUTES.get(tag, '')):
      self.links.append(link)


@functools.cache
def read(path: pathlib.Path) -> Page:
  return Page(path.read_text(encoding='utf-8'))


def dead_links(folder: pathlib.Path) -> list[str]:
  """'PAGE: LINK' of every dead link below a folder."""
  folder, dead = folder.resolve(), []
  for path in sorted(folder.rglob('*.html')):
    for link in dict.fromkeys(read(path).links):
      parts = urllib.parse.urlsplit(link)
      if parts.scheme or parts.netloc:
        continue
      file = (path.parent / urllib.parse.unquote(parts.path)).resolve() if parts.path else path
      fragment = urllib.parse.unquote(parts.fragment)
      alive = file.is_file()
      if alive and fragment and file.suffix == '.html':
        alive = fragment in read(file).ids
      if not alive:
        dead.append(f'{path.relative_to(folder)}: {link}')
  return dead


def main(folder: str) -> int:
  dead = dead_links(pathlib.Path(folder))
  print('\n'.join(f'dead link: {link}' for link in dead) or 'all links lead somewhere')
  return int(bool(dead))


if __name__ == '__main__':
  sys.exit(main(sys.argv[1]))
