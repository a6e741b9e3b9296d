// Everything of the page that runs in the browser: the widgets, seeking, keys, theme, saving.
// Text from people, files and models only ever becomes textContent or an attribute, never markup.
window.vl3 = (() => {
  const KEYS = [
    ["/", "Write a question"],
    ["Enter", "Send"],
    ["Shift+Enter", "New line"],
    ["Esc", "Stop"],
    ["Ctrl+Enter", "Try again"],
    ["Space or K", "Play or pause"],
    ["J, L", "Back or forward 5 s"],
    ["D", "Light or dark"],
    ["?", "This list"],
  ];
  const find = (selector) => document.querySelector(selector);

  function make(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (value !== undefined && value !== false) node.setAttribute(name, value);
    }
    node.append(...children.filter((child) => child !== undefined && child !== null));
    return node;
  }

  function dotted(facts) {
    return facts.flatMap((fact, i) => (i ? [make("i", {}, "·"), make("span", {}, fact)] : [make("span", {}, fact)]));
  }

  // Widgets: each gets its root, its value and a way to tell the server.

  function header(root, value) {
    root.replaceChildren(
      make("h1", {}, "vl3"),
      make("p", { class: "facts" }, ...dotted(value.facts || [])),
      make("p", { class: "note" }, value.note || ""),
      make("button", { title: "Light or dark (D)", "aria-label": "Light or dark", onclick: flip }, "◐"),
      make("button", { title: "Keys (?)", "aria-label": "Keys", onclick: help }, "?"),
    );
  }

  let wanted_s = null;

  function player(root, value, trigger) {
    root.onrecall = (event) => trigger("recall", event.detail);
    root.addEventListener("recall", root.onrecall, { once: true });
    if (root.dataset.url !== (value.url || "")) {
      root.dataset.url = value.url || "";
      root.dataset.key = value.key || "";
      root.replaceChildren(...(value.url ? [screen(value), make("div", { class: "probe" })] : []));
    }
    const line = root.querySelector(".probe");
    if (!line) return;
    const badge = value.badge ? make("span", { class: "badge", role: "status" }, value.badge) : null;
    const facts = make("p", { class: "facts" }, ...dotted(value.facts || []));
    if (badge) facts.append(badge);
    line.replaceChildren(facts, make("button", { class: "link", onclick: choose }, "Replace"));
  }

  function screen(value) {
    const frame = make("div", { class: "screen", ondragover: stop, ondrop: dropped });
    if (value.kind === "image") {
      frame.append(make("img", { src: value.url, alt: (value.facts || [])[0] || "Image" }));
      return frame;
    }
    const video = make("video", { src: value.url, controls: "", playsinline: "", preload: "metadata",
      "aria-label": (value.facts || [])[0] || "Video" });
    video.addEventListener("loadedmetadata", () => {
      if (wanted_s !== null) video.currentTime = wanted_s;
      wanted_s = null;
    });
    video.addEventListener("error", () => {
      frame.append(make("p", { class: "unplayable" },
        "This browser cannot play the file. Questions about it work all the same."));
    });
    frame.append(video);
    return frame;
  }

  function choose() {
    find("#drop input[type=file]")?.click();
  }

  function stop(event) {
    event.preventDefault();
  }

  function dropped(event) {
    event.preventDefault();
    const input = find("#drop input[type=file]");
    if (!input || !event.dataTransfer?.files.length) return;
    input.files = event.dataTransfer.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  }

  function budget(root, value) {
    const state = value.state || "empty";
    root.className = `vl3-budget ${state}`;
    if (state === "empty") return root.replaceChildren();
    const percent = Math.round(100 * (value.filled || 0));
    const bar = make("div", { class: "bar", role: "meter", "aria-label": "Share of the token limit",
      "aria-valuenow": percent, "aria-valuemin": 0, "aria-valuemax": 100 }, make("b"));
    bar.firstChild.style.width = `${Math.max(percent, 1)}%`;
    root.replaceChildren(...(state === "refused" ? [] : [bar]),
      make("p", { "aria-live": "polite" }, value.text || ""));
  }

  function gallery(root, value, trigger) {
    const clips = value.clips || [];
    if (!clips.length) return root.replaceChildren();
    const selected = clips[value.selected];
    const cards = clips.map((clip, index) => make("button",
      { class: "card", "aria-pressed": String(index === value.selected), title: clip.title,
        onclick: () => trigger("example", { index }) },
      make("img", { src: clip.url, alt: "", loading: "lazy" }), make("span", {}, clip.title)));
    const questions = (selected?.questions || []).map((question, number) => make("button",
      { class: "question", onclick: () => trigger("question", { index: value.selected, number }) }, question));
    root.replaceChildren(make("h2", {}, "Examples"), make("div", { class: "cards" }, ...cards),
      make("div", { class: "questions" }, ...questions));
  }

  function details(root, value) {
    if (!value.rows) return root.replaceChildren();
    const open = root.querySelector("details")?.open;
    const table = make("table", {}, make("tbody", {}, ...value.rows.map(([name, text]) =>
      make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, text)))));
    const blocks = (value.blocks || []).map((block) => make("section", {},
      make("h3", {}, block.title),
      make("button", { class: "link", "aria-label": `Copy ${block.title}`,
        onclick: (event) => copy(event.target, block.text) }, "Copy"),
      make("pre", { tabindex: "0", "aria-label": block.title }, block.text)));
    const box = make("details", {}, make("summary", {}, "Run details"),
      make("div", { class: "columns" }, table, make("div", {}, ...blocks)));
    box.open = Boolean(open);
    root.replaceChildren(box);
  }

  async function copy(button, text) {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  }

  function saver(root, value) {
    if (!value.text) return;
    const url = URL.createObjectURL(new Blob([value.text], { type: value.type }));
    make("a", { href: url, download: value.name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  }

  const widgets = { header, player, budget, gallery, details, saver };

  function mount(kind, element, props, watch, trigger) {
    const draw = () => {
      const root = element.querySelector(`.vl3-${kind}`);
      if (root) widgets[kind](root, props.value || {}, trigger);
    };
    watch("value", draw);
    draw();
  }

  // Seeking: links to #t=12&v=key move the player; the player may have to fetch the video first.

  function seek(time_s, key) {
    const root = find(".vl3-player");
    const video = root?.querySelector("video");
    if (video && (!key || root.dataset.key === key)) {
      video.currentTime = time_s;
      video.scrollIntoView({ block: "nearest" });
    } else if (root && key) {
      wanted_s = time_s;
      root.dispatchEvent(new CustomEvent("recall", { detail: { key } }));
    }
  }

  function clicked(event) {
    const link = event.target.closest?.('a[href*="#t="]');
    if (link) {
      const target = new URLSearchParams(link.hash.slice(1));
      event.preventDefault();
      event.stopPropagation();
      return seek(Number(target.get("t")), target.get("v"));
    }
    const picture = event.target.closest?.("#chat .user-row .image-container");
    const key = picture?.querySelector("img")?.src.match(/([0-9a-f]{12})\.jpg$/)?.[1];
    if (key) {
      event.preventDefault();
      event.stopPropagation();
      seek(0, key);
    }
  }

  // The conversation: captions travel with the answer and stand under the pictures of the question.

  function caption() {
    let pictures = [];
    for (const row of document.querySelectorAll("#chat .user-row, #chat .bot-row")) {
      if (row.classList.contains("user-row")) {
        pictures.push(...row.querySelectorAll(".image-container"));
        continue;
      }
      row.querySelectorAll(".attached").forEach((from, i) => {
        if (pictures[i]) captionOf(pictures[i], from.textContent);
      });
      pictures = [];
    }
    // The raw Markdown as a name would be read out in place of the text.
    for (const message of document.querySelectorAll("#chat [data-testid][aria-label]")) {
      message.removeAttribute("aria-label");
    }
  }

  function captionOf(picture, text) {
    let line = picture.parentNode.querySelector(":scope > .caption");
    if (!line) picture.after(line = make("p", { class: "caption" }));
    if (line.textContent !== text) line.textContent = text;
    picture.querySelector("button:has(img)")?.setAttribute("aria-label", `Show ${text}`);
  }

  // Theme

  const prefersDark = matchMedia("(prefers-color-scheme: dark)");

  function stored() {
    try { return localStorage.getItem("vl3-theme"); } catch { return null; }
  }

  function paint() {
    const name = stored();
    document.body.classList.toggle("dark", name ? name === "Dark" : prefersDark.matches);
  }

  function theme(name) {
    try {
      if (name === "System") localStorage.removeItem("vl3-theme");
      else localStorage.setItem("vl3-theme", name);
    } catch { /* private windows may refuse storage; the theme then lasts for this page */ }
    if (name === "System") paint();
    else document.body.classList.toggle("dark", name === "Dark");
  }

  function flip() {
    theme(document.body.classList.contains("dark") ? "Light" : "Dark");
  }

  // Keys

  function help() {
    let box = find("#vl3-help");
    if (!box) {
      const rows = KEYS.map(([key, what]) => make("tr", {}, make("th", { scope: "row" }, make("kbd", {}, key)), make("td", {}, what)));
      box = make("dialog", { id: "vl3-help", "aria-label": "Keys" }, make("h2", {}, "Keys"),
        make("table", {}, make("tbody", {}, ...rows)),
        make("form", { method: "dialog" }, make("button", {}, "Close")));
      document.body.append(box);
    }
    if (!box.open) box.showModal();
  }

  function move(video, seconds) {
    if (video) video.currentTime = Math.max(0, video.currentTime + seconds);
  }

  function toggle(video) {
    if (video) (video.paused ? video.play() : Promise.resolve(video.pause())).catch(() => {});
  }

  function pressed(event) {
    const inField = event.target.closest?.("input, textarea, select, [contenteditable]");
    if (event.key === "Escape" && !find("dialog[open]")) return find("#ask .stop-button")?.click();
    if (inField || find("dialog[open]") || event.altKey || event.metaKey) return;
    if (event.ctrlKey) {
      if (event.key === "Enter") find("#again")?.click();
      return;
    }
    const video = find("#player video");
    const onControl = event.target.closest?.("button, a, summary, video, [role=button]");
    const actions = {
      "/": () => find("#ask textarea")?.focus(),
      "?": help,
      d: flip,
      k: () => toggle(video),
      j: () => move(video, -5),
      l: () => move(video, 5),
      " ": () => (onControl ? false : toggle(video)),
    };
    const action = actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (action && action() !== false) event.preventDefault();
  }

  // What is copied is what is read: no invisible characters, no addresses of links, no footers.

  function cleanCopies() {
    const clipboard = navigator.clipboard;
    if (!clipboard) return;
    const write = clipboard.writeText.bind(clipboard);
    clipboard.writeText = (text) => write(text
      .replace(/\[([^\]]*)\]\(#t=[^)]*\)/g, "$1")
      .replace(/<span class="attached">.*?<\/span>/gs, "")
      .replace(/\s*<span class="foot">.*$/s, "")
      .replace(/\u200b/g, "").trim());
  }

  function start() {
    paint();
    prefersDark.addEventListener("change", paint);
    document.addEventListener("click", clicked, true);
    document.addEventListener("keydown", pressed);
    new MutationObserver(caption).observe(document.body, { childList: true, subtree: true });
    cleanCopies();
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
  window.addEventListener("load", () => setTimeout(paint, 0));

  return { mount, seek, theme };
})();
