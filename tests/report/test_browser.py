"""The report in a real browser: it loads, filters, and fits a phone."""

import json
import pathlib
import re
import shutil
import subprocess
from typing import Any

import pytest
import report_run

from rest.report import page

CHROMIUM = shutil.which('chromium') or shutil.which('google-chrome')
FLAGS = (
  *('--headless', '--no-sandbox', '--disable-gpu', '--disable-quic'),
  *('--no-first-run', '--disable-background-networking', '--disable-sync'),
  *('--disable-component-update', '--virtual-time-budget=20000'),
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason='needs Chromium')

# Errors are gathered from the start; at the end, what was seen stands in the
# page as JSON.
LISTEN = """<script>
globalThis.errors = [];
addEventListener('error', event => errors.push(event.message));
addEventListener('unhandledrejection', event => errors.push(`${event.reason}`));
console.error = (...words) => errors.push(words.join(' '));
</script>"""
DRIVE = """<script>
const settled = () => new Promise(resolve => setTimeout(resolve, 300));
const all = selector => [...document.querySelectorAll(selector)];
const shown = () => all('#problems button').length;
async function set(name, value) {
  const field = document.getElementById('filters').elements[name];
  field.value = value;
  field.dispatchEvent(new Event('input', {bubbles: true}));
  await settled();
}
async function drive() {
  await settled();
  const seen = {problems: shown(), samples: all('.sample').length};
  seen.status = document.getElementById('status').textContent;
  seen.bold = all('#problem b').map(node => node.textContent);
  seen.fractions = all('#problem mfrac, #problem .frac').length;
  const buttons = all('#problems button');
  buttons[0].focus();
  buttons[0].dispatchEvent(
    new KeyboardEvent('keydown', {key: 'ArrowDown', bubbles: true}));
  await settled();
  seen.focused = document.activeElement === buttons[1];
  seen.opened = document.querySelector('#problem h3').textContent;
  const fields = all('select, input');
  seen.unlabelled = fields.filter(node => !node.closest('label')).length;
  await set('verdict', '0');
  seen.wrong = all('#problem .right .sample').length;
  await set('verdict', '');
  await set('text', 'what is 4');
  seen.found = shown();
  await set('text', 'no such text');
  seen.none = shown();
  await set('text', '');
  await set('level', '2');
  seen.level = shown();
  const root = document.documentElement;
  seen.overflow = root.scrollWidth - innerWidth;
  seen.background = getComputedStyle(document.body).backgroundColor;
  seen.errors = errors;
  document.body.append(Object.assign(
    document.createElement('pre'),
    {id: 'seen', textContent: `SEEN${JSON.stringify(seen)}SEEN`}));
}
drive().catch(error => document.body.append(
  `SEEN${JSON.stringify({errors: [String(error)]})}SEEN`));
</script>"""


@pytest.fixture(scope='module')
def driven(tmp_path_factory) -> pathlib.Path:
  """A report that drives itself."""
  workdir = report_run.write_run(tmp_path_factory.mktemp('browser') / 'run')
  page.write_page([workdir], workdir / 'report.html', embedded=1)
  html = (workdir / 'report.html').read_text()
  html = html.replace('<head>', f'<head>{LISTEN}', 1)
  path = workdir / 'driven.html'
  path.write_text(html.replace('</body>', f'{DRIVE}</body>', 1))
  return path


def _look(path: pathlib.Path, folder: pathlib.Path, *flags: str) -> Any:
  assert CHROMIUM is not None
  command = [CHROMIUM, *FLAGS, *flags, f'--user-data-dir={folder}']
  done = subprocess.run(
    [*command, '--dump-dom', path.as_uri()],
    capture_output=True,
    text=True,
    check=True,
    timeout=120,
  )
  seen = re.search('<pre id="seen">SEEN(.*)SEEN</pre>', done.stdout, re.DOTALL)
  assert seen, done.stdout[-2000:]
  text = seen[1].replace('&lt;', '<').replace('&gt;', '>')
  return json.loads(text.replace('&amp;', '&'))


@pytest.fixture(scope='module')
def seen(driven, tmp_path_factory) -> Any:
  """What a phone with a light screen shows."""
  profile = tmp_path_factory.mktemp('profile')
  return _look(driven, profile, '--window-size=500,900')


def test_the_page_loads_and_finds_its_samples_beside_it(seen):
  assert seen['errors'] == []
  assert seen['problems'] == 6
  assert seen['samples'] == 3  # Of four; two of them have the same text.
  assert seen['status'].startswith('6 problems of 6, with 48 samples')


def test_filters_choose(seen):
  assert seen['wrong'] == 0
  assert seen['found'] == 1
  assert seen['none'] == 0
  assert seen['level'] == 2


def test_samples_are_text_and_their_formulas_are_set(seen):
  assert 'bold' not in seen['bold']
  assert seen['fractions'] > 0


def test_keys_move_through_the_list_and_every_field_has_a_label(seen):
  assert seen['focused']
  assert seen['opened'] == 'set/1'
  assert seen['unlabelled'] == 0


def test_the_page_fits_a_phone_and_a_dark_screen(seen, driven, tmp_path):
  assert seen['overflow'] <= 0
  dark = _look(driven, tmp_path, '--blink-settings=preferredColorScheme=0')
  assert dark['errors'] == []
  assert dark['background'] != seen['background']
