"""The documentation as a site: its generated parts and the check of its links.

`.ci/docs` builds it, with warnings as errors.
"""

import importlib.util
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]


def load(name):
  specification = importlib.util.spec_from_file_location(name, ROOT / 'docs' / f'{name}.py')
  module = importlib.util.module_from_spec(specification)
  specification.loader.exec_module(module)
  return module


@pytest.mark.jax
@pytest.mark.skipif(sys.version_info >= (3, 13), reason='argparse lays out a help otherwise')
def test_generated_parts_are_those_of_the_code(capsys):
  assert load('generate').main(['--check']) == 0, (
    f'{capsys.readouterr().out}\nwrite them: python docs/generate.py'
  )


@pytest.mark.jax
def test_every_field_of_every_config_is_described():
  generate = load('generate')
  groups = {name: fields for name, fields in generate.FIELDS.items() if name != 'shared'}
  optional = groups.pop('optional')
  described = {field for fields in groups.values() for field in fields}
  values = generate.config_values()
  lacking = {field for field in values if field not in described}
  # Described with the choices, as their fields, or as fields of `member`.
  lacking -= {*generate.OF_SENSORS, 'member.fold', 'member.network'}
  assert not lacking, 'describe them in docs/fields.toml'
  assert described <= {*values, *optional}, 'docs/fields.toml describes what no config has'


@pytest.mark.jax
def test_the_meaning_of_a_field_names_its_choices():
  from flexfas_jax.images import geometry
  from flexfas_jax.models import flexmodal

  fields = load('generate').FIELDS
  choices = {
    'model': {'model.absent': flexmodal.ABSENT, 'model.dtype': ('float32', 'bfloat16')},
    'data': {'resize': geometry.RESIZES},
    'task': {'task': ('attacks', 'identities')},
  }
  for group, of_group in choices.items():
    for field, names in of_group.items():
      assert [n for n in names if f'`{n}`' not in fields[group][field]] == [], field


@pytest.mark.jax
def test_recipes_and_choices_are_read_from_the_code():
  generate = load('generate')
  assert generate.recipes(ROOT / 'configs' / 'vit_fusion.py') == ['embedded', 'flexmodal']
  text = generate.choices_text('loss')
  assert '#### `focal`' in text and '| `gamma` | number | `2.0` | 0 is the plain' in text
  assert '| `domains` | integer | required |' in text  # of single_side_prototypes


def test_dead_links_of_a_site_are_detected(tmp_path):
  (tmp_path / 'a').mkdir()
  (tmp_path / 'a' / 'b.html').write_text('<h1 id="x y">B</h1><a href="../c.html#z">c</a>')
  links = ('a/b.html', 'a/b.html#x%20y', 'https://host/x', '#top', 'a/b.html#q', 'd.html')
  (tmp_path / 'c.html').write_text(
    '<p id="top"><img src="e.png">' + ''.join(f'<a href="{link}">.</a>' for link in links)
  )
  assert load('check_site').dead_links(tmp_path) == [
    'a/b.html: ../c.html#z', 'c.html: e.png', 'c.html: a/b.html#q', 'c.html: d.html',
  ]  # fmt: skip
