'use strict';
const page = JSON.parse(document.getElementById('data').textContent);
const $ = (id) => document.getElementById(id);
const NAMES = { rgb: 'RGB', depth: 'Depth', ir: 'Infrared' };
const WORDS = { bona_fide: 'Bona fide', attack: 'Attack', fta: 'No decision' };
const nameOf = (m) => NAMES[m] || m;
const named = (subset) => subset.split('+').map(nameOf).join(' + ');
const percent = (x) => `${(100 * Math.min(1, Math.max(0, x))).toFixed(2)}%`;
// As many digits as distinguish a score from its threshold.
function digits(x, other) {
  if (x === null || x === undefined) return '–';
  for (let n = 3; n < 10; n++) {
    const text = x.toFixed(n);
    if (other === null || other === undefined || x === other || text !== other.toFixed(n)) return text;
  }
  return String(x);
}

const LIVE = 1500;  // milliseconds for which a decision about the webcam is shown without a newer one
const FILES = Object.values(page.formats).flat().join(',');
const FORMATS = Object.keys(page.formats).join(', ');

const sensors = {};  // by modality: the elements, the image (base64), the number of its changes
let answer = null, asked = 0, pending = null, sampled = 0, live = null;
const past = [];  // decisions of this session, the newest last

for (const modality of page.modalities) {
  const element = $('sensor').content.firstElementChild.cloneNode(true);
  const find = (what) => element.querySelector(what);
  const sensor = sensors[modality] = {
    element, toggle: find('.switch input'), drop: find('.drop'), file: find('.drop input'),
    image: find('img'), video: find('video'), guide: find('.guide'), hint: find('.hint'),
    note: find('.note'), buttons: find('.buttons'), data: null, url: '', preview: true, changes: 0,
    on: true, once: false,
  };
  element.id = `sensor-${modality}`;
  find('h2').textContent = nameOf(modality);
  find('.switch span').textContent = `Use ${nameOf(modality)}`;
  sensor.file.setAttribute('aria-label', `Choose the ${nameOf(modality)} image`);
  sensor.file.accept = FILES;
  // Browsers do not show every format: the model's input is shown instead.
  sensor.image.onerror = () => { sensor.preview = false; show(); };
  const bits = page.bits[modality] || [];
  find('small').textContent = `${FORMATS}${bits.length ? `; ${bits.join(' or ')} bits` : ''}`;
  sensor.toggle.onchange = () => { sensor.on = sensor.toggle.checked; show(); };
  sensor.file.onchange = () => { take(modality, sensor.file.files[0]); sensor.file.value = ''; };
  for (const kind of ['dragenter', 'dragover']) {
    sensor.drop.addEventListener(kind, (e) => { e.preventDefault(); sensor.drop.classList.add('over'); });
  }
  sensor.drop.addEventListener('dragleave', () => sensor.drop.classList.remove('over'));
  sensor.drop.addEventListener('drop', (e) => {
    e.preventDefault();
    sensor.drop.classList.remove('over');
    take(modality, e.dataTransfer.files[0]);
  });
  sensor.remove = button(sensor.buttons, 'Remove', () => { stop(); sampled++; put(modality, null); ask(); });
  sensor.remove.hidden = true;
  if (modality === 'rgb') sensor.camera = button(sensor.buttons, 'Webcam', () => (live ? stop(true) : start()));
  $('sensors').append(element);

  const allow = sensor.allow = document.createElement('input'), label = document.createElement('label');
  allow.type = 'checkbox';
  allow.checked = page.allow_absent.includes(modality);
  allow.disabled = page.require.includes(modality);
  allow.onchange = () => { sensor.once = false; forget(); if (!live) ask(); };
  label.append(allow, nameOf(modality));
  $('absent').append(label);
}
$('absent').hidden = page.modalities.length < 2;
// An image dropped elsewhere must not replace the page.
for (const kind of ['dragover', 'drop']) addEventListener(kind, (e) => e.preventDefault());

function button(parent, text, action) {
  const made = document.createElement('button');
  made.type = 'button';
  made.textContent = text;
  made.onclick = action;
  parent.append(made);
  return made;
}

async function base64(blob) {
  const url = await new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.onerror = () => failed(reader.error);
    reader.readAsDataURL(blob);
  });
  return url.slice(url.indexOf(',') + 1);
}

