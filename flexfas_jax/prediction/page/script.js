'use strict';
const facts = JSON.parse(document.getElementById('facts').textContent);
const $ = (id) => document.getElementById(id);
const NAMES = { rgb: 'RGB', depth: 'Depth', ir: 'Infrared' };
const WORDS = { bona_fide: 'Bona fide', attack: 'Attack', fta: 'No decision' };
const nameOf = (m) => NAMES[m] || m;
const named = (subset) => subset.split('+').map(nameOf).join(' + ');
const percent = (x) => `${(100 * Math.min(1, Math.max(0, x))).toFixed(2)}%`;
// As many digits as tell a score from its threshold.
function digits(x, other) {
  if (x === null || x === undefined) return '–';
  for (let n = 3; n < 10; n++) {
    const text = x.toFixed(n);
    if (other === null || other === undefined || x === other || text !== other.toFixed(n)) return text;
  }
  return String(x);
}

const sensors = {};  // by modality: the elements, the picture (base64), whether it is switched on
let answer = null, asked = 0, live = null, chosen = '';

for (const modality of facts.modalities) {
  const element = $('sensor').content.firstElementChild.cloneNode(true);
  const find = (what) => element.querySelector(what);
  const sensor = sensors[modality] = {
    element, toggle: find('.switch input'), drop: find('.drop'), file: find('.drop input'),
    image: find('img'), video: find('video'), guide: find('.guide'), hint: find('.hint'),
    note: find('.note'), buttons: find('.buttons'), data: null, url: '',
  };
  element.id = `sensor-${modality}`;
  find('h2').textContent = nameOf(modality);
  find('.switch span').textContent = `Use ${nameOf(modality)}`;
  sensor.file.setAttribute('aria-label', `Choose the ${nameOf(modality)} picture`);
  const bits = facts.bits[modality] || [];
  find('small').textContent = `JPEG or PNG${bits.length ? `, ${bits.join(' or ')} bits` : ''}`;
  sensor.toggle.onchange = show;
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
  sensor.remove = button(sensor.buttons, 'Remove', () => { stop(); put(modality, null); ask(); });
  sensor.remove.hidden = true;
  if (modality === 'rgb') sensor.camera = button(sensor.buttons, 'Webcam', () => (live ? stop(true) : start()));
  $('sensors').append(element);
}
// A picture that misses its place must not take the page away.
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
  sensor.note.textContent = sensor.note.title = name;
  sensor.remove.hidden = !blob;
  sensor.image.hidden = !blob;
  sensor.hint.hidden = !!blob;
  if (blob) sensor.image.src = sensor.url; else sensor.image.removeAttribute('src');
  sensor.image.alt = blob ? `${nameOf(modality)}: ${name}` : '';
  sensor.drop.classList.toggle('full', !!blob);
  sensor.toggle.checked = true;
  mark('');
}

async function take(modality, file) {
  if (!file) return;
  if (live) stop();
  try {
    put(modality, file, file.name, await base64(file));
  } catch (error) {
    return fail(`${file.name} cannot be read: ${error.message}`);
  }
  ask();
}

async function ask() {
  const turn = ++asked, pictures = {};
  for (const [m, sensor] of Object.entries(sensors)) if (sensor.data) pictures[m] = sensor.data;
  fail('');
  if (!Object.keys(pictures).length) { answer = null; return show(); }
  $('verdict').classList.add('busy');
  if (!live) {  // what was said of other pictures is not said of these
    $('verdict').dataset.outcome = 'none';
    $('word').textContent = 'Looking…';
  }
  let found, error = '';
  try {
    const reply = await fetch('/decide', {
      method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify({ pictures }),
    });
    found = await reply.json();
    error = found.error || '';
  } catch {
    error = 'The server does not answer. Is it still running?';
  }
  if (turn !== asked) return;  // a later picture has been asked about
  $('verdict').classList.remove('busy');
  answer = error ? null : found;
  if (error) fail(error);
  show();
}

function fail(text) {
  $('error').textContent = text;
  $('error').hidden = !text;
}

// The subset that the switches leave of what is there.
function current() {
  return answer.present.filter((m) => sensors[m].toggle.checked).join('+');
}

function show() {
  for (const [m, sensor] of Object.entries(sensors)) {
    const there = answer && answer.present.includes(m);
    sensor.toggle.disabled = !there;
    sensor.element.classList.toggle('off', !!answer && !!sensor.data && (!there || !sensor.toggle.checked));
    // Browsers show 16 bits as black: what the model sees says more.
    if (there && m !== 'rgb' && answer.seen[m]) sensor.image.src = answer.seen[m];
  }
  const failed = !$('error').hidden;
  let decision = null;
  if (answer) {
    const subset = current();
    decision = subset ? answer.subsets[subset] : null;
    if (!subset && !answer.present.length) decision = answer.decision;
    decision ||= { decision: 'fta', score: null, threshold: null, used: [], reasons: ['no sensor is switched on'] };
  }
  const outcome = decision ? decision.decision : failed ? 'fta' : 'none';
  $('verdict').dataset.outcome = outcome;
  $('word').textContent = decision ? WORDS[outcome] : failed ? 'No decision' : 'Waiting for a picture';
  const looked = decision && decision.used.length ? `by ${decision.used.map(nameOf).join(' + ')}` : '';
  $('saying').textContent = !decision ? (failed ? '' : 'A score at or above the threshold is accepted.')
    : outcome === 'bona_fide' ? `Accepted, ${looked}.`
    : outcome === 'attack' ? `Rejected, ${looked}.` : 'Nothing that could be judged: not accepted.';
  const scored = decision && decision.score !== null;
  $('scale').classList.toggle('none', !scored);
  if (scored) {
    $('scale').style.setProperty('--s', percent(decision.score));
    $('scale').style.setProperty('--t', percent(decision.threshold));
  }
  $('score').textContent = scored ? digits(decision.score, decision.threshold) : '–';
  $('threshold').textContent = scored ? digits(decision.threshold, decision.score) : '–';
  $('time').textContent = answer ? `${answer.milliseconds.toFixed(1)} ms` : '–';
  const rule = decision && facts.thresholds[decision.used.join('+')];
  $('threshold').title = rule ? rule.rule : '';
  $('reasons').replaceChildren(...(decision ? decision.reasons : []).map((text) => {
    const item = document.createElement('li');
    item.textContent = text;
    return item;
  }));
  compare();
}

