"""Commands end in one line where a file or an argument is wrong."""

import pathlib
import shutil

import pytest
import small_run

from rest.report import __main__ as report
from rest.tasks import __main__ as tasks
from rest.use import export, sample
from rest.verify import __main__ as verify

COMMANDS = {
  'export': export.main,
  'report': report.main,
  'sample': sample.main,
  'tasks': tasks.main,
  'verify': verify.main,
}
# Files by name, made beside the run 'run' and its model 'model'.
FILES = {
  'binary': b'\xff\xfe\x00\x81' * 16,
  'empty': b'',
  'list': b'[]\n',
  'torn': b'{"question": "1 + 1?", "text": "2", "gold": "2"}\n{"question":',
  'number': b'{"question": 3, "text": 3, "gold": "3"}\n',
  'good': b'{"question": "1 + 1?", "text": "2", "gold": "2"}\n',
  'folder/file': b'',
  'binary_run/run.json': b'\xff\xfe\x00\x81' * 16,
  'empty_run/run.json': b'',
  'list_run/run.json': b'[]',
  'half_run/run.json': b'{"config": {}}',
  'folder_run/run.json/file': b'',
  'math/train.jsonl': b'\xff\xfe\n',
  'math/test.jsonl': b'\xff\xfe\n',
  'samples/part-0.jsonl': b'\xff\xfe\n',
  'torn_samples/part-0.jsonl': b'{"problem": "0", "text": \n',
  'binary_model/config.json': b'\xff\xfe\x00\x81' * 16,
  'empty_model/config.json': b'',
  'bare_model/config.json': b'{}',
}
# Command lines, and what their error names.
CASES = (
  ('export absent --out=out', 'absent'),
  ('export good --out=out', 'good'),
  ('export folder --out=out', 'folder'),
  ('export binary_run --out=out', 'binary_run/run.json'),
  ('export empty_run --out=out', 'empty_run/run.json'),
  ('export list_run --out=out', 'list_run/run.json'),
  ('export half_run --out=out', 'half_run/run.json'),
  ('export folder_run --out=out', 'folder_run/run.json'),
  ('export run --iteration=9 --out=out', 'iteration 9'),
  ('export run --iteration=-1 --out=out', 'iteration -1'),
  ('export run --iteration=1 --base=absent --out=out', 'absent'),
  ('export run --iteration=1 --base=good --out=out', 'good'),
  ('export run --iteration=1 --base=folder --out=out', 'folder'),
  ('export run --iteration=1 --out=folder', '--out=folder'),
  ('export run --iteration=1 --out=good', '--out=good'),
  ('export run --iteration=1 --out=good/out', 'good'),
  ('report absent', 'absent'),
  ('report good', 'good'),
  ('report folder', 'folder'),
  ('report binary_run', 'binary_run/run.json'),
  ('report empty_run', 'empty_run'),
  ('report list_run', 'list_run'),
  ('report half_run', 'half_run'),
  ('report folder_run', 'folder_run'),
  ('report run absent', 'absent'),
  ('report run --out=folder', 'folder'),
  ('report run --out=good/report.html', 'good'),
  ('report run --out=out.html --figures=good', 'good'),
  ('sample absent --prompts=good', 'absent'),
  ('sample good --prompts=good', 'good'),
  ('sample folder --prompts=good', 'folder'),
  ('sample half_run --prompts=good', 'half_run/run.json'),
  ('sample binary_model --prompts=good', 'binary_model'),
  ('sample empty_model --prompts=good', 'empty_model'),
  ('sample bare_model --prompts=good', 'bare_model'),
  ('sample model --prompts=absent', 'absent'),
  ('sample model --prompts=folder', 'folder'),
  ('sample model --prompts=empty', 'empty'),
  ('sample model --prompts=binary', 'binary'),
  ('sample model --prompts=torn', 'torn, line 2'),
  ('sample model --prompts=number', 'number, line 1'),
  ('sample model --prompts=good --out=folder', 'folder'),
  ('sample model --prompts=good --out=good/out', 'good'),
  ('sample model --prompts=good --prompt=few_shot', '--prompt'),
  ('sample model --prompts=good --task=gsm8k --prompt=no', "'no'"),
  ('sample model --prompts=good --iteration=1', '--iteration'),
  ('sample model --prompts=good --temperature=nan', 'temperature'),
  ('sample model --prompts=good --top_p=2', 'top_p'),
  ('sample model --prompts=good --num_samples=0', '--num_samples'),
  ('sample model --prompts=good --tensor=3', 'tensor'),
  ('tasks prepare math --out=out', 'task.path'),
  ('tasks prepare math --path=absent --out=out', 'absent'),
  ('tasks prepare math --path=good --out=out', 'good'),
  ('tasks prepare math --path=folder --out=out', 'folder'),
  ('tasks prepare math --path=math --out=out', 'math/'),
  ('tasks prepare arithmetic --out=good', 'good'),
  ('tasks leaks math --path=math', 'math/'),
  ('tasks leaks math --path=math --split=no', "'no'"),
  ('tasks leaks arithmetic --num_validation=-1', 'num_validation'),
  ('tasks sheet arithmetic --samples=absent --out=out', 'absent'),
  ('tasks sheet arithmetic --samples=good --out=out', 'good'),
  ('tasks sheet arithmetic --samples=folder --out=out', 'folder'),
  ('tasks sheet arithmetic --samples=samples --out=out', 'part-0.jsonl'),
  ('tasks sheet arithmetic --samples=torn_samples --out=out', 'part-0.jsonl'),
  ('verify grade absent --out=out', 'absent'),
  ('verify grade folder --out=out', 'folder'),
  ('verify grade empty --out=out', 'empty'),
  ('verify grade binary --out=out', 'binary'),
  ('verify grade list --out=out', 'list, line 1'),
  ('verify grade torn --out=out', 'torn, line 2'),
  ('verify grade number --out=out', 'number, line 1'),
  ('verify grade good --verifier=program --out=out', "'tests'"),
  ('verify grade good --workers=0 --out=out', 'verify.workers'),
  ('verify grade good --out=folder', 'folder'),
  ('verify grade good --out=good/out', 'good'),
  ('verify regrade absent', 'absent'),
  ('verify regrade good', 'good'),
  ('verify regrade folder', 'folder'),
  ('verify regrade half_run', 'half_run/run.json'),
  ('verify regrade binary_run', 'binary_run/run.json'),
  ('verify regrade no_samples', 'no_samples'),
)


