"""The launchers run what they print, with arguments whole, and start it again.

The programs that they call (ssh, gcloud, ...) are stood in for by scripts of a
few lines that run what they are given on this machine.
"""

import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import time

import pytest

ROOT = pathlib.Path(__file__).parents[1]
LAUNCH = ROOT / 'launch'
REST = [
  '--config=configs/math.py',
  '--workdir=gs://bucket/run 1',
  """--config.note=it's "two" $(words) `x` $HOME $$ \\ ; & * é""",
  *('--config.empty', ''),
]

# What each launcher needs; the tests take from this, or add to it.
FLAGS = {
  'here.sh': [],
  'ssh.sh': ['--hosts=localhost,me@localhost', '--dir=the checkout'],
  'tpu_vm.sh': ['--name=tpu', '--zone=us-central2-b', '--dir=the checkout'],
  'slurm.sh': ['--nodes=2', '--gpus_per_node=8'],
  'jobset.sh': ['--name=run', '--image=me/rest:1', '--hosts=2', '--gpus=8'],
}

# `python` notes its arguments in a file for each start, and exits with the next
# of its statuses (the last one for ever), or with 75 once it gets SIGTERM.
PROGRAMS = {
  'python': r"""
    id=${REST_PROCESS_ID:-0} start=0
    while [ -e "$RECORD/$id.$start" ]; do start=$((start + 1)); done
    printf '%s\0' "$@" > "$RECORD/$id.$start"
    env | grep ^REST_ > "$RECORD/env.$id" || true
    name=STATUSES_$id; read -r -a statuses <<< "${!name:-$STATUSES}"
    if [ "${statuses[0]}" = wait ]; then
      trap 'touch "$RECORD/stopped.$id"; exit 75' TERM
      touch "$RECORD/waiting.$id"
      for ((i = 0; i < 1000; i++)); do sleep 0.05; done
    fi
    [ "$start" -lt "${#statuses[@]}" ] || start=$((${#statuses[@]} - 1))
    exit "${statuses[start]}"
  """,
  'ssh': 'cd "$RECORD" && cd .. && exec bash -c "${@: -1}"',
  'gcloud': """
    cd "$RECORD" && cd ..
    command=${@: -1}
    exec bash -c "${command#--command=}"
  """,
  'sbatch': r"""printf '%s\0' "$@" > "$RECORD/sbatch" """,
  'srun': 'while [[ $1 == --* ]]; do shift; done; "$@"',
  'scontrol': 'echo "$@" > "$RECORD/scontrol"',
  'kubectl': 'cat > "$RECORD/kubectl"',
}


@pytest.fixture(name='world')
def make_world(tmp_path):
  (tmp_path / 'record').mkdir()
  (tmp_path / 'bin').mkdir()
  (tmp_path / 'the checkout').symlink_to(ROOT)
  for name, text in PROGRAMS.items():
    program = tmp_path / 'bin' / name
    program.write_text(f'#!/usr/bin/env bash\n{text}\n')
    program.chmod(0o755)
  return World(tmp_path)


class World:
  """A folder with the programs, and what they noted."""

  def __init__(self, folder: pathlib.Path):
    self.record = folder / 'record'
    self.env = {
      **{k: v for k, v in os.environ.items() if not k.startswith('REST_')},
      'PATH': f'{folder / "bin"}:{os.environ["PATH"]}',
      'RECORD': str(self.record),
      'STATUSES': '0',
    }

  def start(self, name, *arguments, **env):
    return subprocess.Popen(
      [LAUNCH / name, *arguments],
      env=self.env | env,
      stdin=subprocess.DEVNULL,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )

  def run(self, name, *arguments, **env):
    process = self.start(name, *arguments, **env)
    out, error = process.communicate(timeout=60)
    return process.returncode, out, error

  def notes(self, pattern='*'):
    return sorted(path.name for path in self.record.glob(pattern))

  def arguments(self, note):
    return (self.record / note).read_text().split('\0')[:-1]

  def wait_for(self, note):
    deadline = time.monotonic() + 60
    while not (self.record / note).exists():
      assert time.monotonic() < deadline, f'no {note} came: {self.notes()}'
      time.sleep(0.02)


