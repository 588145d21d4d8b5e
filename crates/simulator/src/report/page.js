const MACHINES = DATA.machines, END = DATA.end, LEFT = 70, RIGHT = 28, AXIS = 18, DRAWN_MAX = 8000, LOGGED_MAX = 2000;
const $ = id => document.getElementById(id);
const PLOTS = ["faults", "lanes", "messages", "curve"];
const PHASES = ["Meeting", "Founding", "Waiting", "Preparing", "Initialising", "Joining", "Settling", "Ready", "Halted", "off"];
let from = 0, to = END, chosen = null, colours = {}, asked = 0;

// --- What Rust wrote, with its words and its absolute times.
const lines = [];
for (let i = 0, at = 0; i < DATA.lines.length; i += 4) {
  at += DATA.lines[i];
  lines.push({ at, slot: DATA.lines[i + 1], kind: DATA.words[DATA.lines[i + 2]], text: DATA.words[DATA.lines[i + 3]] });
}
const FRAMES = DATA.frames.length / 5, sentAt = new Float64Array(FRAMES), takes = new Float64Array(FRAMES);
const sender = new Int32Array(FRAMES), receiver = new Int32Array(FRAMES), kindOf = new Uint8Array(FRAMES);
let slowest = 0;
for (let i = 0, at = 0; i < FRAMES; i++) {
  const row = i * 5;
  at += DATA.frames[row];
  sentAt[i] = at; takes[i] = DATA.frames[row + 1];
  sender[i] = DATA.frames[row + 2]; receiver[i] = DATA.frames[row + 3]; kindOf[i] = DATA.frames[row + 4];
  slowest = Math.max(slowest, takes[i]);
}
const stretches = Array.from({ length: MACHINES }, () => [[0, "off"]]);
for (const { at, slot, kind, text } of lines) {
  if (slot < 0 || !stretches[slot]) continue;
  if (kind === "phase") stretches[slot].push([at, text]);
  else if (kind === "boot") stretches[slot].push([at, "Meeting"]);
  else if (kind === "stop" || kind === "refuses") stretches[slot].push([at, "off"]);
}
// Bars of faults, each in the first row that is free; their names need room too.
const faults = DATA.faults.map(([a, b, word, whom]) => ({ a, b, word, whom, row: 0 }));
function rows() {
  const ends = [], pen = $("faults").getContext("2d");
  pen.font = "11px system-ui, sans-serif";
  for (const fault of faults) {
    const begin = x(fault.a), end = Math.max(x(fault.b), begin + pen.measureText(label(fault)).width + 12);
    let row = ends.findIndex(until => until <= begin);
    if (row < 0) row = ends.length;
    ends[row] = end + 4;
    fault.row = row;
  }
  return Math.max(1, ends.length);
}
const whom = list => list.length === 0 ? "nobody" : list.length === MACHINES ? "all machines"
  : list.length > 6 ? `${list.length} machines` : list.map(slot => "node-" + slot).join(", ");
const label = fault => `${fault.word}: ${whom(fault.whom)}`;
const seconds = at => (at / 1e6).toFixed(to - from < 2e6 ? 6 : 3) + " s";

