// The model's answer: the likeliest class, and two bars for each class, before and after adaptation.

import { paint } from "./seen.js";

const percent = (probability) => `${(100 * probability).toFixed(0)}\u00a0%`;

export class Result {
  constructor(model) {
    this.model = model;
    this.element = document.getElementById("result").content.cloneNode(true).firstElementChild;
    this.find = (name) => this.element.querySelector(name);
    this.find(".model").textContent = model.title;
    this.wait("");
  }

  /** Runs a task, and shows its error, if any. */
  async attempt(task) {
    this.complain("");
    await task().catch((error) => {
      this.wait("");
      this.complain(error.message);
    });
  }

  complain(line) {
    this.find(".problem").textContent = line;
  }

  /** Shows which input is still missing. */
  wait(line) {
    this.find(".verdict").textContent = line;
    this.find(".verdict").classList.remove("sure");
    this.find(".bars").replaceChildren();
    this.find(".note").textContent = "";
    this.find(".legend").hidden = true;
  }

  /** Shows the query as the network sees it. */
  see(pixels) {
    this.find("figure").hidden = !pixels;
    if (pixels) paint(this.find(".seen"), pixels, this.model);
  }

  /** Shows the answer {before, after, none} for classes {label, picture}. */
  show(classes, { before, after, none }) {
    const likeliest = Math.max(...after);
    const refused = none > likeliest;
    const best = refused ? -1 : after.indexOf(likeliest);
    this.find(".verdict").textContent = refused
      ? `None of these, ${percent(none)}`
      : `${classes[best].label}, ${percent(after[best])}`;
    this.find(".verdict").classList.add("sure");
    this.find(".legend").hidden = !before;
    this.find(".note").textContent = before ? "" : `By chance: ${percent(1 / classes.length)}.`;
    const rows = classes.map((it, i) => row(it, before?.[i], after[i], i === best));
    if (none !== null) rows.push(row({ label: "None of these" }, undefined, none, refused));
    this.find(".bars").replaceChildren(...rows);
  }

}

function row({ label, picture }, before, after, best) {
  const item = document.createElement("li");
  item.classList.toggle("best", best);
  const name = document.createElement("span");
  name.className = "label";
  name.textContent = label;
  const pair = document.createElement("div");
  if (before !== undefined) pair.append(bar("before", before));
  pair.append(bar("after", after));
  item.append(picture ? copyOf(picture) : document.createElement("span"), name, pair);
  return item;
}

function bar(kind, probability) {
  const line = document.createElement("div");
  line.className = `probability ${kind}`;
  line.title = `${kind} adaptation`;
  const track = document.createElement("i");
  const fill = document.createElement("b");
  fill.style.width = `${100 * probability}%`;
  track.append(fill);
  const number = document.createElement("em");
  number.textContent = percent(probability);
  line.append(track, number);
  return line;
}

function copyOf(picture) {
  const copy = document.createElement("canvas");
  [copy.width, copy.height] = [picture.width, picture.height];
  copy.getContext("2d").drawImage(picture, 0, 0);
  return copy;
}
