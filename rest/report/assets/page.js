// The browser of problems and samples. Texts are shown by `textContent` and
// text nodes alone.

const LISTED = 40; // Problems on one page of the list.
const HELD = 12; // Unpacked pages of samples kept in memory.
const FIRST_CODE = 48; // As in rest/report/samples.py.

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text.trim()), c => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'));
  return JSON.parse(await new Response(stream).text());
}

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function count(number, noun) {
  return `${number.toLocaleString('en')} ${noun}${number === 1 ? '' : 's'}`;
}

// Pages of samples: some in this file, the others in files beside it.
class Pages {
  constructor(folder) {
    this.folder = folder;
    this.held = new Map();
    this.waiting = new Map();
    globalThis.restPage = (name, data) => this.waiting.get(name)?.(data);
  }

  get(name) {
    if (!this.held.has(name)) {
      this.held.set(name, this.find(name).then(unpack));
      if (this.held.size > HELD) this.held.delete(this.held.keys().next().value);
    }
    return this.held.get(name);
  }

  async find(name) {
    const inside = document.querySelector(`script[data-page="${name}"]`);
    if (inside) return inside.textContent;
    const source = `${this.folder}/${name}.js`;
    return new Promise((resolve, reject) => {
      const script = element('script', {src: source});
      const done = action => value => {
        this.waiting.delete(name);
        script.remove();
        action(value);
      };
      this.waiting.set(name, done(resolve));
      script.onerror = done(() => {
        this.held.delete(name);
        reject(new Error(`These samples are in ${source}, which is not beside this page.`));
      });
      document.head.append(script);
    });
  }
}

class Browser {
  constructor(index) {
    this.index = index;
    this.pages = new Pages(index.folder);
    this.form = document.getElementById('filters');
    this.list = document.getElementById('problems');
    this.status = document.getElementById('status');
    this.detail = document.getElementById('problem');
    this.previous = document.getElementById('previous');
    this.next = document.getElementById('next');
    this.search = 0;
    this.fill('run', index.runs.map((run, i) => [i, run.name]));
    document.getElementById('run-field').hidden = index.runs.length < 2;
    this.form.addEventListener('input', event => this.changed(event.target.name));
    this.form.addEventListener('submit', event => event.preventDefault());
    this.form.addEventListener('reset', () => setTimeout(() => this.changed('run')));
    this.previous.addEventListener('click', () => this.turn(-LISTED));
    this.next.addEventListener('click', () => this.turn(LISTED));
    this.list.addEventListener('keydown', event => this.moved(event));
    this.changed('run');
  }

  field(name) {
    return this.form.elements[name].value;
  }

  fill(name, options) {
    const select = this.form.elements[name];
    const before = select.value;
    select.replaceChildren(...options.map(([value, text]) => {
      const option = element('option', {value}, text);
      return option;
    }));
    if (options.some(([value]) => String(value) === before)) select.value = before;
    select.disabled = options.length < 2;
  }

  get set() {
    return this.index.runs[this.field('run')].sets[this.field('set') || 0];
  }

  get iterations() {
    return Object.keys(this.set.codes).map(Number).sort((a, b) => a - b);
  }

  changed(name) {
    if (name === 'run') {
      const {sets} = this.index.runs[this.field('run')];
      this.fill('set', sets.map((set, i) => [i, set.title]));
    }
    if (name === 'run' || name === 'set') {
      const {outcomes, problems} = this.set;
      const all = values => [['', 'any'], ...[...new Set(values)].filter(v => v)
        .sort().map(value => [value, value])];
      this.fill('iteration', [['', 'any'],
        ...this.iterations.map(i => [i, i ? `${i}` : '0, the base'])]);
      this.fill('fate', all(outcomes.map(([, , fate]) => fate)));
      this.fill('reason', all(outcomes.map(([, reason]) => reason)));
      this.fill('level', all(problems.map(([, level, subject]) => level || subject)));
    }
    this.filter();
  }

  // Which outcomes the filters let through.
  wanted() {
    const [verdict, fate, reason] = ['verdict', 'fate', 'reason'].map(n => this.field(n));
    return this.set.outcomes.map(([reward, why, became]) =>
      (verdict === '' || String(reward === null ? null : Number(reward === 1)) === verdict)
      && (fate === '' || became === fate) && (reason === '' || why === reason));
  }