// --- Time and places on the canvases.
const width = () => $("lanes").clientWidth;
const x = at => LEFT + (at - from) / (to - from) * (width() - LEFT - RIGHT);
const timeAt = pixel => from + (pixel - LEFT) / (width() - LEFT - RIGHT) * (to - from);
const laneHeight = Math.max(1.6, Math.min(20, 800 / MACHINES));
const rowHeight = 16;
function canvas(id, height) {
  const element = $(id), ratio = window.devicePixelRatio || 1;
  element.style.height = height + "px";
  element.width = Math.round(element.clientWidth * ratio);
  element.height = Math.round(height * ratio);
  const pen = element.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.font = "11px system-ui, sans-serif";
  return pen;
}
function clipped(pen, height, draw) {
  pen.save();
  pen.beginPath(); pen.rect(LEFT, 0, width() - LEFT - RIGHT + 1, height - AXIS); pen.clip();
  draw();
  pen.restore();
}
function frame(pen, height) {
  const span = (to - from) / 1e6, rough = span / Math.max(2, (width() - LEFT) / 110);
  const power = Math.pow(10, Math.floor(Math.log10(rough)));
  const step = [1, 2, 5, 10].map(factor => factor * power).find(step => step >= rough);
  pen.textAlign = "center"; pen.textBaseline = "alphabetic";
  for (let nth = Math.ceil(from / 1e6 / step); nth * step <= to / 1e6 + 1e-9; nth++) {
    const place = x(nth * step * 1e6);
    pen.strokeStyle = colours.line; pen.globalAlpha = .5;
    pen.beginPath(); pen.moveTo(place, 0); pen.lineTo(place, height - AXIS); pen.stroke();
    pen.globalAlpha = 1; pen.fillStyle = colours.faint;
    pen.fillText(+(nth * step).toFixed(6) + " s", place, height - 5);
  }
  clipped(pen, height, () => {
    const rule = (at, colour, word) => {
      if (at === null) return;
      pen.strokeStyle = pen.fillStyle = colour; pen.lineWidth = 1.5; pen.textAlign = "left";
      pen.beginPath(); pen.moveTo(x(at), 0); pen.lineTo(x(at), height - AXIS); pen.stroke();
      if (word) pen.fillText(word, x(at) + 4, height - AXIS - 4);
      pen.lineWidth = 1;
    };
    const named = height < 200;
    if (DATA.healed) rule(DATA.healed, colours.good, named && "heal");
    rule(DATA.broken, colours.bad, named && "broken");
  });
}
function hue(word) {
  let number = 0;
  for (const letter of word) number = (number * 31 + letter.charCodeAt(0)) % 360;
  return number;
}
const faultColour = (fault, alpha) => `hsl(${hue(fault.word)} 65% ${colours.dark ? 60 : 45}% / ${alpha})`;
// Founding violet to blue, the ledger gold, Raft green: a family a hue.
const HUES = { prepare: 285, promise: 315, accept: 235, accepted: 210, chartered: 190, refusal: 20, "ledger-poll": 35, "ledger-news": 48,
  proposal: 60, "proposal-answer": 75, "raft-call": 120, "raft-answer": 150 };
const kindColour = kind => HUES[kind] === undefined ? colours.faint : `hsl(${HUES[kind]} 65% ${colours.dark ? 62 : 38}%)`;
const kindOrder = [...DATA.kinds].sort();
const inView = fault => fault.b >= from && fault.a <= to;