function put(modality, blob, name = '', data = null) {
  const sensor = sensors[modality];
  if (sensor.url) URL.revokeObjectURL(sensor.url);
  sensor.url = blob ? URL.createObjectURL(blob) : '';
  sensor.data = data;
  sensor.changes++;
  sensor.preview = true;
  sensor.note.textContent = sensor.note.title = name;
  sensor.remove.hidden = !blob;
  sensor.image.hidden = !blob;
  sensor.hint.hidden = !!blob;
  if (blob) sensor.image.src = sensor.url; else sensor.image.removeAttribute('src');
  sensor.image.alt = blob ? `${nameOf(modality)}: ${name}` : '';
  sensor.drop.classList.toggle('full', !!blob);
  sensor.on = true;
  // "Decide without" is about the image that was unusable, not about the next one.
  if (sensor.once) sensor.allow.checked = sensor.once = false;
  mark('');
}

// Clears the decision about other images, and ignores pending responses.
function forget() {
  asked++;
  pending?.abort();
  pending = answer = null;
  $('verdict').classList.remove('busy');
  fail('');
  show();
}

async function take(modality, file) {
  if (!file) return;
  stop();
  sampled++;
  put(modality, null);
  forget();
  const sensor = sensors[modality], change = sensor.changes;
  let data = null, error = '';
  try {
    data = await base64(file);
  } catch (problem) {
    error = `${file.name} cannot be read: ${problem.message}`;
  }
  if (change !== sensor.changes) return;  // another image has been chosen since
  if (error) {
    remember(refusal(error), { [modality]: file.name }, allowed(), null);
    return fail(error);
  }
  put(modality, file, file.name, data);
  ask();
}

async function ask() {
  if (live) {
    // Keep the decision about the last frame for a moment, so that it does not blink.
    clearTimeout(live.expires);
    live.expires = setTimeout(() => { answer = null; show(); }, LIVE);
  } else {
    forget();
  }
  const turn = ++asked, images = {}, mine = live;
  for (const [m, sensor] of Object.entries(sensors)) if (sensor.data) images[m] = sensor.data;
  if (!Object.keys(images).length) return;
  const allow_absent = allowed();
  $('verdict').classList.add('busy');
  if (!live) $('word').textContent = 'Deciding…';
  pending = new AbortController();
  let result = null, error = '';
  try {
    const reply = await fetch('/decide', {
      method: 'POST', headers: { 'Content-Type': 'application/json' }, signal: pending.signal,
      body: JSON.stringify({ images, allow_absent }),
    });
    result = await reply.json();
    if (!reply.ok) error = result.error || `The server failed (${reply.status}).`;
  } catch {
    error = 'The server does not respond. Is it running?';
  }
  if (turn !== asked) return;  // a newer request has been sent
  if (mine) clearTimeout(mine.expires);
  $('verdict').classList.remove('busy');
  answer = error ? null : result;
  fail(error);
  show();
  const names = Object.keys(images).map((m) => [m, mine ? 'webcam' : sensors[m].note.title]);
  remember(answer || refusal(error), Object.fromEntries(names), allow_absent, mine);
}

function fail(text) {
  $('error').textContent = text;
  $('error').hidden = !text;
  if (text) {
    answer = null;
    show();
  }
}

// The present modalities that are switched on.
function current() {
  return answer.present.filter((m) => sensors[m].on).join('+');
}