def printed(world, name, *more):
  """Returns the commands that a dry run prints, as words."""
  status, out, error = world.run(
    name, *FLAGS[name], *more, '--dry_run', '--', *REST
  )
  assert (status, error) == (0, '')
  assert world.notes() == []  # Nothing was run.
  lines = [shlex.split(line, comments=True) for line in out.splitlines()]
  return [line for line in lines if line]


def manifest(world, *flags):
  status, out, error = world.run('jobset.sh', *flags, '--dry_run', '--', *REST)
  assert (status, error) == (0, '')
  return json.loads(out[out.index('\n') : out.rindex('END')])


def test_here_prints_its_command(world):
  assert printed(world, 'here.sh', '--python=/my venv/python') == [
    [f'{LAUNCH}/leash.sh', '/my venv/python', '-m', 'rest.main', *REST]
  ]


def test_ssh_prints_a_command_for_every_host(world):
  commands = printed(world, 'ssh.sh', '--port=1234', '--coordinator=10.0.0.1')
  assert [command[-2] for command in commands] == ['localhost', 'me@localhost']
  for process, command in enumerate(commands):
    assert command[0] == 'ssh'
    assert shlex.split(command[-1]) == [
      *('cd', 'the checkout', '&&', 'exec', 'launch/leash.sh', 'env'),
      'REST_COORDINATOR=10.0.0.1:1234',
      'REST_NUM_PROCESSES=2',
      f'REST_PROCESS_ID={process}',
      *('python', '-m', 'rest.main', *REST),
    ]


def test_the_first_host_without_its_user_is_the_coordinator(world):
  commands = printed(world, 'ssh.sh', '--hosts=me@gpu-1.lab,gpu-2.lab')
  assert all(
    'REST_COORDINATOR=gpu-1.lab:8476' in shlex.split(command[-1])
    for command in commands
  )


def test_tpu_vm_prints_one_command_for_all_workers(world):
  (command,) = printed(world, 'tpu_vm.sh', '--gcloud=--internal-ip')
  assert command[:-1] == [
    *('gcloud', 'compute', 'tpus', 'tpu-vm', 'ssh', 'tpu'),
    *('--zone=us-central2-b', '--worker=all', '--quiet', '--internal-ip'),
  ]
  assert shlex.split(command[-1].removeprefix('--command=')) == [
    *('cd', 'the checkout', '&&', 'exec', 'launch/leash.sh', 'env'),
    *('REST_DISTRIBUTED=auto', 'python3', '-m', 'rest.main', *REST),
  ]


@pytest.mark.parametrize(
  ('gpus', 'processes'),
  [
    (8, ['--ntasks-per-node=8', '--gpus-per-node=8']),
    (0, ['--ntasks-per-node=1']),
  ],
)
def test_slurm_asks_for_a_process_a_gpu(world, gpus, processes):
  (command,) = printed(
    world, 'slurm.sh', f'--gpus_per_node={gpus}', '--sbatch=--time=1:00:00'
  )
  assert command == [
    *('sbatch', f'--chdir={ROOT}', '--nodes=2', *processes),
    *('--cpus-per-task=8', '--time=1:00:00'),
    *(f'{LAUNCH}/slurm_job.sh', '0', 'python', *REST),
  ]


def test_slurm_submits_what_it_prints(world):
  (command,) = printed(world, 'slurm.sh')
  status, _, _ = world.run('slurm.sh', *FLAGS['slurm.sh'], '--', *REST)
  assert status == 0
  assert world.arguments('sbatch') == command[1:]


def test_jobset_on_gpus_tells_each_process_who_it_is(world):
  spec = manifest(world, *FLAGS['jobset.sh'])['spec']
  job = spec['replicatedJobs'][0]['template']['spec']
  assert (job['completions'], job['parallelism']) == (2, 2)
  (container,) = job['template']['spec']['containers']
  assert container['image'] == 'me/rest:1'
  assert container['resources'] == {'limits': {'nvidia.com/gpu': 8}}
  env = {entry['name']: entry for entry in container['env']}
  assert env['REST_COORDINATOR']['value'] == 'run-host-0-0.run:8476'
  assert env['REST_NUM_PROCESSES']['value'] == '2'
  assert 'job-completion-index' in str(env['REST_PROCESS_ID']['valueFrom'])
  escaped = [word.replace('$', '$$') for word in REST]
  assert container['command'] == ['python', '-m', 'rest.main', *escaped]


