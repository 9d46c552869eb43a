const content = JSON.parse(document.getElementById("content").textContent);
const { classes, labels, networks } = content;
const numbers = new Float32Array(Uint8Array.from(atob(content.logits), letter => letter.charCodeAt(0)).buffer);
const students = networks.map((name, number) => number).slice(1);  // network 0 is the teacher
const TEMPERATURES = [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.25, 1.5, 1.75, 2, 2.5, 3, 3.5, 4, 4.5, 5,
  6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20];
const AXES = [1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01];
const EPS = 1e-7;
const at = id => document.getElementById(id);
const sum = values => values.reduce((total, value) => total + value, 0);

// The quantities. They are those of kdhelpers.analysis: divergence, standardized_divergence and decoupled_divergences.

function logits(network, image) {
  const start = (network * labels.length + image) * classes.length;
  return Array.from(numbers.subarray(start, start + classes.length));
}

function standardised(z) {
  const mean = sum(z) / z.length, centred = z.map(value => value - mean);
  const std = Math.sqrt(sum(centred.map(value => value * value)) / Math.max(1, z.length - 1));
  return centred.map(value => value / (std + EPS));
}

function logSumExp(z) {
  const largest = z.reduce((a, b) => Math.max(a, b), -Infinity);
  return largest + Math.log(sum(z.map(value => Math.exp(value - largest))));
}

function logProbabilities(network, image, T, standardise) {
  const z = logits(network, image), scaled = (standardise ? standardised(z) : z).map(value => value / T);
  const total = logSumExp(scaled);
  return scaled.map(value => value - total);
}

const divergence = (logP, logQ) => sum(logP.map((value, c) => Math.exp(value) * (value - logQ[c])));
const variation = (logP, logQ) => sum(logP.map((value, c) => Math.abs(Math.exp(value) - Math.exp(logQ[c])))) / 2;
const labelOrNot = (logP, label) => [logP[label], logSumExp(logP.filter((value, c) => c !== label))];
const argmax = values => values.reduce((best, value, c) => value > values[best] ? c : best, 0);

// What sorts and filters the images: at T = 1, of the logits as they are.

const images = labels.map((label, image) => {
  const logP = networks.map((name, network) => logProbabilities(network, image, 1, false));
  return {
    image, label, confidence: Math.exp(Math.max(...logP[0])),
    right: logP.map(one => argmax(one) === label),
    kl: logP.map(one => divergence(logP[0], one)),
    variation: logP.map(one => variation(logP[0], one)),
    classes: classesOf(logP.map(one => one.map(Math.exp)), label),
  };
});

/** The classes with bars: all in their order if they are few, otherwise the most probable ones and the label. */
function classesOf(probabilities, label) {
  const all = classes.map((name, c) => c);
  if (classes.length <= content.top) return all;
  const most = all.map(c => Math.max(...probabilities.map(p => p[c])));
  const top = all.slice().sort((a, b) => most[b] - most[a]).slice(0, content.top);
  return [...new Set([...top, label])].sort((a, b) => probabilities[0][b] - probabilities[0][a]);
}

const ORDERS = {
  kl: (one, student) => -one.kl[student],
  variation: (one, student) => -one.variation[student],
  sure: one => -one.confidence,
  unsure: one => one.confidence,
  index: one => content.index[one.image],
};
const OUTCOMES = {
  "all images": () => true,
  "teacher right, student wrong": (one, student) => one.right[0] && !one.right[student],
  "teacher wrong, student right": (one, student) => !one.right[0] && one.right[student],
  "both wrong": (one, student) => !one.right[0] && !one.right[student],
  "both right": (one, student) => one.right[0] && one.right[student],
};
let listed = [], current = 0;  // the images of the choice, and the one that is shown

const thumbs = images.map(({ image, label }) => {
  const button = document.createElement("button");
  button.setAttribute("role", "option");
  button.title = `${classes[label]}, test image ${content.index[image]}`;
  button.setAttribute("aria-label", button.title);
  button.tabIndex = -1;
  place(button, image);
  button.addEventListener("click", () => show(image));
  return button;
});

function place(element, image) {
  const columns = content.columns, rows = Math.ceil(labels.length / columns);
  const share = (cell, count) => `${100 * cell / Math.max(1, count - 1)}%`;
  element.style.backgroundPosition = `${share(image % columns, columns)} ${share(Math.floor(image / columns), rows)}`;
}

function choose() {
  const student = Number(at("student").value), wanted = at("class").value, key = ORDERS[at("order").value];
  const outcomes = Object.values(OUTCOMES), ofClass = images.filter(one => wanted === "" || one.label === Number(wanted));
  [...at("outcome").options].forEach((option, i) => {
    option.textContent = `${option.value} (${ofClass.filter(one => outcomes[i](one, student)).length})`;
  });
  const kept = ofClass.filter(one => OUTCOMES[at("outcome").value](one, student));
  listed = kept.sort((a, b) => key(a, student) - key(b, student)).map(one => one.image);
  images.forEach(one => thumbs[one.image].classList.toggle("wrong", !one.right[student]));
  at("thumbs").replaceChildren(...listed.map(image => thumbs[image]));
  at("none").hidden = listed.length > 0;
  at("explorer").hidden = listed.length === 0;
  if (listed.length) show(listed[0]);
}