function show() {
  // If a sensor is unusable and may not be absent, there is no decision about any subset.
  const decided = answer && Object.keys(answer.subsets).length > 0;
  for (const [m, sensor] of Object.entries(sensors)) {
    const present = answer && answer.present.includes(m);
    // Of a sensor without an image, or with an unusable one, the switch is off.
    sensor.toggle.checked = sensor.on && (answer ? present : !!sensor.data);
    sensor.toggle.disabled = !present || !decided;
    sensor.element.classList.toggle('off', !!answer && !!sensor.data && (!present || !sensor.on));
    // Browsers show 16 bits as black: show the model's input instead.
    const input = (m !== 'rgb' || !sensor.preview) && answer && answer.inputs[m];
    const source = input || (sensor.preview ? sensor.url : '');
    sensor.image.hidden = !source;
    if (source && sensor.image.src !== source) sensor.image.src = source;
  }
  const failed = !$('error').hidden;
  let decision = null;
  if (answer) {
    const subset = current();
    decision = decided ? answer.subsets[subset] : answer.decision;
    decision ||= { decision: 'fta', score: null, threshold: null, used: [], reasons: ['no sensor is switched on'] };
  }
  const outcome = decision ? decision.decision : failed ? 'fta' : 'none';
  $('verdict').dataset.outcome = outcome;
  $('word').textContent = decision ? WORDS[outcome] : failed ? 'No decision' : 'Waiting for an image';
  const sensorsUsed = decision && decision.used.length ? `by ${decision.used.map(nameOf).join(' + ')}` : '';
  const unusable = answer && !decided ? answer.unusable.map(nameOf) : [];
  const blocked = unusable.length ? ` Capture ${unusable.join(' and ')} again, or decide without.` : '';
  $('explanation').textContent = !decision ? (failed ? '' : 'A score at or above the threshold is accepted.')
    : outcome === 'bona_fide' ? `Accepted, ${sensorsUsed}.`
    : outcome === 'attack' ? `Rejected, ${sensorsUsed}.` : `Failure to acquire: not accepted.${blocked}`;
  const scored = decision && decision.score !== null;
  $('scale').classList.toggle('none', !scored);
  if (scored) {
    $('scale').style.setProperty('--s', percent(decision.score));
    $('scale').style.setProperty('--t', percent(decision.threshold));
  }
  $('score').textContent = scored ? digits(decision.score, decision.threshold) : '–';
  $('threshold').textContent = scored ? digits(decision.threshold, decision.score) : '–';
  $('time').textContent = answer ? `${answer.milliseconds.toFixed(1)} ms` : '–';
  const rule = decision && page.thresholds[decision.used.join('+')];
  $('threshold').title = rule ? rule.rule : '';
  $('reasons').replaceChildren(...(decision ? decision.reasons : []).map((text) => item(text)));
  // One click for what the reason offers: decide without the sensors that are unusable.
  const offered = answer && !decided ? answer.unusable.filter((m) => !sensors[m].allow.disabled) : [];
  $('without').replaceChildren();
  $('without').hidden = !(offered.length && offered.length === answer.unusable.length && answer.present.length);
  if (!$('without').hidden) {
    button($('without'), `Decide without ${offered.map(nameOf).join(' and ')}`, () => {
      for (const m of offered) if (!sensors[m].allow.checked) sensors[m].allow.checked = sensors[m].once = true;
      forget();
      if (!live) ask();
    });
  }
  compare();
}

function item(text) {
  return Object.assign(document.createElement('li'), { textContent: text });
}

// The modalities that may be unusable.
function allowed() {
  return page.modalities.filter((m) => sensors[m].allow.checked);
}

// The record of images that were refused: no decision, and why.
function refusal(reason) {
  const decision = { decision: 'fta', accepted: false, score: null, threshold: null, used: [], unusable: [], reasons: [reason] };
  return { decision, subsets: {}, milliseconds: null };
}

// Adds a decision to the history; of the webcam, one that differs from the one before.
function remember(result, images, allow_absent, stream) {
  const { decision } = result, last = past[past.length - 1];
  if (stream && stream === last?.stream && decision.decision === last.decision &&
      decision.used.join() === last.used.join()) return;
  past.push({
    stream, time: new Date().toISOString(), decision: decision.decision, accepted: decision.accepted,
    score: decision.score, threshold: decision.threshold, used: decision.used,
    unusable: decision.unusable, reasons: decision.reasons, allow_absent, images,
    subsets: Object.fromEntries(Object.entries(result.subsets).map(([name, one]) =>
      [name, { decision: one.decision, score: one.score, threshold: one.threshold }])),
    milliseconds: result.milliseconds,
  });
  listPast();
}

function listPast() {
  $('history').hidden = !past.length;
  $('past').replaceChildren(...past.toReversed().map((one) => {
    const row = document.createElement('tr');
    row.dataset.outcome = one.decision;
    const files = Object.values(one.images).join(', ') + (one.score === null && one.reasons.length ? `: ${one.reasons.join('; ')}` : '');
    for (const [text, kind] of [
      [one.time.slice(11, 19), ''], [WORDS[one.decision], 'pill'], [one.used.map(nameOf).join(' + ') || '–', ''],
      [digits(one.score, one.threshold), 'number'], [digits(one.threshold, one.score), 'number'], [files, 'file'],
    ]) Object.assign(row.insertCell(), { className: kind, textContent: text });
    row.title = one.reasons.join('; ');
    return row;
  }));
}

const COLUMNS = ['time', 'decision', 'accepted', 'score', 'threshold', 'used', 'unusable', 'allow_absent',
  'images', 'reasons', 'milliseconds', 'bundle', 'model', 'card_sha256'];

function records() {
  return past.map(({ stream, ...one }) => one);
}