  async filter() {
    const search = ++this.search;
    const wanted = this.wanted();
    const level = this.field('level');
    const text = this.field('text').trim().toLowerCase();
    const inside = text !== '' && this.form.elements.inside.checked;
    const chosen = this.field('iteration');
    const among = chosen === '' ? this.iterations : [Number(chosen)];
    let found = [];
    let samples = 0;
    const {problems, codes, starts} = this.set;
    for (let page = 0; page + 1 < starts.length; page++) {
      let entries = null;
      if (inside) {
        this.status.textContent = `Searching: ${page + 1} of ${starts.length - 1} pages`;
        entries = await this.pages.get(this.name(page)).catch(() => null);
        if (search !== this.search) return;
      }
      for (let at = starts[page]; at < starts[page + 1]; at++) {
        const [id, itsLevel, subject, question, answer] = problems[at];
        if (level !== '' && (itsLevel || subject) !== level) continue;
        const named = text === '' || [id, subject, question, answer ?? '']
          .some(value => value.toLowerCase().includes(text));
        let hits = 0;
        for (const iteration of among) {
          const code = codes[iteration][at];
          for (let i = 0; i < code.length; i++) {
            if (!wanted[code.charCodeAt(i) - FIRST_CODE]) continue;
            const line = entries && entries[at - starts[page]].samples[iteration][i];
            if (named || (line && (line[3] + line[4]).toLowerCase().includes(text))) hits++;
          }
        }
        if (hits) found.push(at);
        samples += hits;
      }
    }
    found = this.ordered(found, among);
    this.found = found;
    this.status.textContent = `${count(found.length, 'problem')} of `
      + `${problems.length.toLocaleString('en')}, with ${count(samples, 'sample')} that match`;
    this.show(0);
    if (found.length) this.open(found[0]);
    else this.detail.replaceChildren(element('p', {class: 'empty'}, 'Nothing matches these filters.'));
  }

  // The share of right samples of a problem in an iteration.
  share(at, iteration) {
    const code = this.set.codes[iteration][at];
    const {outcomes} = this.set;
    let right = 0;
    for (let i = 0; i < code.length; i++) {
      right += outcomes[code.charCodeAt(i) - FIRST_CODE][0] === 1;
    }
    return right / code.length;
  }

  ordered(found, among) {
    const last = among.at(-1);
    const first = this.iterations[0];
    const gain = at => this.share(at, last) - this.share(at, first);
    const key = {hardest: at => this.share(at, last), easiest: at => -this.share(at, last),
      gained: at => -gain(at), lost: gain}[this.field('order')];
    if (!key) return found;
    return found.map(at => [key(at), at]).sort(([a, i], [b, j]) => a - b || i - j)
      .map(([, at]) => at);
  }

  turn(by) {
    this.show(this.from + by);
    this.list.scrollTop = 0;
  }

  show(from) {
    this.from = from;
    const shown = this.found.slice(from, from + LISTED);
    this.list.replaceChildren(...shown.map(at => element('li', {}, this.item(at))));
    const end = from + shown.length;
    document.getElementById('place').textContent = shown.length
      ? `${from + 1} to ${end} of ${this.found.length}` : '';
    this.previous.disabled = from === 0;
    this.next.disabled = end >= this.found.length;
    this.mark();
  }

  item(at) {
    const [id, level, , question] = this.set.problems[at];
    const bars = this.iterations.flatMap(iteration => {
      const share = this.share(at, iteration);
      const fill = element('i', {style: `width: ${100 * share}%`});
      return [element('span', {class: 'bar', title: `iteration ${iteration}: ${Math.round(100 * share)} % right`}, fill)];
    });
    const last = this.iterations.at(-1);
    const button = element('button', {type: 'button', 'data-at': at},
      element('span', {class: 'line'}, question),
      element('span', {class: 'bars'}, ...bars,
        `${Math.round(100 * this.share(at, last))} % · ${id}${level ? ` · ${level}` : ''}`));
    button.addEventListener('click', () => {
      this.open(at);
      if (matchMedia('(max-width: 46rem)').matches) {
        this.detail.scrollIntoView();
        this.detail.focus({preventScroll: true});
      }
    });
    return button;
  }

  moved(event) {
    const by = {ArrowDown: 1, ArrowUp: -1}[event.key];
    if (!by) return;
    const buttons = [...this.list.querySelectorAll('button')];
    const target = buttons[buttons.indexOf(document.activeElement) + by];
    if (!target) return;
    event.preventDefault();
    target.focus();
    this.open(Number(target.dataset.at));
  }

  mark() {
    for (const button of this.list.querySelectorAll('button')) {
      button.setAttribute('aria-current', Number(button.dataset.at) === this.at);
    }
  }

  name(page) {
    return `${this.field('run')}-${this.field('set')}-${page}`;
  }