function drawFaults() {
  const height = rows() * rowHeight + 6 + AXIS, pen = canvas("faults", height);
  frame(pen, height);
  clipped(pen, height, () => {
    pen.textAlign = "left"; pen.textBaseline = "middle";
    for (const fault of faults.filter(inView)) {
      const begin = x(fault.a), top = 3 + fault.row * rowHeight;
      pen.fillStyle = faultColour(fault, .35);
      pen.fillRect(begin, top, Math.max(2, x(fault.b) - begin), rowHeight - 3);
      pen.fillStyle = faultColour(fault, 1);
      pen.fillRect(begin, top, 2, rowHeight - 3);
      pen.fillStyle = colours.ink;
      pen.fillText(label(fault), Math.max(begin, LEFT) + 5, top + (rowHeight - 3) / 2 + .5);
    }
  });
  if (faults.length === 0) { pen.fillStyle = colours.faint; pen.textAlign = "left"; pen.fillText("none", LEFT + 6, 15); }
}
// Behind what happens on a machine, the faults that hit it.
function bands(pen, top, bottom) {
  for (const fault of faults.filter(inView)) {
    pen.fillStyle = faultColour(fault, fault.whom.length === MACHINES ? .08 : .18);
    const begin = x(fault.a), wide = Math.max(1.5, x(fault.b) - begin);
    for (const slot of fault.whom) pen.fillRect(begin, top(slot), wide, bottom(slot) - top(slot));
  }
}
function names(pen, height, y, high) {
  pen.textAlign = "right"; pen.textBaseline = "middle";
  const every = Math.max(1, Math.ceil(12 / high));
  let last = -Infinity;
  for (let slot = 0; slot < MACHINES; slot += every) {
    const place = Math.min(Math.max(y(slot), 7), height - AXIS - 6);
    if (place - last < 11) continue;
    last = place;
    pen.fillStyle = slot === chosen ? colours.accent : colours.faint;
    pen.fillText("node-" + slot, LEFT - 6, place);
  }
  if (chosen !== null) {
    const place = Math.min(Math.max(y(chosen), 7), height - AXIS - 6);
    pen.fillStyle = colours.panel; pen.fillRect(0, place - 8, LEFT - 2, 16);
    pen.fillStyle = colours.accent; pen.font = "bold 11px system-ui, sans-serif";
    pen.fillText("node-" + chosen, LEFT - 6, place);
    pen.font = "11px system-ui, sans-serif";
  }
}
function drawLanes() {
  const height = MACHINES * laneHeight + AXIS, pen = canvas("lanes", height), gap = laneHeight > 5 ? 1.5 : 0;
  clipped(pen, height, () => {
    stretches.forEach((lane, slot) => lane.forEach(([at, phase], nth) => {
      const until = nth + 1 < lane.length ? lane[nth + 1][0] : END;
      if (until < from || at > to) return;
      pen.fillStyle = colours[phase] || colours.line;
      const begin = x(Math.max(at, from));
      pen.fillRect(begin, slot * laneHeight, Math.max(.7, x(Math.min(until, to)) - begin), laneHeight - gap);
    }));
    if (laneHeight > 8) {
      // Which fault hits a lane is a stripe along its lower edge.
      for (const fault of faults.filter(inView)) {
        pen.fillStyle = faultColour(fault, 1);
        for (const slot of fault.whom) pen.fillRect(x(fault.a), (slot + 1) * laneHeight - 4, Math.max(1.5, x(fault.b) - x(fault.a)), 2.5);
      }
    }
    if (chosen !== null) {
      pen.strokeStyle = colours.accent; pen.lineWidth = 2;
      pen.strokeRect(LEFT, chosen * laneHeight - 1, width() - LEFT - RIGHT, laneHeight + 1);
      pen.lineWidth = 1;
    }
  });
  frame(pen, height);
  names(pen, height, slot => (slot + .5) * laneHeight, laneHeight);
}
const messagesHeight = Math.min(640, Math.max(180, MACHINES * 26));
function drawMessages() {
  const height = messagesHeight + AXIS, pen = canvas("messages", height), high = messagesHeight / MACHINES;
  const y = slot => (slot + .5) * high, gossip = $("gossip").checked;
  clipped(pen, height, () => {
    bands(pen, slot => slot * high, slot => (slot + 1) * high);
    pen.strokeStyle = colours.line;
    for (let slot = 0; slot < MACHINES && MACHINES <= 60; slot++) {
      pen.beginPath(); pen.moveTo(LEFT, y(slot)); pen.lineTo(width(), y(slot)); pen.stroke();
    }
  });
  frame(pen, height);
  const shown = [];
  for (let i = earliest(from - slowest); i < FRAMES && sentAt[i] <= to; i++) {
    if (!gossip && DATA.gossip[kindOf[i]]) continue;
    if (sentAt[i] + Math.max(0, takes[i]) < from) continue;
    if (chosen === null || sender[i] === chosen || receiver[i] === chosen) shown.push(i);
  }
  const every = Math.max(1, Math.ceil(shown.length / DRAWN_MAX)), drawn = shown.filter((_, nth) => nth % every === 0);
  clipped(pen, height, () => {
    pen.globalAlpha = Math.max(.25, Math.min(.85, 900 / (drawn.length + 1)));
    DATA.kinds.forEach((kind, number) => {
      pen.strokeStyle = kindColour(kind);
      pen.beginPath();
      for (const i of drawn) {
        if (kindOf[i] !== number || takes[i] < 0) continue;
        pen.moveTo(x(sentAt[i]), y(sender[i])); pen.lineTo(x(sentAt[i] + takes[i]), y(receiver[i]));
      }
      pen.stroke();
    });
    // A frame that never arrives ends soon after its sender, in a cross.
    pen.strokeStyle = colours.bad; pen.globalAlpha = Math.max(.3, pen.globalAlpha);
    pen.beginPath();
    for (const i of drawn) {
      if (takes[i] >= 0) continue;
      const a = x(sentAt[i]), b = y(sender[i]), down = Math.sign(receiver[i] - sender[i]) * Math.min(12, high * .45 + 2);
      pen.moveTo(a, b); pen.lineTo(a, b + down);
      pen.moveTo(a - 2.5, b + down - 2.5); pen.lineTo(a + 2.5, b + down + 2.5);
      pen.moveTo(a + 2.5, b + down - 2.5); pen.lineTo(a - 2.5, b + down + 2.5);
    }
    pen.stroke();
    pen.globalAlpha = 1;
  });
  names(pen, height, y, high);
  const kept = DATA.frames_sent === FRAMES ? "" : ` (${FRAMES} of ${DATA.frames_sent} frames are in this page, the last ones all of them)`;
  $("drawn").textContent = `${drawn.length} of ${shown.length} frames drawn${every > 1 ? ": zoom in, or choose a machine, to see all" : ""}${kept}`;
}
function earliest(at) {
  let low = 0, high = FRAMES;
  while (low < high) { const middle = low + high >> 1; if (sentAt[middle] < at) low = middle + 1; else high = middle; }
  return low;
}
function drawCurve() {
  const height = 170 + AXIS, pen = canvas("curve", height), y = value => 8 + (height - AXIS - 10) * (1 - value / MACHINES);
  frame(pen, height);
  pen.textAlign = "right"; pen.textBaseline = "middle"; pen.fillStyle = colours.faint;
  for (const value of [...new Set([0, Math.round(MACHINES / 2), MACHINES])]) pen.fillText(value, LEFT - 6, Math.min(y(value), height - AXIS - 6));
  clipped(pen, height, () => [[1, colours.Founding, 4], [2, colours.Ready, 2]].forEach(([column, colour, thick]) => {
    pen.strokeStyle = colour; pen.lineWidth = thick; pen.beginPath();
    let last = 0;
    for (let i = 0; i < DATA.curve.length; i += 3) {
      const place = x(DATA.curve[i]);
      pen.lineTo(place, y(last)); last = DATA.curve[i + column]; pen.lineTo(place, y(last));
    }
    pen.lineTo(x(END), y(last)); pen.stroke(); pen.lineWidth = 1;
  }));
}

