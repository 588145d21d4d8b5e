// Goes through a report as a person would, and writes into #result what is wrong with it.
"use strict";
(async () => {
  const wrong = [], began = performance.now();
  const expect = (holds, what) => { if (!holds) wrong.push(what); };
  // The page draws in the next frame, and without a screen there may be none: so what it asked for is drawn here.
  const settled = () => new Promise(done => setTimeout(() => { draw(); done(); }, 400));
  const range = () => document.getElementById("range").textContent;
  const press = (id, key) => document.getElementById(id).dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
  const click = view => document.querySelector(`#bar button[data-view="${view}"]`).click();
  // How many colours a picture has: a blank one has one.
  const shades = id => {
    const canvas = document.getElementById(id), copy = document.createElement("canvas");
    copy.width = canvas.width, copy.height = canvas.height;
    const context = copy.getContext("2d", { willReadFrequently: true });
    context.drawImage(canvas, 0, 0);
    const pixels = context.getImageData(0, 0, copy.width, copy.height).data;
    const seen = new Set();
    for (let i = 0; i < pixels.length; i += 4) seen.add(pixels[i] << 16 | pixels[i + 1] << 8 | pixels[i + 2]);
    return seen.size;
  };
  addEventListener("error", event => wrong.push(`error: ${event.message}`));
  await settled();

  for (const id of ["faults", "lanes", "messages", "curve"]) {
    const canvas = document.getElementById(id);
    expect(shades(id) > 3, `${id} is blank`);
    expect(canvas.tabIndex === 0 && canvas.getAttribute("aria-label"), `${id} cannot be reached by keyboard, or has no name`);
    expect(canvas.height / devicePixelRatio < 1100, `${id} is ${canvas.height} pixels high`);
  }
  expect(document.documentElement.scrollWidth <= innerWidth, `the page is ${document.documentElement.scrollWidth} wide, the window ${innerWidth}`);
  expect(performance.getEntriesByType("resource").every(entry => entry.name.startsWith("data:")), "something was fetched");
  expect(document.querySelector("header").textContent.includes("hash"), "no hash");
  for (const node of document.querySelectorAll("button")) expect(node.hidden || node.textContent.trim(), "a button without a name");

  const whole = range();
  click("in"); await settled();
  const zoomed = range();
  expect(zoomed !== whole, "+ does not zoom");
  click("right"); await settled();
  expect(range() !== zoomed, "later does not move");
  press("lanes", "Home"); await settled();
  expect(range() === whole, `Home shows ${range()} and not ${whole}`);
  click("forming"); await settled();
  expect(shades("messages") > 3, "no messages while forming");
  if (!document.querySelector('[data-view="failure"]').hidden) {
    click("failure"); await settled();
    expect(document.querySelector("#log .broken"), "the failure is not in its own log");
  }
  click("all"); await settled();

  const all = document.querySelectorAll("#log div").length;
  expect(all > 5 && all <= 2000, `${all} lines of log`);
  press("messages", "ArrowDown"); await settled();
  expect(document.getElementById("chosen").textContent.includes("node-0"), "no machine is chosen");
  expect([...document.querySelectorAll("#log div")].every(row => /  (node-0|world) /.test(row.textContent)), "the log has other machines");
  press("messages", "Escape"); await settled();
  expect(document.getElementById("chosen").textContent === "", "the machine stays chosen");
  const filter = document.getElementById("filter");
  filter.value = "boots"; filter.dispatchEvent(new Event("input")); await settled();
  const some = document.querySelectorAll("#log div").length;
  expect(some > 0 && some < all, `the filter leaves ${some} of ${all} lines`);
  filter.value = "<script>"; filter.dispatchEvent(new Event("input")); await settled();
  expect(document.querySelectorAll("#log div").length === 0, "a filter that fits nothing shows something");

  // A dragged picture moves, and a click on a lane chooses its machine.
  click("in"); await settled();
  const before = range(), lanes = document.getElementById("lanes"), box = lanes.getBoundingClientRect();
  const point = (type, x, y) => lanes.dispatchEvent(new PointerEvent(type, { clientX: box.left + x, clientY: box.top + y, pointerId: 1, bubbles: true }));
  lanes.setPointerCapture = () => {};
  point("pointerdown", 300, 5); point("pointermove", 200, 5); point("pointerup", 200, 5); await settled();
  expect(range() !== before, "dragging does not move");
  point("pointerdown", 300, 5); point("pointerup", 300, 5); await settled();
  expect(document.getElementById("chosen").textContent.includes("node-"), "a click chooses no machine");
  const now = performance.now();
  draw();
  const drawn = performance.now() - now;

  const result = document.createElement("pre");
  result.id = "result";
  result.textContent = wrong.length ? wrong.join("; ") : `all well (${Math.round(document.documentElement.outerHTML.length / 1024)} kB, drawn in ${Math.round(drawn)} ms)`;
  document.body.append(result);
})();