def test_jobset_on_tpus_lets_them_find_each_other(world):
  flags = [*FLAGS['jobset.sh'][:2], '--tpu=tpu-v5-lite-podslice,4x8,4']
  job_set = manifest(world, *flags, '--hosts=8')
  job = job_set['spec']['replicatedJobs'][0]['template']['spec']
  pod = job['template']['spec']
  assert job['completions'] == 8
  assert pod['nodeSelector'] == {
    'cloud.google.com/gke-tpu-accelerator': 'tpu-v5-lite-podslice',
    'cloud.google.com/gke-tpu-topology': '4x8',
  }
  (container,) = pod['containers']
  assert container['env'] == [{'name': 'REST_DISTRIBUTED', 'value': 'auto'}]
  assert container['resources'] == {'limits': {'google.com/tpu': 4}}


@pytest.mark.parametrize(
  ('tries', 'restarts'), [(1, 0), (5, 4), (0, 2**31 - 1)]
)
def test_jobset_bounds_restarts_and_stops_for_errors(world, tries, restarts):
  spec = manifest(world, *FLAGS['jobset.sh'], f'--tries={tries}')['spec']
  assert spec['failurePolicy']['maxRestarts'] == restarts
  job = spec['replicatedJobs'][0]['template']['spec']
  (rule,) = job['podFailurePolicy']['rules']
  assert rule['onExitCodes']['values'] == [1, 2]


def test_jobset_sends_what_it_prints(world):
  expected = manifest(world, *FLAGS['jobset.sh'])
  status, _, _ = world.run('jobset.sh', *FLAGS['jobset.sh'], '--', *REST)
  assert status == 0
  assert json.loads((world.record / 'kubectl').read_text()) == expected


@pytest.mark.parametrize(
  ('name', 'missing'),
  [
    (name, flag.split('=')[0])
    for name, flags in FLAGS.items()
    for flag in [*flags, '--config=', '--workdir=']
    if (name, flag) != ('here.sh', '--workdir=')
  ],
)
def test_what_is_missing_is_named(world, name, missing):
  flags = [
    word
    for word in [*FLAGS[name], '--', *REST]
    if not word.startswith(f'{missing}=')
  ]
  status, out, error = world.run(name, *flags)
  assert (status, out) == (2, '')
  assert f'{missing} ' in error and 'is missing' in error
  assert world.notes() == []


BAD = {
  # An argument of rest.main before the --, too.
  'here.sh': '--tries=-1 --tries=many --tries=08 --pause=1.5 --pause= '
  '--python= --unknown --config=configs/math.py',
  'ssh.sh': '--hosts=a,,b --hosts=-oProxyCommand=x --coordinator=a:1 '
  '--port=0 --port=65536 --dir=~/rest',
  'tpu_vm.sh': '--name=Tpu; --zone=europe --dir=~/rest',
  'slurm.sh': '--nodes=0 --gpus_per_node=x --cpus_per_process=0',
  # Chips of two kinds, too.
  'jobset.sh': f'--name=Run_1 --name={"a" * 41} --hosts=0 --gpus=0 '
  '--tpu=tpu-v5-lite-podslice,4x8,4',
}


@pytest.mark.parametrize(
  ('name', 'flag'),
  [(name, flag) for name, flags in BAD.items() for flag in flags.split()],
)
def test_bad_values_are_refused(world, name, flag):
  status, out, error = world.run(name, *FLAGS[name], flag, '--', *REST)
  assert (status, out) == (2, '')
  assert flag.split('=')[0] in error
  assert world.notes() == []


@pytest.mark.parametrize(
  ('tpu', 'named'), [('v5e,4xy,4', '--tpu'), ('v5e,2x2,4', '--hosts')]
)
def test_a_tpu_that_is_not_its_hosts_is_refused(world, tpu, named):
  flags = [*FLAGS['jobset.sh'][:2], '--hosts=8', f'--tpu={tpu}']
  status, _, error = world.run('jobset.sh', *flags, '--', *REST)
  assert status == 2
  assert f'{named} must' in error


