// A pad to draw on, by mouse, pen, finger or keys.

const INK = "black";
const WIDTH = 10; // of 210: the network's input is then as bright as an Omniglot drawing
const KEY_STEP = 7;
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class Pad {
  /** `changed` is called after each change of the drawing. */
  constructor(label, changed) {
    this.element = document.getElementById("pad").content.cloneNode(true).firstElementChild;
    this.canvas = this.element.querySelector("canvas");
    this.changed = changed;
    this.size = this.canvas.width;
    this.key = [this.size / 2, this.size / 2];
    this.context = this.canvas.getContext("2d");
    Object.assign(this.context, { strokeStyle: INK, lineWidth: WIDTH, lineCap: "round", lineJoin: "round" });
    this.name(label);
    this.listen();
    this.clear();
  }

  name(label) {
    this.element.querySelector(".label").textContent = label;
    this.element.querySelector(".remove")?.setAttribute("aria-label", `Remove ${label}`);
    this.canvas.setAttribute("aria-label", `${label}: arrow keys move the pen, with Shift they draw`);
  }

  listen() {
    const { canvas } = this;
    canvas.onpointerdown = (event) => {
      if (event.button !== 0) return;
      canvas.setPointerCapture(event.pointerId);
      this.last = this.place(event);
      this.line(this.last);
    };
    canvas.onpointermove = (event) => {
      if (!this.last) return;
      const steps = event.getCoalescedEvents?.() ?? [];
      for (const step of steps.length ? steps : [event]) this.line(this.place(step));
    };
    canvas.onpointerup = canvas.onpointercancel = () => (this.last = null);
    canvas.onkeydown = (event) => this.press(event);
    this.element.querySelector(".clear").onclick = () => this.clear();
  }

  place({ clientX, clientY }) {
    const box = this.canvas.getBoundingClientRect();
    return [((clientX - box.left) / box.width) * this.size, ((clientY - box.top) / box.height) * this.size];
  }

  line(to) {
    this.context.beginPath();
    this.context.moveTo(...this.last);
    this.context.lineTo(...to);
    this.context.stroke();
    this.last = to;
    this.inked = true;
    this.fresh = true;
    this.changed();
  }

  press(event) {
    const arrow = ARROWS[event.key];
    if (!arrow) return;
    event.preventDefault();
    this.last = this.key;
    this.key = this.key.map((at, i) => Math.min(this.size, Math.max(0, at + KEY_STEP * arrow[i])));
    if (event.shiftKey) this.line(this.key);
    this.last = null;
    this.showPen();
  }

  showPen() {
    const pen = this.element.querySelector(".pen");
    pen.hidden = false;
    [pen.style.left, pen.style.top] = this.key.map((at) => `${(100 * at) / this.size}%`);
  }

  clear() {
    this.context.clearRect(0, 0, this.size, this.size);
    this.last = null;
    this.inked = false;
    this.pixels = null;
    this.changed();
  }

  /** The drawing as a PNG. */
  png() {
    return new Promise((resolve) => this.canvas.toBlob(resolve));
  }
}
