// The tab of photographs: an album for each class, and one photograph to name.

import { Result } from "./result.js";
import { oneAtATime, pixelsOf, predict } from "./server.js";
import { paint } from "./seen.js";

const AT_FIRST = 2;
const THUMBNAIL = 128;

export function photoTab(section, model, maxBytes) {
  const albums = [];
  const result = new Result(model);
  const update = oneAtATime(() => result.attempt(answer));
  const query = new Album(model, maxBytes, result, update, 1);
  const add = section.querySelector(".add");
  let named; // the photograph of the verdict

  async function answer() {
    const asked = query.photos.at(-1);
    result.see(asked?.pixels);
    const classes = albums.filter((album) => album.photos.length);
    if (classes.length < 2) return result.wait("Drop photographs into at least two classes.");
    if (!asked) return result.wait("Now drop a photograph of one of them.");
    if (asked.button !== named) result.wait("Naming the photograph \u2026"); // or the last verdict would stand beside it
    const names = classes.map((album) => ({ label: album.name, picture: album.photos[0].canvas }));
    const pixels = classes.map((album) => album.photos.map((photo) => photo.pixels));
    result.show(names, await predict("photo", pixels, asked.pixels));
    named = asked.button;
  }

  function addAlbum() {
    const album = new Album(model, maxBytes, result, update, model.max_images);
    album.input.value = `Class ${albums.length + 1}`;
    album.input.onfocus = () => album.input.select();
    album.input.oninput = update;
    albums.push(album);
    section.querySelector(".classes").append(album.element);
    album.element.querySelector(".remove").onclick = () => {
      albums.splice(albums.indexOf(album), 1);
      album.element.remove();
      limit();
      update();
    };
    limit();
  }

  function limit() {
    for (const album of albums) album.element.querySelector(".remove").disabled = albums.length <= 2;
    add.disabled = albums.length >= model.max_classes;
  }

  add.onclick = addAlbum;
  query.element.querySelector(".bar").remove();
  query.element.querySelector("[type=file]").multiple = false;
  query.element.querySelector(".choose span").textContent = "Choose or drop a photograph";
  section.querySelector(".query").append(query.element, result.element);
  for (let i = 0; i < AT_FIRST; i++) addAlbum();
  update();
}

/** A box of at most `most` photographs. The oldest are removed. */
class Album {
  constructor(model, maxBytes, result, changed, most) {
    Object.assign(this, { model, maxBytes, result, changed, most, photos: [] });
    this.element = document.getElementById("album").content.cloneNode(true).firstElementChild;
    this.input = this.element.querySelector(".name");
    this.listen();
  }

  get name() {
    return this.input.value.trim() || "no name";
  }

  listen() {
    const { element } = this;
    const files = element.querySelector("[type=file]");
    files.onchange = () => {
      this.add([...files.files]);
      files.value = ""; // so that the same file can be chosen again
    };
    element.ondragover = () => element.classList.add("over");
    element.ondragleave = () => element.classList.remove("over");
    element.ondrop = (event) => {
      element.classList.remove("over");
      this.add([...event.dataTransfer.files]);
    };
  }

  async add(files) {
    const problems = [];
    for (const file of files) {
      try {
        await this.addOne(file);
      } catch (error) {
        problems.push(`${file.name}: ${error.message}`);
      }
    }
    await this.changed();
    if (problems.length) this.result.complain(problems.join("\n"));
  }

  async addOne(file) {
    if (file.size > this.maxBytes) throw new Error(`too large; at most ${this.maxBytes / 1e6} MB`);
    const pixels = await pixelsOf("photo", file);
    const photo = { pixels, canvas: await thumbnail(file, pixels, this.model) };
    const button = document.createElement("button");
    button.className = "photo";
    button.title = button.ariaLabel = `Remove ${file.name}`;
    button.append(photo.canvas);
    button.onclick = () => {
      this.remove(photo);
      this.changed();
    };
    this.photos.push({ ...photo, button });
    this.element.querySelector(".photos").append(button);
    if (this.photos.length > this.most) this.remove(this.photos[0]);
  }

  remove({ canvas }) {
    this.photos = this.photos.filter((photo) => photo.canvas !== canvas || photo.button.remove());
  }
}

/** A thumbnail of the photograph, or the network's input if the browser cannot read the format. */
async function thumbnail(file, pixels, model) {
  const canvas = document.createElement("canvas");
  try {
    const image = await createImageBitmap(file);
    const side = Math.min(image.width, image.height);
    canvas.width = canvas.height = THUMBNAIL;
    const corner = [(image.width - side) / 2, (image.height - side) / 2];
    canvas.getContext("2d").drawImage(image, ...corner, side, side, 0, 0, THUMBNAIL, THUMBNAIL);
  } catch {
    paint(canvas, pixels, model);
  }
  return canvas;
}