@pytest.mark.parametrize('name', ['here.sh', 'ssh.sh'])
@pytest.mark.parametrize(
  ('statuses', 'tries', 'starts', 'expected'),
  [
    ('0', 0, 1, 0),
    ('1', 0, 1, 1),
    ('2', 0, 1, 2),
    ('75 75 0', 0, 3, 0),
    ('75 1', 0, 2, 1),
    ('75', 2, 2, 75),
  ],
)
def test_only_the_preempted_start_again(
  world, name, statuses, tries, starts, expected
):
  flags = [*FLAGS[name], f'--tries={tries}', '--pause=0']
  status, _, error = world.run(name, *flags, '--', *REST, STATUSES=statuses)
  assert status == expected, error
  assert world.notes('0.*') == [f'0.{start}' for start in range(starts)]
  for note in world.notes('[01].*'):
    assert world.arguments(note) == ['-m', 'rest.main', *REST]


def test_tpu_vm_starts_again_what_was_preempted(world):
  flags = [*FLAGS['tpu_vm.sh'], '--python=python', '--pause=0']
  status, _, _ = world.run('tpu_vm.sh', *flags, '--', *REST, STATUSES='75 0')
  assert status == 0
  assert world.notes('0.*') == ['0.0', '0.1']
  assert world.arguments('0.1') == ['-m', 'rest.main', *REST]
  assert (world.record / 'env.0').read_text() == 'REST_DISTRIBUTED=auto\n'


def test_an_error_on_one_host_ends_all(world):
  status, _, error = world.run(
    *('ssh.sh', *FLAGS['ssh.sh'], '--', *REST), STATUSES_0='75', STATUSES_1='3'
  )
  assert status == 3
  assert 'process 1 on me@localhost ended with 3' in error
  assert world.notes('[01].*') == ['0.0', '1.0']


def test_stopping_the_launcher_stops_every_process_softly(world):
  flags = [*FLAGS['ssh.sh'], '--', *REST]
  launcher = world.start('ssh.sh', *flags, STATUSES='wait')
  world.wait_for('waiting.0')
  world.wait_for('waiting.1')
  launcher.send_signal(signal.SIGTERM)
  _, error = launcher.communicate(timeout=60)
  assert launcher.returncode == 75, error
  assert 'starting again' not in error
  assert world.notes('stopped.*') == ['stopped.0', 'stopped.1']
  assert world.notes('[01].*') == ['0.0', '1.0']  # And none started again.


@pytest.mark.parametrize('name', ['here.sh', 'ssh.sh'])
def test_no_process_survives_a_killed_launcher(world, name):
  launcher = world.start(name, *FLAGS[name], '--', *REST, STATUSES='wait')
  world.wait_for('waiting.0')
  launcher.kill()
  world.wait_for('stopped.0')
  launcher.communicate(timeout=60)  # Whoever holds its output has ended.


@pytest.mark.parametrize(
  ('status', 'tries', 'restarts', 'is_requeued'),
  [
    (0, 0, 0, False),
    (1, 0, 0, False),
    (75, 0, 9, True),
    (75, 3, 1, True),
    (75, 3, 2, False),
  ],
)
def test_a_preempted_job_goes_back_into_the_queue(
  world, status, tries, restarts, is_requeued
):
  ended, _, error = world.run(
    *('slurm_job.sh', str(tries), 'python', *REST),
    STATUSES=str(status),
    SLURM_JOB_ID='17',
    SLURM_CPUS_PER_TASK='8',
    SLURM_RESTART_COUNT=str(restarts),
  )
  assert ended == (0 if is_requeued else status), error
  assert world.notes('scontrol') == (['scontrol'] if is_requeued else [])
  assert world.arguments('0.0') == ['-m', 'rest.main', *REST]
  assert (world.record / 'env.0').read_text() == 'REST_DISTRIBUTED=auto\n'


@pytest.mark.parametrize('name', FLAGS)
def test_help_tells_every_flag(world, name):
  status, out, _ = world.run(name, '--help')
  assert status == 0
  told = set(re.findall(r'^  (--\w+)', out, re.M))
  script = (LAUNCH / name).read_text()
  checked = set(re.findall(r'^ *want (\w+) ', script, re.M))
  assert told >= {f'--{flag}' for flag in checked}
  assert told >= {'--tries', '--python', '--dry_run'}
  # What is told is read: an empty value is refused by the flag's name.
  optional = {'--dry_run', '--gcloud', '--sbatch', '--coordinator', '--tpu'}
  for flag in told - optional:
    status, _, error = world.run(name, *FLAGS[name], f'{flag}=', '--', *REST)
    assert status == 2
    assert flag in error
