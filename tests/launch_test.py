"""What is launched elsewhere, checked here: schemas, flags, exit codes, hosts and chips."""

import functools
import json
import math
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tomllib

import pytest

from flexfas_jax import errors

ROOT = pathlib.Path(__file__).parents[1]
LAUNCH = ROOT / 'launch'
MANIFESTS = sorted(path.name for path in LAUNCH.glob('*.yaml'))
SCRIPTS = (*LAUNCH.glob('*.sh'), *LAUNCH.glob('*.sbatch'), *ROOT.glob('experiments/**/*.sh'))
NEVER_AGAIN = {e.exit_code for e in (errors.ConfigError, errors.DataError, errors.StateError)}
# What stands before our own flags, in a recipe.
BEFORE = (
  ('python -m flexfas_jax.main', 'main'),
  ('python -m flexfas_jax.prepare', 'prepare'),
  ('flexfas_jax.prepare', 'prepare'),
  ('launch/tpu_vm.sh run', 'main'),
  ('launch/slurm.sbatch', 'main'),
  ('IMAGE', 'main'),
)


def _documents(name):
  yaml = pytest.importorskip('yaml', reason='reads manifests; the extra `test` has it')
  return list(yaml.safe_load_all((LAUNCH / name).read_text()))


def _one(kind):
  return next(d for name in MANIFESTS for d in _documents(name) if d['kind'] == kind)


def _commands(text):
  """(module, arguments) of every one of our commands in a page or a script's head."""
  text = re.sub(r'^#+ ?', '', text, flags=re.MULTILINE)  # comments
  text = re.sub(r'\\\n\s*', ' ', text)
  for line in text.splitlines():
    for before, module in BEFORE:
      _, found, rest = line.partition(before + ' --')
      if found:
        rest = re.split(r' && |"$|`', '--' + rest)[0]
        yield module, tuple(shlex.split(rest, comments=True))
        break


def _all_commands():
  pages = (LAUNCH / 'README.md', ROOT / 'Dockerfile', *SCRIPTS)
  found = {(path.name, *c) for path in pages for c in _commands(path.read_text())}
  # An abridged flag (`--config=...`) is no command.
  found = {c for c in found if '...' not in ' '.join(c[2])}
  return sorted(found)


def test_the_recipes_are_found():
  pages = {page for page, _, _ in _all_commands()}
  assert pages == {'README.md', 'Dockerfile', 'slurm.sbatch', 'tpu_vm.sh'}
  assert len(_all_commands()) >= 8


@pytest.mark.parametrize('page,module,arguments', _all_commands())
def test_flags_of_recipes_are_ours(page, module, arguments):
  _parses(module, arguments)


def test_flags_in_the_manifest_are_ours():
  (container,) = _one('Job')['spec']['template']['spec']['containers']
  assert '--distributed' in container['args']
  _parses('main', tuple(container['args']))


@functools.cache
def _parses(module, arguments):
  """In a process of its own: flags are a process's."""
  if module == 'main':
    code = 'import sys; from flexfas_jax import main; main._parse(sys.argv)'
  else:  # argparse's, inside of its main()
    code = (
      'import argparse, sys\n'
      'parse = argparse.ArgumentParser.parse_args\n'
      'def only_parse(self, argv): parse(self, argv); sys.exit(0)\n'
      'argparse.ArgumentParser.parse_args = only_parse\n'
      f'from flexfas_jax import {module}; {module}.main(sys.argv[1:])'
    )
  found = subprocess.run(
    [sys.executable, '-c', code, *arguments], cwd=ROOT, capture_output=True, text=True
  )
  assert found.returncode == 0, found.stderr


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_bash(script):
  assert script.read_text().startswith('#!/usr/bin/env bash\n')
  subprocess.run(['bash', '-n', script], check=True)


@pytest.mark.parametrize('name', MANIFESTS)
def test_manifests_fit_the_schema(name):
  kubernetes_validate = pytest.importorskip(
    'kubernetes_validate', reason="Kubernetes' schemas; the extra `test` has them"
  )
  for document in _documents(name):
    kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def test_the_job_fills_its_slice():
  job = _one('Job')['spec']
  pod = job['template']['spec']
  (container,) = pod['containers']
  chips = container['resources']['limits']['google.com/tpu']
  topology = pod['nodeSelector']['cloud.google.com/gke-tpu-topology']
  assert job['completions'] * chips == math.prod(map(int, topology.split('x')))
  assert job['parallelism'] == job['completions']
  assert job['completionMode'] == 'Indexed'
  assert container['resources']['requests'] == container['resources']['limits']


def test_the_parts_of_the_manifest_name_each_other():
  service, job, claim = map(_one, ('Service', 'Job', 'PersistentVolumeClaim'))
  pod = job['spec']['template']['spec']
  assert pod['subdomain'] == service['metadata']['name']
  assert service['spec']['clusterIP'] == 'None'  # the text: null would mean an address
  assert service['spec']['selector'] == {'job-name': job['metadata']['name']}
  (volume,) = pod['volumes']
  assert volume['persistentVolumeClaim']['claimName'] == claim['metadata']['name']
  (mount,) = pod['containers'][0]['volumeMounts']
  assert mount['name'] == volume['name']
  for argument in pod['containers'][0]['args']:
    if 'dir=' in argument:
      assert argument.partition('=')[2].startswith(mount['mountPath'] + '/')