function compare() {
  const subsets = answer ? Object.keys(answer.subsets) : [];
  $('compare').hidden = !subsets.length;
  if (!subsets.length) return;
  const order = (s) => facts.modalities.reduce((n, m, i) => n + (s.split('+').includes(m) ? 1 << i : 0), 0);
  subsets.sort((a, b) => a.split('+').length - b.split('+').length || order(a) - order(b));
  const now = current();
  const accepted = subsets.filter((s) => answer.subsets[s].accepted).length;
  $('compare-text').textContent = subsets.length === 1
    ? 'Give pictures of further sensors to see what they change.'
    : `${accepted} of ${subsets.length} sets of sensors would accept this. Each has a threshold of its own.`;
  const known = subsets.some((s) => typeof facts.acer[s] === 'number');
  $('acer-head').textContent = known ? `ACER on ${facts.test}` : '';
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
    for (const m of answer.present) sensors[m].toggle.checked = subset.split('+').includes(m);
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
  const said = cell(WORDS[one.decision], 'pill');
  said.title = one.reasons.join('; ');
  const acer = facts.acer[subset];
  cell(typeof acer === 'number' ? `${(100 * acer).toFixed(1)} %` : '', 'number');
  made.onclick = choose;
  return made;
}

// The webcam: RGB alone, for other sensors' pictures would be of another moment.
async function start() {
  const rgb = sensors.rgb;
  fail('');
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
  for (const m of facts.modalities) put(m, null);
  live = { stream };
  stream.getVideoTracks()[0].onended = () => { stop(true); fail('The webcam has stopped.'); };
  rgb.video.srcObject = stream;
  rgb.video.hidden = false;
  rgb.hint.hidden = true;
  rgb.guide.hidden = !!facts.crop;
  rgb.camera.textContent = 'Stop';
  rgb.note.textContent = facts.crop ? 'live' : 'hold your face into the oval';
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
  if (!facts.crop) {  // what the guide shows: the middle square
    const side = Math.min(w, h);
    [x, y, w, h] = [(w - side) / 2, (h - side) / 2, side, side];
  }
  [canvas.width, canvas.height] = [w, h];
  canvas.getContext('2d').drawImage(video, x, y, w, h, 0, 0, w, h);
  const blob = await new Promise((done) => canvas.toBlob(done, 'image/png'));
  if (!live || !blob) return;
  live.blob = blob;
  sensors.rgb.data = await base64(blob);
  if (live) await ask();
}

// Stops the webcam; `keep` leaves its last frame as the picture.
function stop(keep = false) {
  if (!live) return;
  const rgb = sensors.rgb, { stream, blob } = live, { data } = rgb;
  live = null;
  asked++;
  $('verdict').classList.remove('busy');
  stream.getTracks().forEach((track) => track.stop());
  rgb.video.srcObject = null;
  rgb.video.hidden = rgb.guide.hidden = true;
  rgb.camera.textContent = 'Webcam';
  put('rgb', keep && blob ? blob : null, keep && blob ? 'webcam' : '', keep && blob ? data : null);
  ask();
}

async function sample(one) {
  stop();
  for (const m of facts.modalities) put(m, null);
  mark(one.id);
  try {
    await Promise.all(Object.entries(one.files).map(async ([m, path]) => {
      const reply = await fetch(`/${path}`);
      if (!reply.ok) throw Error((await reply.json()).error);
      const blob = await reply.blob();
      put(m, blob, path.split('/').pop(), await base64(blob));
    }));
  } catch (error) {
    return fail(`The sample cannot be read: ${error.message}`);
  }
  mark(one.id);
  ask();
}

function mark(id) {
  chosen = id;
  for (const chip of $('chips').children) chip.classList.toggle('chosen', !!id && chip.dataset.id === id);
}

for (const one of facts.samples) {
  const chip = button($('chips'), '', () => sample(one)), text = document.createElement('span');
  const [first] = Object.values(one.files);
  if (first) chip.append(Object.assign(document.createElement('img'), { src: `/${first}`, alt: '', loading: 'lazy' }));
  text.append(WORDS[one.label] || 'A sample', Object.assign(document.createElement('small'), { textContent: one.id }));
  chip.append(text);
  chip.dataset.id = one.id;
}
$('samples').hidden = !facts.samples.length;
$('model').textContent = `Model ${facts.name} (${facts.model})${facts.crop ? `, faces by ${facts.crop}` : '; pictures are of a face, cropped'}`;
for (const text of [...facts.remarks, facts.licence].filter(Boolean)) {
  $('remarks').append(Object.assign(document.createElement('p'), { textContent: text }));
}
show();
document.documentElement.dataset.ready = 'yes';