function csv() {
  const text = (value) => {
    if (value === null || value === undefined) return '';
    if (typeof value === 'number' || typeof value === 'boolean') return String(value);
    if (Array.isArray(value)) return value.join('; ');
    return typeof value === 'object' ? Object.entries(value).map((pair) => pair.join('=')).join('; ') : String(value);
  };
  // A spreadsheet would run a cell that begins as a formula; names of files come from anywhere.
  const cell = (value) => {
    const written = text(value), plain = typeof value === 'string' && /^[=+\-@\t\r]/.test(written) ? `'${written}` : written;
    return /[",\r\n;]/.test(plain) ? `"${plain.replaceAll('"', '""')}"` : plain;
  };
  const all = { bundle: page.name, model: page.model, card_sha256: page.card_sha256 };
  const rows = records().map((one) => COLUMNS.map((name) => cell({ ...all, ...one }[name])).join(','));
  return [COLUMNS.join(','), ...rows, ''].join('\n');
}

function save(text, kind, name) {
  const url = URL.createObjectURL(new Blob([text], { type: kind }));
  Object.assign(document.createElement('a'), { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

button($('export'), 'CSV', () => save(csv(), 'text/csv', 'decisions.csv'));
button($('export'), 'JSON', () => save(JSON.stringify({
  bundle: page.name, model: page.model, card_sha256: page.card_sha256, notes: page.notes, decisions: records(),
}, null, 1), 'application/json', 'decisions.json'));
button($('export'), 'Clear', () => { past.length = 0; listPast(); });
for (const [index, what] of ['Save the decisions as CSV', 'Save the decisions as JSON', 'Clear the decisions'].entries()) {
  $('export').children[index].setAttribute('aria-label', what);
}

function compare() {
  const subsets = answer ? Object.keys(answer.subsets) : [];
  $('compare').hidden = !subsets.length;
  if (!subsets.length) return;
  const order = (s) => page.modalities.reduce((n, m, i) => n + (s.split('+').includes(m) ? 1 << i : 0), 0);
  subsets.sort((a, b) => a.split('+').length - b.split('+').length || order(a) - order(b));
  const now = current();
  const accepted = subsets.filter((s) => answer.subsets[s].accepted).length;
  $('compare-text').textContent = subsets.length === 1
    ? 'Give images of further sensors to see their effect.'
    : `${accepted} of ${subsets.length} sets of sensors would accept this. Each has a threshold of its own.`;
  const known = subsets.some((s) => typeof page.acer[s] === 'number');
  $('acer-head').textContent = known ? `ACER on ${page.test}` : '';
  $('rows').replaceChildren(...subsets.map((subset) => row(subset, answer.subsets[subset], subset === now)));
}

function row(subset, one, isCurrent) {
  const made = document.createElement('tr');
  made.dataset.outcome = one.decision;
  made.dataset.subset = subset;
  made.className = isCurrent ? 'current' : '';
  const cell = (text, kind = '') => {
    const td = made.insertCell();
    td.className = kind;
    td.textContent = text;
    return td;
  };
  const choose = () => {
    for (const m of answer.present) sensors[m].on = subset.split('+').includes(m);
    show();
  };
  const first = cell('');
  button(first, named(subset), null).setAttribute('aria-pressed', isCurrent);
  const bar = document.createElement('div');
  bar.className = one.score === null ? 'bar noscore' : 'bar';
  for (const part of one.score === null ? [] : ['reject', 'line', 'mark']) {
    const i = document.createElement('i');
    i.className = part;
    bar.append(i);
  }
  if (one.score !== null) {
    bar.style.setProperty('--s', percent(one.score));
    bar.style.setProperty('--t', percent(one.threshold));
  }
  cell('').append(bar);
  cell(digits(one.score, one.threshold), 'number');
  cell(digits(one.threshold, one.score), 'number');
  const outcome = cell(WORDS[one.decision], 'pill');
  outcome.title = one.reasons.join('; ');
  const acer = page.acer[subset];
  cell(typeof acer === 'number' ? `${(100 * acer).toFixed(1)} %` : '', 'number');
  made.onclick = choose;
  return made;
}

// The webcam gives RGB only: images of other sensors would be from another moment.
async function start() {
  const rgb = sensors.rgb, turn = ++sampled;
  for (const m of page.modalities) put(m, null);
  forget();
  if (!navigator.mediaDevices) {
    return fail('The browser gives the webcam only to pages of this computer: open http://127.0.0.1.');
  }
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: 'user' }, audio: false });
  } catch (error) {
    return fail({
      NotAllowedError: 'The webcam was refused. Allow it beside the address of this page, and try again.',
      NotFoundError: 'No webcam was found on this computer.',
      NotReadableError: 'The webcam is in use by another program.',
    }[error.name] || `The webcam does not start: ${error.message}`);
  }
  if (turn !== sampled) {  // the user has made another choice meanwhile
    stream.getTracks().forEach((track) => track.stop());
    return;
  }
  live = { stream };
  stream.getVideoTracks()[0].onended = () => { stop(true); fail('The webcam has stopped.'); };
  rgb.video.srcObject = stream;
  rgb.video.hidden = false;
  rgb.hint.hidden = true;
  rgb.guide.hidden = !!page.crop;
  rgb.camera.textContent = 'Stop';
  rgb.note.textContent = page.crop ? 'live' : 'hold your face into the oval';
  await rgb.video.play();
  const mine = live;
  while (live === mine) {
    await frame();
    await new Promise((next) => setTimeout(next, 300));
  }
}

