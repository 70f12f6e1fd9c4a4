'use strict';
// Text with TeX formulas to DOM nodes, formulas as MathML. Text becomes text
// nodes only, so that nothing a model wrote can become an element. What the
// parser does not know is shown as it was written.

const SYMBOLS = (() => {
  const table = {};
  const add = (tag, list) => {
    for (const pair of list.trim().split(/\s+/)) {
      const [name, text] = pair.split('=');
      table[name] = [tag, text];
    }
  };
  add('mi', `alpha=α beta=β gamma=γ delta=δ epsilon=ϵ varepsilon=ε zeta=ζ eta=η
    theta=θ vartheta=ϑ iota=ι kappa=κ lambda=λ mu=μ nu=ν xi=ξ pi=π varpi=ϖ rho=ρ
    sigma=σ tau=τ upsilon=υ phi=ϕ varphi=φ chi=χ psi=ψ omega=ω Gamma=Γ Delta=Δ
    Theta=Θ Lambda=Λ Xi=Ξ Pi=Π Sigma=Σ Phi=Φ Psi=Ψ Omega=Ω infty=∞ ell=ℓ hbar=ℏ
    emptyset=∅ varnothing=∅ Re=ℜ Im=ℑ aleph=ℵ partial=∂ nabla=∇ angle=∠
    triangle=△ square=□ circ=∘ degree=° ldots=… dots=… cdots=⋯ dotsb=⋯ dotsc=…
    vdots=⋮ ddots=⋱ top=⊤ bot=⊥ prime=′`);
  add('mo', `times=× cdot=⋅ div=÷ pm=± mp=∓ ast=∗ star=⋆ bullet=∙ oplus=⊕ otimes=⊗
    le=≤ leq=≤ leqslant=⩽ ge=≥ geq=≥ geqslant=⩾ ne=≠ neq=≠ approx=≈ equiv=≡
    sim=∼ simeq=≃ cong=≅ propto=∝ ll=≪ gg=≫ in=∈ notin=∉ ni=∋ subset=⊂
    subseteq=⊆ supset=⊃ supseteq=⊇ cup=∪ cap=∩ setminus=∖ to=→ rightarrow=→
    longrightarrow=⟶ leftarrow=← Rightarrow=⇒ Leftarrow=⇐ implies=⟹ iff=⟺
    Leftrightarrow=⇔ leftrightarrow=↔ mapsto=↦ uparrow=↑ downarrow=↓ forall=∀
    exists=∃ neg=¬ land=∧ wedge=∧ lor=∨ vee=∨ mid=∣ nmid=∤ parallel=∥ perp=⊥
    therefore=∴ because=∵ lfloor=⌊ rfloor=⌋ lceil=⌈ rceil=⌉ langle=⟨ rangle=⟩
    lvert=| rvert=| vert=| lVert=‖ rVert=‖ Vert=‖ lbrace={ rbrace=} backslash=\\
    colon=: sum=∑ prod=∏ int=∫ iint=∬ oint=∮ bigcup=⋃ bigcap=⋂ bmod=mod`);
  return table;
})();
const FUNCTIONS = new Set(`sin cos tan cot sec csc arcsin arccos arctan sinh cosh
  tanh log ln lg exp lim max min sup inf gcd lcm deg det dim ker arg Pr mod`
  .split(/\s+/));
const SPACES = {',': 0.17, ':': 0.22, ';': 0.28, ' ': 0.25, '!': -0.1, quad: 1,
  qquad: 2, thinspace: 0.17, enspace: 0.5};
const ACCENTS = {overline: '¯', bar: '¯', hat: '^', widehat: '^', vec: '→',
  overrightarrow: '→', tilde: '~', widetilde: '~', dot: '˙', ddot: '¨',
  overleftrightarrow: '↔', overbrace: '⏞'};
const STYLES = {mathbf: 'bold', textbf: 'bold', boldsymbol: 'bold', bm: 'bold',
  mathbb: 'double-struck', mathcal: 'script', mathrm: 'normal', rm: 'normal',
  mathit: 'italic', mathsf: 'normal', mathfrak: 'fraktur', bf: 'bold'};
const TEXTS = new Set(['text', 'textrm', 'textit', 'mbox', 'hbox', 'textsf',
  'texttt', 'operatorname', 'textnormal', 'textup']);
const LIMITS = new Set(['∑', '∏', '⋃', '⋂', 'lim', 'max', 'min', 'sup', 'inf']);
const FENCES = {pmatrix: '()', bmatrix: '[]', Bmatrix: '{}', vmatrix: '||',
  Vmatrix: '‖‖', cases: '{', dcases: '{'};
const MOST_TOKENS = 3000;
const DEEPEST = 60;

function mathml(tag, children = [], attributes = {}) {
  const node = document.createElementNS('http://www.w3.org/1998/Math/MathML', tag);
  for (const [name, value] of Object.entries(attributes)) {
    node.setAttribute(name, value);
  }
  node.append(...[].concat(children));
  return node;
}

class TexError extends Error {}

