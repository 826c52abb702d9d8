// The page: two tabs, each with its own model.

import { drawTab } from "./draw.js";
import { photoTab } from "./photo.js";
import { models } from "./server.js";

const tabs = [...document.querySelectorAll("[role=tab]")];

function select(tab) {
  for (const other of tabs) {
    other.setAttribute("aria-selected", other === tab);
    other.tabIndex = other === tab ? 0 : -1;
    document.getElementById(other.getAttribute("aria-controls")).hidden = other !== tab;
  }
}

for (const tab of tabs) {
  tab.onclick = () => select(tab);
  tab.onkeydown = ({ key }) => {
    if (key !== "ArrowLeft" && key !== "ArrowRight") return;
    const other = tabs.find((it) => it !== tab);
    select(other);
    other.focus();
  };
}

// Otherwise a file dropped outside a class would replace the page.
for (const event of ["dragover", "drop"]) addEventListener(event, (it) => it.preventDefault());

models().then(
  (about) => {
    drawTab(document.getElementById("draw"), about.draw);
    photoTab(document.getElementById("photo"), about.photo, about.max_bytes);
  },
  (error) => document.querySelector("main").replaceChildren(error.message),
);
