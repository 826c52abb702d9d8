// The tab of drawings: a pad for each class, and one for the query.

import { Pad } from "./pad.js";
import { Result } from "./result.js";
import { oneAtATime, pixelsOf, predict } from "./server.js";

const AT_FIRST = 5;

export function drawTab(section, model) {
  const pads = [];
  const result = new Result(model);
  const update = oneAtATime(() => result.attempt(answer));
  const query = new Pad("Drawing to name", update);
  const add = section.querySelector(".add");

  async function answer() {
    await Promise.all([query, ...pads].map(see));
    result.see(query.inked && query.pixels);
    const classes = pads.filter((pad) => pad.pixels);
    if (classes.length < 2) return result.wait("Draw at least two classes.");
    if (!query.pixels) return result.wait("Now draw one of them again.");
    const names = classes.map((pad) => ({ label: `Class ${pads.indexOf(pad) + 1}`, picture: pad.canvas }));
    result.show(names, await predict("draw", classes.map((pad) => [pad.pixels]), query.pixels));
  }

  function addPad() {
    const pad = new Pad("", update);
    pads.push(pad);
    section.querySelector(".classes").append(pad.element);
    pad.element.querySelector(".remove").onclick = () => {
      pads.splice(pads.indexOf(pad), 1);
      pad.element.remove();
      number();
      update();
    };
    number();
  }

  function number() {
    pads.forEach((pad, i) => pad.name(`Class ${i + 1}`));
    for (const pad of pads) pad.element.querySelector(".remove").disabled = pads.length <= 2;
    add.disabled = pads.length >= model.max_classes;
  }

  add.onclick = addPad;
  query.element.querySelector(".remove").remove();
  section.querySelector(".query").append(query.element, result.element);
  for (let i = 0; i < AT_FIRST; i++) addPad();
}

/** Update the pixels that the network sees, if the drawing has changed. */
async function see(pad) {
  if (!pad.inked || !pad.fresh) return;
  pad.fresh = false;
  const pixels = await pixelsOf("draw", await pad.png());
  if (pad.inked) pad.pixels = pixels; // unless it was cleared meanwhile
}