// --- The log of the time shown.
const who = slot => slot < 0 ? "world" : "node-" + slot;
function drawLog() {
  const wanted = $("filter").value.toLowerCase(), box = $("log"), rows = [];
  let first = null;
  for (const line of lines) {
    if (line.at < from || line.at > to || chosen !== null && line.slot >= 0 && line.slot !== chosen) continue;
    const text = `${(line.at / 1e6).toFixed(6).padStart(12)} s  ${who(line.slot).padEnd(9)} ${line.kind.padEnd(16)}${line.text}`;
    if (!wanted || text.toLowerCase().includes(wanted)) rows.push([line, text]);
  }
  // Of too many, those before the failure, or else the first.
  const broken = DATA.broken === null ? -1 : rows.findLastIndex(([line]) => line.at <= DATA.broken);
  const begin = broken < 0 ? 0 : Math.max(0, Math.min(broken - LOGGED_MAX / 2, rows.length - LOGGED_MAX));
  box.replaceChildren(...rows.slice(begin, begin + LOGGED_MAX).map(([line, text]) => {
    const row = document.createElement("div");
    row.textContent = text;
    if (line.kind === "fault" || line.kind === "heal") row.className = "fault";
    if (line.kind === "BROKEN") { row.className = "broken"; first = row; }
    return row;
  }));
  $("counted").textContent = rows.length > LOGGED_MAX ? `${LOGGED_MAX} of ${rows.length} lines: zoom in or filter to see the others` : `${rows.length} lines`;
  if (first) box.scrollTop = first.offsetTop - box.offsetTop - box.clientHeight / 2;
}