function show(image) {
  const box = at("thumbs"), old = thumbs[current], thumb = thumbs[image], { label } = images[image];
  const hadFocus = document.activeElement === old;
  old.tabIndex = -1;
  old.removeAttribute("aria-selected");
  current = image;
  thumb.tabIndex = 0;
  thumb.setAttribute("aria-selected", "true");
  if (hadFocus) thumb.focus({ preventScroll: true });
  box.scrollTo(thumb.offsetLeft - box.clientWidth / 2 + 23, thumb.offsetTop - box.clientHeight / 2 + 23);
  place(at("picture"), image);
  at("picture").setAttribute("aria-label", thumb.title);
  at("label").textContent = classes[label];
  at("where").textContent = `test image ${content.index[image]} · ${listed.indexOf(image) + 1} of ${listed.length}`;
  draw();
}

function step(by) {
  const place = listed.indexOf(current) + by;
  if (place >= 0 && place < listed.length) show(listed[place]);
}

// The networks at a temperature.

const percent = value => `${(100 * value).toFixed(1)} %`;
const nats = value => {
  if (!Number.isFinite(value)) return "–";
  const positive = Math.max(0, value);  // rounding makes a small divergence negative
  return `${positive < 1e6 ? positive.toFixed(4) : positive.toExponential(2)} nats`;
};

function element(tag, className, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

function draw() {
  const T = TEMPERATURES[at("temperature").value], standardise = at("standardise").checked;
  const logP = networks.map((name, network) => logProbabilities(network, current, T, standardise));
  const p = logP.map(one => one.map(Math.exp)), rows = images[current].classes;
  const longest = Math.max(...p.map(one => Math.max(...rows.map(c => one[c]))));
  const axis = AXES.filter(end => end >= longest).pop() || 1;
  at("shown-temperature").textContent = `T = ${T}`;
  at("temperature").setAttribute("aria-valuetext", `T = ${T}`);
  at("axis").textContent = `Bars from 0 to ${100 * axis} %.`;
  at("networks").replaceChildren(...networks.map((name, network) => {
    const card = element("div", network ? "card" : "card teacher"), best = argmax(logP[network]);
    const verdict = `predicts ${classes[best]}, ${best === labels[current] ? "right" : "wrong"}`;
    card.append(element("h3", "", name), element("div", "muted", verdict));
    card.append(...rows.map(c => bar(classes[c], p[network][c], axis, c === labels[current], network ? p[0][c] : null)));
    if (rows.length < classes.length) card.append(rest(1 - sum(rows.map(c => p[network][c])), classes.length - rows.length));
    if (network) card.append(facts(network, logP, T, standardise));
    return card;
  }));
}

function bar(name, value, axis, isLabel, ofTeacher) {
  const row = element("div", isLabel ? "row label" : "row"), track = element("span", "track"), fill = element("span", "fill");
  const ends = share => `${100 * Math.min(1, share / axis)}%`;
  fill.style.width = ends(value);
  track.append(fill);
  if (ofTeacher !== null) {
    const tick = element("span", "tick");
    tick.style.left = ends(ofTeacher);
    track.append(tick);
  }
  const title = element("span", "class", name);
  title.title = name;
  row.append(title, track, element("span", "value", percent(value)));
  return row;
}

function rest(value, count) {
  const row = element("div", "row rest");
  row.append(element("span", "class", `${count} others`), element("span", ""), element("span", "value", percent(Math.max(0, value))));
  return row;
}

function facts(network, logP, T, standardise) {
  const kl = divergence(logP[0], logP[network]), label = labels[current];
  const ofLabel = divergence(labelOrNot(logP[0], label), labelOrNot(logP[network], label));
  const atOne = [0, network].map(one => logProbabilities(one, current, 1, standardise));
  const list = element("dl", "");
  const lines = [
    [`KL at T = ${T}`, nats(kl), "first"],
    ["label against others", nats(ofLabel), "part"],
    ["among the others", nats(kl - ofLabel), "part"],
    ["KL at T = 1", nats(divergence(...atOne))],
    [`at T = ${T}, mean of ${labels.length}`, nats(mean(network, T, standardise))],
  ];
  for (const [term, value, look] of lines) list.append(element("dt", look || "", term), element("dd", look === "first" ? look : "", value));
  return list;
}

/** The mean KL over the images of the page; it is kept until the temperature changes. */
function mean(network, T, standardise) {
  const key = `${T} ${standardise}`;
  if (mean.key !== key) {
    const of = one => images.map(({ image }) => logProbabilities(one, image, T, standardise));
    const ofTeacher = of(0);
    mean.values = networks.map((name, one) => sum(of(one).map((logQ, image) => divergence(ofTeacher[image], logQ))) / labels.length);
    mean.key = key;
  }
  return mean.values[network];
}

at("student").append(...students.map(network => new Option(networks[network], network)));
at("class").append(...classes.map((name, c) => [name, c, labels.filter(label => label === c).length])
  .filter(([, , count]) => count).map(([name, c, count]) => new Option(`${name} (${count})`, c)));
at("outcome").append(...Object.keys(OUTCOMES).map(name => new Option(name, name)));
Object.assign(at("temperature"), { min: 0, max: TEMPERATURES.length - 1, value: TEMPERATURES.indexOf(1) });
for (const id of ["order", "student", "class", "outcome"]) at(id).addEventListener("change", choose);
for (const id of ["temperature", "standardise"]) at(id).addEventListener("input", draw);
addEventListener("pageshow", choose);  // on the way back the browser restores the choices without an event
at("previous").addEventListener("click", () => step(-1));
at("next").addEventListener("click", () => step(1));
document.addEventListener("keydown", event => {
  const typing = event.target.matches("select, input[type=range]") || event.ctrlKey || event.altKey || event.metaKey;
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!typing && by) { event.preventDefault(); step(by); }
});
choose();
