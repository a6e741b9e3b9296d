// @ts-check
// What a widget of vl3/webapp/layout.py is handed.

import { make } from "../shared/dom.js";

/**
 * @typedef {HTMLElement & Record<string, any>} Root the element that a widget draws into; what it remembers lies there
 * @typedef {Record<string, any>} Value as vl3/webapp/widget_values.py made it
 * @typedef {(event: string, detail: Record<string, any>) => void} Trigger tells the server, by way of the queue
 * @typedef {Record<string, (detail: any) => Promise<any>>} Server asks it, beside the queue
 * @typedef {(root: Root, value: Value, trigger: Trigger, server: Server | null) => void} Widget
 */

/**
 * Facts with a dot between them.
 * @param {string[] | null | undefined} facts
 */
export function dotted(facts) {
  return (facts || []).flatMap((fact, i) => [...(i ? [make("i", {}, "·")] : []), make("span", {}, fact)]);
}
