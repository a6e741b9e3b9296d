import { button, clock, cividis, count, make, percent, table } from "./look_parts.js";
import { duration } from "./look_compare.js";

// How an answer was made: where its time went, the prompt as the model read it, how to repeat it.

const COPIED_MS = 1500;

export function runView(el, data, emit) {
  let frame = data.frame ?? null;
  const { stages, total_s: total } = data;
  const shares = stages.map(({ time_s }) => (total > 0 ? time_s / total : 0));
  const colour = (index) => (index === stages.length - 1 ? "var(--look-line)" : cividis((index + 0.5) / (stages.length - 1)));
  const told = stages.map(({ name, time_s }, index) => `${name} ${duration(time_s)}, ${percent(shares[index])}`);

  const bar = make("div", { class: "stages", role: "img", "aria-label": `${duration(total)} in all. ${told.join("; ")}` },
    ...stages.map((_, index) => make("i", { style: `flex: ${(100 * shares[index]).toFixed(3)} 0 0; background: ${colour(index)}`, title: told[index] })));
  const parts = make("ol", { class: "parts" }, ...stages.map(({ name, time_s }, index) => make("li", {},
    make("i", { style: `background: ${colour(index)}` }), make("span", {}, name), make("b", {}, duration(time_s)), make("span", { class: "share" }, percent(shares[index])))));
  const chips = data.pieces.map((piece) => (piece.kind === "slots" ? chipOf(piece) : piece.kind === "special" ? make("span", { class: "special" }, piece.text) : piece.text));
  const visual = `${count(data.prompt_tokens)} tokens, ${count(data.kept_tokens)} of them visual`;
  const reused = data.reused_tokens ? ` · ${count(data.reused_tokens)} kept from the answer before` : "";
  const all = table("Show as table", "Tokens and times", () => [["", ""], ...stages.map(({ name, time_s }) => [name, duration(time_s)]), ...data.rows]);

  el.replaceChildren(make("section", { class: "vl3-look run", "aria-label": "Run details" },
    make("div", { class: "top" }, make("p", { class: "readout" }, headline())), ...notes().map((text) => make("p", { class: "words" }, text)),
    make("h3", {}, "Time"), bar, parts, all.node,
    heading("Prompt", visual + reused, data.prompt),
    make("div", { class: "prompt", tabindex: 0, role: "region", "aria-label": "Prompt" }, ...chips),
    make("div", { class: "blocks" }, ...data.blocks.map(({ title, text }) => make("div", {}, heading(title, "", text),
      make("pre", { tabindex: 0, role: "region", "aria-label": title }, text))))));
  mark();

  function headline() {
    const speed = data.tokens_per_s ? ` · ${data.tokens_per_s.toFixed(data.tokens_per_s < 10 ? 1 : 0)} tokens/s` : "";
    return `${count(data.new_tokens)} ${data.new_tokens === 1 ? "token" : "tokens"} in ${duration(total)} · first after ${duration(data.first_token_s)}${speed}`;
  }

  function notes() {
    const clips = data.reused_clips === 1 ? "The video was in memory already: there was nothing to read or encode." : "Videos that were in memory already were not read or encoded again.";
    return [data.seed === null ? "Greedy: the most likely token each time, so the seed has no part in it." : `Sampled with seed ${data.seed}.`,
      data.reused_clips ? clips : "", data.stopped ? "Stopped before its end." : "", data.truncated ? "Cut off at the longest answer allowed." : "", ...data.notes].filter(Boolean);
  }

  // A frame's visual tokens; on a page that listens, a way to the frame.
  function chipOf({ tokens, clip, frame: index, time_s }) {
    const text = `${count(tokens)} visual ${tokens === 1 ? "token" : "tokens"}`;
    const place = time_s === null ? `Image ${clip + 1}` : `Clip ${clip + 1}, frame ${index + 1}, ${clock(time_s)}`;
    const attributes = { class: "chip", title: place, "data-frame": clip === 0 ? index : null };
    return emit && clip === 0 && time_s !== null ? button(text, () => { frame = index; mark(); emit("frame", index); }, attributes) : make("span", attributes, text);
  }

  function mark() {
    el.querySelectorAll(".chip").forEach((chip) => {
      const isHere = frame !== null && chip.dataset.frame === String(frame);
      if (isHere) chip.setAttribute("aria-current", "true");
      else chip.removeAttribute("aria-current");
    });
  }

  function heading(title, after, text) {
    const copy = button("Copy", async () => {
      await navigator.clipboard.writeText(text);
      copy.textContent = "Copied";
      setTimeout(() => { copy.textContent = "Copy"; }, COPIED_MS);
    }, { class: "copy", "aria-label": `Copy ${title}` });
    return make("div", { class: "heading" }, make("h3", {}, title), after ? make("span", {}, after) : null, navigator.clipboard ? copy : null);
  }

  return {
    follow(changes) {
      if ("frame" in changes) frame = changes.frame;
      mark();
    },
    destroy() {},
  };
}