@pytest.fixture(scope='module', autouse=True)
def place(tmp_path_factory):
  place = tmp_path_factory.mktemp('place')
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(small_run.ROOT)
    small_run.write(place / 'run')
    patch.chdir(place)
    for name, content in FILES.items():
      file = pathlib.Path(name)
      file.parent.mkdir(parents=True, exist_ok=True)
      file.write_bytes(content)
    pathlib.Path('model').symlink_to(small_run.BASE)
    shutil.copytree('run/iteration_0', 'binary_run/iteration_0')
    pathlib.Path('no_samples').mkdir()
    shutil.copy('run/run.json', 'no_samples')
    yield place


def _files() -> dict[str, bytes]:
  return {
    str(path): path.read_bytes() if path.is_file() else b''
    for path in pathlib.Path().rglob('*')
  }


@pytest.mark.parametrize(('line', 'named'), CASES, ids=[c[0] for c in CASES])
def test_what_is_wrong_is_said_in_one_line(line, named, capsys):
  before = _files()
  name, *arguments = line.split()
  with pytest.raises(SystemExit) as ended:
    COMMANDS[name](arguments)
  said = capsys.readouterr().err
  assert ended.value.code == 2, said
  assert said.startswith('error: ') and said.count('\n') == 1, said
  assert named in said
  assert _files() == before