async function frame() {
  const { video } = sensors.rgb, canvas = document.createElement('canvas');
  if (!video.videoWidth) return;
  let w = video.videoWidth, h = video.videoHeight, x = 0, y = 0;
  if (!page.crop) {  // the central square, as the guide shows
    const side = Math.min(w, h);
    [x, y, w, h] = [(w - side) / 2, (h - side) / 2, side, side];
  }
  [canvas.width, canvas.height] = [w, h];
  canvas.getContext('2d').drawImage(video, x, y, w, h, 0, 0, w, h);
  const blob = await new Promise((done) => canvas.toBlob(done, 'image/png'));
  if (!live || !blob) return;
  const mine = live, data = await base64(blob);
  if (live !== mine) return;
  live.blob = blob;
  sensors.rgb.data = data;
  await ask();
}

// Stops the webcam; `keep` leaves its last frame as the image.
function stop(keep = false) {
  if (!live) return;
  const rgb = sensors.rgb, { stream, blob, expires } = live, { data } = rgb;
  clearTimeout(expires);
  live = null;
  stream.getTracks().forEach((track) => track.stop());
  rgb.video.srcObject = null;
  rgb.video.hidden = rgb.guide.hidden = true;
  rgb.camera.textContent = 'Webcam';
  put('rgb', keep && blob ? blob : null, keep && blob ? 'webcam' : '', keep && blob ? data : null);
  ask();
}

async function sample(one) {
  stop();
  const turn = ++sampled;
  for (const m of page.modalities) put(m, null);
  forget();
  mark(one.id);
  let parts = [], error = '';
  try {
    parts = await Promise.all(Object.entries(one.files).map(async ([m, path]) => {
      const reply = await fetch(`/${path}`);
      if (!reply.ok) throw Error((await reply.json()).error);
      const blob = await reply.blob();
      return [m, blob, path.split('/').pop(), await base64(blob)];
    }));
  } catch (problem) {
    error = `The sample cannot be read: ${problem.message}`;
  }
  if (turn !== sampled) return;  // the user has made another choice since
  if (error) return fail(error);
  for (const part of parts) put(...part);
  mark(one.id);
  ask();
}

function mark(id) {
  for (const chip of $('chips').children) chip.classList.toggle('chosen', !!id && chip.dataset.id === id);
}

for (const one of page.samples) {
  const chip = button($('chips'), '', () => sample(one)), text = document.createElement('span');
  const [first] = Object.values(one.files);
  if (first) chip.append(Object.assign(document.createElement('img'), { src: `/${first}`, alt: '', loading: 'lazy' }));
  text.append(WORDS[one.label] || 'A sample', Object.assign(document.createElement('small'), { textContent: one.id }));
  chip.append(text);
  chip.dataset.id = one.id;
}
$('samples').hidden = !page.samples.length;
$('model').textContent = `Model ${page.name} (${page.model})${page.crop ? `, faces by ${page.crop}` : '; images must be cropped faces'}`;
const limits = [...(page.failed || []), ...page.notes];
if (limits.length || page.rendered) {
  const [first, ...others] = limits.length ? limits : ['Trained and evaluated on RENDERED faces.'];
  const word = Object.assign(document.createElement('strong'), { textContent: page.rendered ? 'RENDERED' : 'WARNING' });
  const find = (what) => $('banner').querySelector(what);
  find('p').append(word, ` ${first}`);
  find('summary').textContent = `${others.length} more`;
  find('ul').append(...others.map(item));
  find('details').hidden = !others.length;
  $('banner').hidden = false;
}
$('samples-licence').textContent = page.samples_licence;
const footer = (text) => $('notes').append(Object.assign(document.createElement('p'), { textContent: text }));
if (page.licence) footer(`Licence of the model: ${page.licence}`);
if (page.never_recorded.length) {
  footer(`Left out, because the data of this model never had it: ${page.never_recorded.map(nameOf).join(', ')}.`);
}
show();
document.documentElement.dataset.ready = 'yes';
