// @ts-check
// Light or dark: as the system has it, or as it was chosen.

import { find } from "../shared/dom.js";
import { store, stored } from "./storage.js";

const prefersDark = matchMedia("(prefers-color-scheme: dark)");

export function paint() {
  const name = stored("localStorage", "vl3-theme");
  document.body.classList.toggle("dark", name ? name === "Dark" : prefersDark.matches);
}

export function followTheme() {
  paint();
  prefersDark.addEventListener("change", paint);
}

/** @param {string} name System, Light or Dark */
export function theme(name) {
  store("localStorage", "vl3-theme", name === "System" ? null : name);
  if (name === "System") paint();
  else document.body.classList.toggle("dark", name === "Dark");
}

export function flip() {
  const name = document.body.classList.contains("dark") ? "Light" : "Dark";
  theme(name);
  find(`#theme input[value="${name}"]`)?.click(); // the choice in the settings says the same
}