  async open(at) {
    this.at = at;
    this.mark();
    const {starts} = this.set;
    const page = starts.findLastIndex(start => start <= at);
    let entry;
    try {
      entry = (await this.pages.get(this.name(page)))[at - starts[page]];
    } catch (error) {
      if (this.at === at) this.detail.replaceChildren(...this.about(at, null), element('p', {class: 'empty'}, error.message));
      return;
    }
    if (this.at !== at) return;
    const chosen = this.field('iteration');
    this.render(at, entry, chosen === '' ? this.iterations.at(-1) : Number(chosen));
  }

  about(at, entry) {
    const [id, level, subject, question, answer] = this.set.problems[at];
    const box = element('div', {class: 'question'});
    box.append(element('div', {class: 'text'}, renderText(question.trim())));
    if (answer !== null) {
      box.append(element('p', {class: 'answer'}, 'Reference answer: ', renderText(`$${answer}$`)));
    }
    if (entry?.solution) {
      box.append(element('details', {}, element('summary', {}, 'Reference solution'),
        element('div', {class: 'text'}, renderText(entry.solution.trim()))));
    }
    const meta = [level && `level ${level}`.replace('level Level', 'level'), subject].filter(Boolean);
    return [element('h3', {}, id), element('p', {class: 'meta'}, meta.join(' · ')), box];
  }

  render(at, entry, iteration) {
    const tabs = element('div', {class: 'tabs', role: 'group', 'aria-label': 'Iteration'});
    for (const each of this.iterations) {
      const share = Math.round(100 * this.share(at, each));
      const tab = element('button', {type: 'button', 'aria-pressed': each === iteration},
        `${each ? `iteration ${each}` : 'base'}: ${share} % right`);
      tab.addEventListener('click', () => {
        this.render(at, entry, each);
        this.detail.querySelector('[aria-pressed=true]').focus();
      });
      tabs.append(tab);
    }
    const wanted = this.wanted();
    const code = this.set.codes[iteration][at];
    const columns = {right: [], wrong: []};
    let hidden = 0;
    entry.samples[iteration].forEach((line, i) => {
      const outcome = code.charCodeAt(i) - FIRST_CODE;
      if (!wanted[outcome]) hidden++;
      else columns[this.set.outcomes[outcome][0] === 1 ? 'right' : 'wrong'].push([line, this.set.outcomes[outcome]]);
    });
    const sides = element('div', {class: 'sides'},
      ...Object.entries(columns).map(([name, lines]) => this.side(name, lines)));
    const note = hidden ? [element('p', {class: 'note'},
      `${count(hidden, 'sample')} of this iteration ${hidden === 1 ? 'does' : 'do'} not match the filters.`)] : [];
    this.detail.replaceChildren(...this.about(at, entry), tabs, sides, ...note);
  }

  side(name, lines) {
    const groups = new Map(); // Equal texts are shown once.
    for (const [line, outcome] of lines) {
      const text = (line[3] + line[4]).trim();
      if (!groups.has(text)) groups.set(text, []);
      groups.get(text).push([line, outcome]);
    }
    const side = element('section', {class: name});
    const texts = groups.size < lines.length ? `, ${count(groups.size, 'text')}` : '';
    side.append(element('h3', {}, `${name === 'right' ? 'Right' : 'Not right'}: ${lines.length}${texts}`));
    if (!lines.length) side.append(element('p', {class: 'empty'}, 'none'));
    for (const members of groups.values()) side.append(this.sample(members));
    return side;
  }

  sample(members) {
    const by = new Map();
    for (const [[number], [, reason, fate]] of members) {
      const what = fate && fate !== 'incorrect' ? fate : reason;
      if (!by.has(what)) by.set(what, []);
      by.get(what).push(number);
    }
    const [[, tokens, finished, thoughts, answer]] = members[0];
    const header = element('header', {});
    for (const [what, numbers] of by) {
      header.append(element('b', {}, `#${numbers.join(', #')}`), ` ${what} · `);
    }
    header.append(count(tokens, 'token'), finished ? '' : ' · cut off');
    const isCode = /^\s*(def |import |from |class |```)/m.test(answer);
    const body = element('div', {class: isCode ? 'text code' : 'text'});
    body.append(isCode ? answer.trim() : renderText(answer.trim()));
    const folded = thoughts ? [element('details', {},
      element('summary', {}, `Thoughts, ${count(thoughts.length, 'character')}`),
      element('div', {class: 'text'}, thoughts.trim()))] : [];
    return element('div', {class: 'sample'}, header, ...folded, body);
  }
}

unpack(document.getElementById('index').textContent).then(index => new Browser(index));
