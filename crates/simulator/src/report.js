"use strict";
const machines = DATA.machines, end = DATA.end_us;
let from = 0, to = end;
const dark = matchMedia("(prefers-color-scheme: dark)").matches;
const ink = dark ? "#ddd" : "#222";
const phaseColour = {
  Meeting: "#dfe7df", Founding: "#c8d8f0", Waiting: "#c6e0c6", Preparing: "#a5d0a5", Initialising: "#e2b93b",
  Joining: "#7fbf7f", Settling: "#55a755", Ready: "#1f7a34", Halted: "#c0392b", off: "#9998",
};
const messageColour = {
  hello: "#888", swim: "#bbb", cards: "#bbb", prepare: "#8e44ad", promise: "#8e44ad", refusal: "#c0392b", accept: "#2c6fbb",
  accepted: "#2c6fbb", chartered: "#16a085", "ledger-poll": "#b8860b", "ledger-news": "#b8860b", proposal: "#d35400",
  "proposal-answer": "#d35400", "raft-call": "#27ae60", "raft-answer": "#27ae60",
};
const stretches = Array.from({ length: machines }, () => [[0, "off"]]);
for (const line of DATA.lines) {
  if (line.slot === null || line.slot === undefined) continue;
  const lane = stretches[line.slot];
  if (!lane) continue;
  if (line.kind === "phase") lane.push([line.at_us, line.text]);
  else if (line.kind === "boot") lane.push([line.at_us, "Meeting"]);
  else if (line.kind === "stop" || line.kind === "refuses") lane.push([line.at_us, "off"]);
}
function setUp(id, height) {
  const canvas = document.getElementById(id), ratio = devicePixelRatio || 1;
  canvas.style.height = height + "px";
  canvas.width = canvas.clientWidth * ratio;
  canvas.height = height * ratio;
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  return [canvas, pen, canvas.clientWidth, height];
}
const left = 64, bottom = 18;
const x = (at, width) => left + (at - from) / (to - from) * (width - left);
function axes(pen, width, height) {
  pen.fillStyle = ink;
  pen.font = "11px system-ui";
  pen.textAlign = "center";
  const span = (to - from) / 1e6, step = Math.pow(10, Math.floor(Math.log10(span / 4)));
  const nice = span / step > 20 ? step * 5 : span / step > 8 ? step * 2 : step;
  for (let at = Math.ceil(from / 1e6 / nice) * nice; at <= to / 1e6; at += nice) {
    pen.fillText(+at.toFixed(6) + " s", x(at * 1e6, width), height - 4);
  }
}
function marks(pen, width, height) {
  DATA.bands.forEach(([a, b, word], index) => {
    pen.fillStyle = `hsla(${index * 67 % 360}, 70%, 55%, .16)`;
    pen.fillRect(x(a, width), 0, Math.max(1, x(b, width) - x(a, width)), height - bottom);
    pen.fillStyle = ink;
    pen.font = "10px system-ui";
    pen.textAlign = "left";
    pen.fillText(word, Math.max(left, x(a, width)) + 2, 10 + index % 6 * 10);
  });
  const rule = (at, colour) => {
    pen.strokeStyle = colour;
    pen.beginPath(); pen.moveTo(x(at, width), 0); pen.lineTo(x(at, width), height - bottom); pen.stroke();
  };
  if (DATA.healed_us !== null) rule(DATA.healed_us, "#2a7d3c");
  if (BROKEN_AT >= 0) rule(BROKEN_AT, "#c22");
}
const laneHeight = Math.max(2, Math.min(20, 900 / machines));
function drawLanes() {
  const [, pen, width, height] = setUp("lanes", machines * laneHeight + bottom);
  stretches.forEach((lane, slot) => {
    lane.forEach(([at, phase], index) => {
      const until = index + 1 < lane.length ? lane[index + 1][0] : end;
      if (until < from || at > to) return;
      pen.fillStyle = phaseColour[phase] || "#999";
      const a = Math.max(left, x(at, width));
      pen.fillRect(a, slot * laneHeight, Math.max(.5, x(until, width) - a), laneHeight - (laneHeight > 4 ? 1 : 0));
    });
    if (laneHeight >= 9 || slot % Math.ceil(10 / laneHeight) === 0) {
      pen.fillStyle = ink; pen.font = "10px system-ui"; pen.textAlign = "right";
      pen.fillText("node-" + slot, left - 4, slot * laneHeight + Math.min(laneHeight, 10) - 1);
    }
  });
  marks(pen, width, height);
  axes(pen, width, height);
}
function drawMessages() {
  const [, pen, width, height] = setUp("messages", Math.min(700, Math.max(200, machines * 24)) + bottom);
  const gossip = document.getElementById("swim").checked;
  const y = slot => (slot + .5) * (height - bottom) / machines;
  pen.strokeStyle = "#8884";
  for (let slot = 0; slot < machines && machines <= 100; slot++) {
    pen.beginPath(); pen.moveTo(left, y(slot)); pen.lineTo(width, y(slot)); pen.stroke();
  }
  for (const [at, sender, receiver, kind] of DATA.messages) {
    if (at < from || at > to || !gossip && (kind === "swim" || kind === "cards")) continue;
    pen.strokeStyle = messageColour[kind] || "#777";
    pen.globalAlpha = .55;
    pen.beginPath(); pen.moveTo(x(at, width) - 3, y(sender)); pen.lineTo(x(at, width), y(receiver)); pen.stroke();
  }
  pen.globalAlpha = 1;
  marks(pen, width, height);
  axes(pen, width, height);
  document.getElementById("sampled").textContent = DATA.every > 1 ? `(every ${DATA.every}th frame)` : "";
}
function drawCurve() {
  const [, pen, width, height] = setUp("curve", 160);
  [[1, "#2c6fbb"], [2, "#1f7a34"]].forEach(([column, colour]) => {
    pen.strokeStyle = colour; pen.lineWidth = 2; pen.beginPath();
    let last = 0;
    const y = value => (height - bottom) * (1 - value / machines);
    for (const row of DATA.curve) {
      pen.lineTo(x(row[0], width), y(last)); pen.lineTo(x(row[0], width), y(row[column])); last = row[column];
    }
    pen.lineTo(x(end, width), y(last)); pen.stroke(); pen.lineWidth = 1;
  });
  marks(pen, width, height);
  axes(pen, width, height);
}
function drawLog(around) {
  const wanted = document.getElementById("filter").value.toLowerCase(), box = document.getElementById("log");
  box.textContent = "";
  let shown = 0;
  for (const line of DATA.lines) {
    if (line.at_us < from || line.at_us > to) continue;
    const who = line.slot === null || line.slot === undefined ? "world" : "node-" + line.slot;
    const text = `${(line.at_us / 1e6).toFixed(6).padStart(12)} s  ${who.padEnd(9)} ${line.kind.padEnd(16)} ${line.text}`;
    if (wanted && !text.toLowerCase().includes(wanted)) continue;
    if (++shown > 4000) break;
    const row = document.createElement("span");
    row.textContent = text + "\n";
    if (BROKEN_AT >= 0 && Math.abs(line.at_us - BROKEN_AT) < 1000) row.className = "bad";
    box.append(row);
    if (around !== undefined && line.at_us <= around) row.scrollIntoView({ block: "nearest" });
  }
}
function draw() { drawLanes(); drawMessages(); drawCurve(); }
for (const id of ["lanes", "messages", "curve"]) {
  const canvas = document.getElementById(id);
  const at = event => from + (event.offsetX - left) / (canvas.clientWidth - left) * (to - from);
  let grabbed = null;
  canvas.addEventListener("wheel", event => {
    event.preventDefault();
    const middle = at(event), factor = event.deltaY > 0 ? 1.3 : 1 / 1.3;
    from = Math.max(0, middle - (middle - from) * factor);
    to = Math.min(end, Math.max(from + 1000, middle + (to - middle) * factor));
    draw();
  }, { passive: false });
  canvas.addEventListener("mousedown", event => { grabbed = [event.offsetX, from, to]; });
  canvas.addEventListener("mousemove", event => {
    if (!grabbed) return;
    const by = (grabbed[0] - event.offsetX) / (canvas.clientWidth - left) * (grabbed[2] - grabbed[1]);
    const move = Math.max(-grabbed[1], Math.min(end - grabbed[2], by));
    from = grabbed[1] + move; to = grabbed[2] + move;
    draw();
  });
  addEventListener("mouseup", () => { if (grabbed) { grabbed = null; drawLog(); } });
  canvas.addEventListener("click", event => drawLog(at(event)));
}
document.getElementById("swim").addEventListener("change", drawMessages);
document.getElementById("filter").addEventListener("input", () => drawLog());
addEventListener("resize", draw);
draw();
drawLog(BROKEN_AT >= 0 ? BROKEN_AT : undefined);
