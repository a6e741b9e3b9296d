// @ts-check
// Files dropped anywhere: one is the next video, several are attached to the question. Whatever else is
// dropped outside of a field is ignored, since a browser leaves the page for it.

import { fieldOf, find, make } from "../shared/dom.js";
import { give, replaceBy, tell } from "./uploads.js";

const HINT = "Drop the file anywhere on the page";
const hint = { ends: 0 }; // a drag that leaves the window does not always say so

/** @param {DragEvent} event */
export function dragged(event) {
  const withFiles = [...(event.dataTransfer?.types || [])].includes("Files");
  if (!withFiles && isInField(event)) return;
  event.preventDefault();
  if (event.dataTransfer) event.dataTransfer.dropEffect = withFiles ? "copy" : "none";
  if (!withFiles) return;
  if (!find("#vl3-drop")) document.body.append(make("div", { id: "vl3-drop", role: "status" }, HINT));
  clearTimeout(hint.ends);
  hint.ends = window.setTimeout(hideHint, 400);
}

function hideHint() {
  find("#vl3-drop")?.remove();
}

/** @param {Event} event */
function isInField(event) {
  const field = fieldOf(event.target);
  return field !== null && !field.matches("input[type=file]");
}

/** @param {DragEvent} event */
export function dropped(event) {
  hideHint();
  const files = event.dataTransfer?.files;
  if (!files?.length && isInField(event)) return;
  event.preventDefault();
  event.stopPropagation();
  if (!event.dataTransfer || !files?.length) return;
  if ([...event.dataTransfer.items].some((item) => item.webkitGetAsEntry?.()?.isDirectory)) {
    return tell("This is a folder. Drop a video or an image.");
  }
  const isForAsk = files.length > 1 || /** @type {Element} */ (event.target).closest?.("#ask");
  if (isForAsk) give(find("#ask input[type=file]"), files);
  else replaceBy(files);
  if (isForAsk && files.length > 1) tell(`${files.length} files are attached to the question.`);
}

/**
 * A picture from the clipboard is attached to the question, wherever the focus is.
 * @param {ClipboardEvent} event
 */
export function pasted(event) {
  const files = event.clipboardData?.files;
  if (!files?.length || /** @type {Element} */ (event.target).closest?.("#ask")) return;
  event.preventDefault();
  give(find("#ask input[type=file]"), files);
  tell("What was pasted is attached to the question.");
}