def test_the_job_knows_the_exit_codes():
  job = _one('Job')['spec']
  assert job['template']['spec']['restartPolicy'] == 'Never'  # or podFailurePolicy is refused
  actions = {}
  for rule in job['podFailurePolicy']['rules']:
    if codes := rule.get('onExitCodes'):
      assert codes['containerName'] == job['template']['spec']['containers'][0]['name']
      assert codes['operator'] == 'In'
      actions |= dict.fromkeys(codes['values'], rule['action'])
  assert actions == dict.fromkeys(NEVER_AGAIN, 'FailJob') | {143: 'Ignore'}


@pytest.fixture
def commands(tmp_path, monkeypatch):
  """A folder of commands that are not here, first on PATH, each of which records its arguments."""

  def add(name, code=0):
    (tmp_path / name).write_text(
      f'#!/bin/sh\nprintf "%s\\n" "{name}" "$@" >> {tmp_path}/calls\nexit {code}\n'
    )
    (tmp_path / name).chmod(0o755)

  add.calls = lambda: (tmp_path / 'calls').read_text().splitlines()
  monkeypatch.setenv('PATH', f'{tmp_path}{os.pathsep}{os.environ["PATH"]}')
  return add


@pytest.mark.parametrize(
  'code,begun,again',
  [
    *((code, 0, False) for code in (0, *sorted(NEVER_AGAIN))),
    *((143, begun, True) for begun in (0, 999)),
    *((code, 9, True) for code in (1, errors.TEMPORARY, 134, 137)),
    (134, 10, False),
  ],
)
def test_slurm_requeues_what_may_go_on(commands, monkeypatch, code, begun, again):
  commands('srun', code)
  commands('scontrol')
  monkeypatch.setenv('SLURM_JOB_ID', '17')
  monkeypatch.setenv('SLURM_RESTART_COUNT', str(begun))
  found = subprocess.run(
    ['bash', LAUNCH / 'slurm.sbatch', '--config=a b', '--workdir=w'], capture_output=True
  )
  calls = commands.calls()
  assert calls[calls.index('python') :][:5] == (
    ['python', '-m', 'flexfas_jax.main', '--config=a b', '--workdir=w']
  )
  assert (calls[-3:] == ['scontrol', 'requeue', '17']) == again
  assert found.returncode == (0 if again else code)


def test_tpu_vms_get_arguments_as_they_are(commands, monkeypatch):
  commands('gcloud')
  monkeypatch.setenv('TPU', 'slice')
  monkeypatch.setenv('ZONE', 'z')
  given = ["--config.model.fusion={'name': 'concat'}", '--workdir=/a b', '--config=$HOME']
  subprocess.run(['bash', LAUNCH / 'tpu_vm.sh', 'run', *given], check=True)
  calls = commands.calls()
  assert '--worker=all' in calls
  (command,) = (line.partition('=')[2] for line in calls if line.startswith('--command='))
  assert shlex.split(command)[-len(given) - 1 :] == [*given, '--distributed']
  (never,) = re.findall(r"RestartPreventExitStatus=([\d ]+)'", command)
  assert set(map(int, never.split())) == NEVER_AGAIN


def test_xpk_gets_a_command_of_one_line(commands):
  """It is pasted into a manifest as it is."""
  (block,) = re.findall(r'```sh\n(pip install xpk.*?)```', (LAUNCH / 'README.md').read_text(), re.S)
  commands('pip')
  commands('xpk')
  subprocess.run(['bash', '-ec', block], check=True)
  (command,) = (line for line in commands.calls() if line.startswith('--command='))
  assert command.endswith(' --distributed')
  assert f'--restart-on-exit-codes=1,{errors.TEMPORARY}' in commands.calls()


def _instructions():
  text = re.sub(r'^#.*\n', '', (ROOT / 'Dockerfile').read_text(), flags=re.MULTILINE)
  text = re.sub(r'\\\n', ' ', text)
  return [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]


def test_the_image_gets_what_it_copies():
  lines = (ROOT / '.dockerignore').read_text().splitlines()
  assert '*' in lines
  allowed = {line[1:] for line in lines if line.startswith('!')}
  copied = {s for word, rest in _instructions() if word == 'COPY' for s in rest.split()[:-1]}
  assert {s for s in copied if not s.startswith('flexfas_jax/')} == allowed
  assert all((ROOT / source).exists() for source in copied)
  needed = {'configs', 'data', 'flexfas_jax', 'pyproject.toml'}
  project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
  assert copied >= needed | {project['readme'], *project['license-files']}
  (extra,) = (rest[6:] for word, rest in _instructions() if rest.startswith('EXTRA='))
  assert extra in project['optional-dependencies']


def test_the_image_runs_the_program_itself():
  """In exec form: a shell as process 1 would keep SIGTERM to itself."""
  (entrypoint,) = (rest for word, rest in _instructions() if word == 'ENTRYPOINT')
  assert json.loads(entrypoint) == ['python', '-m', 'flexfas_jax.main']