// --- What is shown.
function draw() {
  asked = 0;
  const probe = document.createElement("span");
  document.body.append(probe);
  const colour = name => { probe.style.color = `var(--${name})`; return getComputedStyle(probe).color; };
  for (const name of ["ink", "faint", "line", "panel", "accent", "good", "bad"]) colours[name] = colour(name);
  for (const phase of PHASES) colours[phase] = colour(phase.toLowerCase());
  probe.remove();
  colours.dark = matchMedia("(prefers-color-scheme: dark)").matches;
  drawFaults(); drawLanes(); drawMessages(); drawCurve();
  $("range").textContent = `${seconds(from)} to ${seconds(to)}`;
  $("chosen").textContent = chosen === null ? "" : `· node-${chosen} alone in messages and log`;
}
let logAsked = 0;
function later() {
  if (!asked) asked = requestAnimationFrame(draw);
  clearTimeout(logAsked);
  logAsked = setTimeout(drawLog, 120);
}
function show(a, b) {
  const span = Math.min(END, Math.max(200, b - a));
  from = Math.max(0, Math.min(a, END - span));
  to = from + span;
  later();
}
function zoom(factor, middle = (from + to) / 2) { show(middle - (middle - from) * factor, middle + (to - middle) * factor); }
function choose(slot) { chosen = slot === null ? null : Math.max(0, Math.min(MACHINES - 1, slot)); later(); tell(); }
const views = {
  all: () => show(0, END),
  forming: () => show(0, Math.min(END, firstReady() * 1.1)),
  failure: () => show(DATA.broken - 2e6, Math.min(END, DATA.broken + 5e5)),
  in: () => zoom(.5), out: () => zoom(2),
  left: () => show(from - (to - from) / 4, to - (to - from) / 4), right: () => show(from + (to - from) / 4, to + (to - from) / 4),
};
// When as many machines as ever were Ready first are.
function firstReady() {
  let most = 0, at = END;
  for (let i = 0; i < DATA.curve.length; i += 3) if (DATA.curve[i + 2] > most) { most = DATA.curve[i + 2]; at = DATA.curve[i]; }
  return most ? at : END;
}
function tell(at, slot) {
  const parts = [];
  if (at !== undefined) parts.push(seconds(at));
  if (slot === undefined || slot === null) slot = chosen;
  if (slot !== null && slot !== undefined && stretches[slot]) {
    const when = at === undefined ? (from + to) / 2 : at, stretch = stretches[slot].findLast(([since]) => since <= when);
    parts.push(`node-${slot} ${stretch ? stretch[1] : "off"}${at === undefined ? " at " + seconds(when) : ""}`);
  }
  const hit = faults.filter(fault => at !== undefined && fault.a <= at && fault.b >= at && (slot === null || slot === undefined || fault.whom.includes(slot)));
  if (hit.length) parts.push("faults: " + hit.map(label).join("; "));
  $("readout").textContent = parts.join(" · ");
}
for (const button of document.querySelectorAll("#bar button")) {
  button.addEventListener("click", views[button.dataset.view]);
  if (button.dataset.view === "failure") button.hidden = DATA.broken === null;
}
const cursors = [];
for (const id of PLOTS) {
  const element = $(id), cursor = document.createElement("i");
  element.parentElement.append(cursor);
  cursors.push(cursor);
  let grabbed = null, moved = false;
  const slotAt = event => id === "lanes" ? Math.floor(event.offsetY / laneHeight)
    : id === "messages" ? Math.floor(event.offsetY / (messagesHeight / MACHINES)) : null;
  const valid = slot => slot !== null && slot >= 0 && slot < MACHINES ? slot : null;
  element.addEventListener("wheel", event => {
    if (!event.deltaY) return;
    event.preventDefault();
    zoom(event.deltaY > 0 ? 1.3 : 1 / 1.3, timeAt(event.offsetX));
  }, { passive: false });
  element.addEventListener("pointerdown", event => { grabbed = [event.offsetX, from, to]; moved = false; element.setPointerCapture(event.pointerId); });
  element.addEventListener("pointermove", event => {
    for (const line of cursors) { line.style.display = event.offsetX >= LEFT ? "block" : "none"; line.style.left = event.offsetX + "px"; }
    if (!grabbed) return tell(timeAt(event.offsetX), valid(slotAt(event)));
    const by = (grabbed[0] - event.offsetX) / (width() - LEFT - RIGHT) * (grabbed[2] - grabbed[1]);
    if (Math.abs(grabbed[0] - event.offsetX) > 3) moved = true;
    if (moved) show(grabbed[1] + by, grabbed[2] + by);
  });
  element.addEventListener("pointerup", event => {
    const slot = valid(slotAt(event));
    if (grabbed && !moved && slot !== null) choose(slot === chosen ? null : slot);
    grabbed = null;
  });
  element.addEventListener("pointercancel", () => { grabbed = null; });
  element.addEventListener("pointerleave", () => cursors.forEach(line => { line.style.display = "none"; }));
  element.addEventListener("keydown", event => {
    const keys = {
      ArrowLeft: views.left, ArrowRight: views.right, "+": views.in, "=": views.in, "-": views.out, Home: views.all, 0: views.all,
      ArrowUp: () => choose(chosen === null ? MACHINES - 1 : chosen - 1), ArrowDown: () => choose(chosen === null ? 0 : chosen + 1),
      Escape: () => choose(null), Enter: () => $("log").focus(),
    };
    if (event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });
}
function legend(id, entries) {
  $(id).replaceChildren(...entries.map(([word, colour]) => {
    const entry = document.createElement("li"), swatch = document.createElement("b");
    swatch.style.background = colour;
    entry.append(swatch, word);
    return entry;
  }));
}
function legends() {
  legend("phases", PHASES.map(phase => [phase, `var(--${phase.toLowerCase()})`]));
  legend("kinds", [...kindOrder.map(kind => [kind, kindColour(kind)]), ["lost", "var(--bad)"]]);
  legend("curves", [["follow a charter", "var(--founding)"], ["are Ready", "var(--ready)"]]);
}
$("faults").setAttribute("aria-label", `Faults over time: ${faults.length ? faults.map(label).join("; ") : "none"}`);
$("lanes").setAttribute("aria-label", `Phases of ${MACHINES} machines over time`);
$("messages").setAttribute("aria-label", "Messages between machines over time");
const last = DATA.curve.slice(-2);
$("curve").setAttribute("aria-label", `In the end ${last[0]} of ${MACHINES} machines follow a charter and ${last[1]} are Ready`);
$("gossip").addEventListener("change", later);
$("filter").addEventListener("input", drawLog);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { draw(); legends(); });
addEventListener("resize", later);
draw();
legends();
drawLog();