class TexParser {
  constructor(source) {
    this.tokens = source.match(/\\[a-zA-Z]+\*?|\\[^]|\s+|\d+(?:[.,]\d+)*|[^]/gu) || [];
    this.at = 0;
    this.depth = 0;
    if (this.tokens.length > MOST_TOKENS) throw new TexError('too long');
  }

  all() {
    const row = this.row(() => false);
    if (this.at < this.tokens.length) throw new TexError(this.tokens[this.at]);
    return row;
  }

  peek() {
    while (/^\s/.test(this.tokens[this.at] || '')) this.at++;
    return this.tokens[this.at];
  }

  take() {
    const token = this.peek();
    if (token === undefined) throw new TexError('end');
    this.at++;
    return token;
  }

  row(ends) {
    if (++this.depth > DEEPEST) throw new TexError('too deep');
    const nodes = [];
    for (let token = this.peek(); token !== undefined; token = this.peek()) {
      if (ends(token) || token === '}' || token === '\\right') break;
      nodes.push(this.scripts());
    }
    this.depth--;
    return nodes.length === 1 ? nodes[0] : mathml('mrow', nodes);
  }

  scripts() {
    const token = this.peek();
    const base = token === '^' || token === '_' ? mathml('mrow') : this.atom();
    let sub, sup, primes = '';
    for (let next = this.peek(); next === '^' || next === '_' || next === "'";
      next = this.peek()) {
      this.at++;
      if (next === "'") primes += '′';
      else if (next === '^') sup = this.argument();
      else sub = this.argument();
    }
    if (primes) {
      const mark = mathml('mo', primes);
      sup = sup ? mathml('mrow', [mark, sup]) : mark;
    }
    const above = LIMITS.has(base.textContent);
    if (sub && sup) return mathml(above ? 'munderover' : 'msubsup', [base, sub, sup]);
    if (sub) return mathml(above ? 'munder' : 'msub', [base, sub]);
    if (sup) return mathml(above ? 'mover' : 'msup', [base, sup]);
    return base;
  }

  argument() {
    if (this.peek() === '{') return this.group();
    const token = this.peek();
    // \frac12 takes a digit each.
    if (token && /^\d.+/.test(token)) {
      this.tokens[this.at] = token.slice(1);
      return mathml('mn', token[0]);
    }
    return this.atom();
  }

  group() {
    if (this.take() !== '{') throw new TexError('{');
    const row = this.row(() => false);
    if (this.take() !== '}') throw new TexError('}');
    return row;
  }

  raw() {
    if (this.peek() !== '{') return this.take();
    let text = '', open = 0;
    do {
      const token = this.tokens[this.at++];
      if (token === undefined) throw new TexError('end');
      if (token === '{' && open++ === 0) continue;
      if (token === '}' && --open === 0) break;
      text += token;
    } while (true);
    return text;
  }

  atom() {
    const token = this.take();
    if (token === '{') {
      this.at--;
      return this.group();
    }
    if (token[0] === '\\' && token.length > 1) return this.command(token.slice(1));
    if (/^\d/.test(token)) return mathml('mn', token);
    if (/^\p{L}/u.test(token)) return mathml('mi', token);
    if (token === '-') return mathml('mo', '−');
    if (token === '~') return mathml('mspace', [], {width: '0.25em'});
    if (token === '&' || token === '$') throw new TexError(token);
    const plain = '()[]|/'.includes(token) ? {stretchy: 'false'} : {};
    return mathml('mo', token, plain);
  }

  command(name) {
    if (name in SPACES) return mathml('mspace', [], {width: `${SPACES[name]}em`});
    if (Object.hasOwn(SYMBOLS, name)) {
      const [tag, text] = SYMBOLS[name];
      return mathml(tag, text, '|‖⌊⌋⌈⌉⟨⟩{}'.includes(text) ? {stretchy: 'false'} : {});
    }
    if (FUNCTIONS.has(name)) return mathml('mi', name);
    if (TEXTS.has(name.replace('*', ''))) return mathml('mtext', this.raw());
    if (/^[dtc]?frac$/.test(name)) {
      return mathml('mfrac', [this.argument(), this.argument()]);
    }
    if (/^[dt]?binom$/.test(name)) {
      const pair = mathml('mfrac', [this.argument(), this.argument()], {linethickness: '0'});
      return mathml('mrow', [mathml('mo', '('), pair, mathml('mo', ')')]);
    }
    if (name === 'sqrt') return this.root();
    if (name === 'boxed' || name === 'fbox') {
      return mathml('mrow', [this.argument()], {class: 'boxed'});
    }
    if (name in ACCENTS) {
      const mark = mathml('mo', ACCENTS[name], {stretchy: name.length > 4 ? 'true' : 'false'});
      return mathml('mover', [this.argument(), mark], {accent: 'true'});
    }
    if (name === 'underline' || name === 'underbrace') {
      const mark = mathml('mo', name === 'underline' ? '_' : '⏟');
      return mathml('munder', [this.argument(), mark]);
    }
    if (name in STYLES) return this.styled(STYLES[name]);
    if (name === 'left') return this.fenced();
    if (/^[bB]igg?[lrm]?$/.test(name)) return mathml('mo', this.fence(), {stretchy: 'false'});
    if (name === 'begin') return this.environment();
    if (name === 'pmod') {
      return mathml('mrow', [mathml('mo', '('), mathml('mi', 'mod'),
        mathml('mspace', [], {width: '0.3em'}), this.argument(), mathml('mo', ')')]);
    }
    if (/^(display|text|script)style$|^(limits|nolimits|hline|nonumber)$/.test(name)) {
      return mathml('mrow');
    }
    if (/^[^a-zA-Z]/.test(name)) {
      if (name === '\\') throw new TexError('\\\\');
      return mathml('mo', name, {stretchy: 'false'});
    }
    throw new TexError(name);
  }

