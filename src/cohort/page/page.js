'use strict';
// The cases lie in the page; this sorts them by a measurement, and hides those that are not asked for.
const data = JSON.parse(document.getElementById('cohort-data').textContent);
const gallery = document.getElementById('gallery');
const controls = document.getElementById('controls');
const figures = [...gallery.children];

function choice(id, title, options) {
  const label = document.createElement('label');
  label.textContent = title;
  const select = document.createElement('select');
  select.id = id;
  for (const [value, text] of options) {
    select.add(new Option(text, value));
  }
  select.addEventListener('change', show);
  label.append(select);
  controls.append(label);
  return select;
}

const numbered = (names) => names.map((name, n) => [String(n), name]);
const names = (of) => [...new Set(data.cases.map(of))].sort().map((name) => [name, name || 'unknown']);
const all = [['', 'all']];
const sort = choice('sort', 'Sort by', [['', 'study'], ...numbered(data.measurements)]);
const order = choice('order', 'Order', [['-1', 'largest first'], ['1', 'smallest first']]);
const finding = choice('finding', 'Finding', [...all, ...data.findings.flatMap((name, n) =>
  [[`${n} true`, `${name}: present`], [`${n} false`, `${name}: absent`]])]);
const outcome = choice('outcome', 'Outcome', [...all, ...names((c) => c.outcome)]);
const scanner = choice('scanner', 'Scanner', [...all, ...names((c) => c.scanner).filter(([name]) => name)]);

function wanted(one) {
  const [n, present] = finding.value.split(' ');
  return (!finding.value || String(one.present[n]) === present)
    && (!outcome.value || one.outcome === outcome.value)
    && (!scanner.value || one.scanner === scanner.value);
}

function show() {
  const by = sort.value === '' ? null : Number(sort.value);
  const places = data.cases.map((_, n) => n);
  if (by !== null) {
    const value = (n) => data.cases[n].values[by] ?? null;
    // What has no value comes last, whatever the order.
    places.sort((a, b) => (value(a) === null) - (value(b) === null) || Number(order.value) * (value(a) - value(b)) || a - b);
  }
  let count = 0;
  for (const n of places) {
    const one = data.cases[n];
    const value = by === null ? null : one.values[by] ?? null;
    figures[n].hidden = !wanted(one);
    count += figures[n].hidden ? 0 : 1;
    figures[n].querySelector('.value').textContent = value === null ? '' : Number(value.toPrecision(4)).toString();
  }
  gallery.append(...places.map((n) => figures[n]));
  document.getElementById('shown').textContent = `${count} of ${data.cases.length} cases`;
}

controls.addEventListener('submit', (event) => event.preventDefault());
sort.value = data.by === null ? '' : String(data.by);
controls.hidden = false;
show();