  root() {
    if (this.peek() !== '[') return mathml('msqrt', [this.argument()]);
    this.at++;
    const index = this.row(token => token === ']');
    if (this.take() !== ']') throw new TexError(']');
    return mathml('mroot', [this.argument(), index]);
  }

  styled(variant) {
    const node = this.argument();
    const maps = {'double-struck': {C: 'ℂ', N: 'ℕ', Q: 'ℚ', R: 'ℝ', Z: 'ℤ', P: 'ℙ', F: '𝔽'}};
    if (maps[variant] && maps[variant][node.textContent]) {
      return mathml('mi', maps[variant][node.textContent]);
    }
    const style = {bold: 'font-weight: bold', normal: 'font-style: normal'}[variant];
    return mathml('mrow', [node], style ? {style} : {});
  }

  fence() {
    const token = this.take();
    if (token === '.') return '';
    if (token[0] !== '\\') return token;
    const name = token.slice(1);
    if (Object.hasOwn(SYMBOLS, name)) return SYMBOLS[name][1];
    return name === '|' ? '‖' : name;
  }

  fenced() {
    const open = mathml('mo', this.fence(), {fence: 'true', stretchy: 'true'});
    const row = this.row(() => false);
    if (this.take() !== '\\right') throw new TexError('\\right');
    const close = mathml('mo', this.fence(), {fence: 'true', stretchy: 'true'});
    return mathml('mrow', [open, row, close]);
  }

  environment() {
    const name = this.raw().replace('*', '');
    if (name === 'array' || name === 'tabular') this.raw();
    const rows = [[]];
    for (;;) {
      rows.at(-1).push(mathml('mtd', [this.row(
        token => token === '&' || token === '\\\\' || token === '\\end')]));
      const token = this.take();
      if (token === '\\\\') rows.push([]);
      else if (token === '\\end') break;
      else if (token !== '&') throw new TexError(token);
    }
    if (this.raw().replace('*', '') !== name) throw new TexError(name);
    const aligned = /align|split|eqnarray|gather/.test(name);
    const table = mathml('mtable', rows.map(cells => mathml('mtr', cells)),
      aligned ? {columnalign: 'right left', displaystyle: 'true'} : {});
    const [open, close] = FENCES[name] || '';
    return mathml('mrow', [
      ...(open ? [mathml('mo', open, {fence: 'true', stretchy: 'true'})] : []), table,
      ...(close ? [mathml('mo', close, {fence: 'true', stretchy: 'true'})] : [])]);
  }
}

function formula(source, isBlock, written) {
  try {
    const node = mathml('math', [new TexParser(source).all()]);
    if (isBlock) node.setAttribute('display', 'block');
    node.setAttribute('alttext', source);
    return node;
  } catch (error) {
    if (!(error instanceof TexError)) throw error;
    const code = document.createElement('code');
    code.className = 'tex';
    code.textContent = written;
    return code;
  }
}

// A dollar that opens has no space after it, and one that closes none before
// it and no digit after it: '$5 and $6' are amounts of money.
const FORMULA = new RegExp([
  String.raw`\$\$([^$]+)\$\$`,
  String.raw`\\\[([^]+?)\\\]`,
  String.raw`\\\(([^]+?)\\\)`,
  String.raw`\$(?!\s)((?:\\[^]|[^$\\]){1,800}?)(?<![\s\\])\$(?!\d)`,
  String.raw`(\\begin\{(align|equation|gather|eqnarray|multline)\*?\}[^]+?\\end\{\6\*?\})`,
  String.raw`(\\boxed\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\})`,
].join('|'), 'gu');

function renderText(text) {
  const fragment = document.createDocumentFragment();
  let end = 0;
  for (const match of text.matchAll(FORMULA)) {
    fragment.append(text.slice(end, match.index));
    const [written, dollars, brackets, parens, dollar, environment, , boxed] = match;
    const block = dollars ?? brackets ?? environment;
    const source = (block ?? parens ?? dollar ?? boxed)
      .replace(/\\(begin|end)\{(equation|multline)\*?\}/g, '');
    fragment.append(formula(source, block !== undefined, written));
    end = match.index + written.length;
  }
  fragment.append(text.slice(end));
  return fragment;
}
