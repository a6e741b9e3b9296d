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
    [", and .", "Previous or next frame that the model sees"],
    ["G", "Go to a time"],
    ["1 to 5", "Tabs of Inspect"],
    ["[ and ]", "Lower or higher threshold, in Pruning"],
    ["← and →", "Previous or next word, in Attention"],
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

  const NEWS_MS = 5000; // how often an open tab asks whether another model answers now

  function header(root, value, trigger, server) {
    root.number = value.number;
    root.news ??= server && setInterval(async () => {
      if (document.visibilityState !== "visible" || root.asking || !root.isConnected) return;
      root.asking = true;
      const number = await server.news(root.number).catch(() => root.number); // it asks again
      root.asking = false;
      if (number !== root.number) trigger("changed", {});
    }, NEWS_MS);
    root.replaceChildren(
      make("h1", {}, "vl3"),
      make("p", { class: "facts" }, ...dotted(value.facts || [])),
      make("p", { class: "note" }, value.note || ""),
      make("button", { title: "Light or dark (D)", "aria-label": "Light or dark", onclick: flip }, "◐"),
      make("button", { title: "Keys (?)", "aria-label": "Keys", onclick: help }, "?"),
    );
  }

  let wanted_s = null;
  let wantedBoxes = null;

  function player(root, value, trigger) {
    root.onrecall = (event) => { comes("recall", "the earlier video"); trigger("recall", event.detail); };
    root.addEventListener("recall", root.onrecall, { once: true });
    if (root.dataset.url !== (value.url || "")) {
      root.dataset.url = value.url || "";
      root.dataset.key = value.key || "";
      const below = ["strip", "probe"].map((name) => make("div", { class: name }));
      root.replaceChildren(...(value.url ? [screen(value), ...below] : []));
    }
    strip(root, value.strip);
    const line = root.querySelector(".probe");
    if (!line) return;
    const badge = value.badge ? make("span", { class: "badge", role: "status" }, value.badge) : null;
    const facts = make("p", { class: "facts" }, ...dotted(value.facts || []));
    if (badge) facts.append(badge);
    line.replaceChildren(facts, make("button", { class: "link", onclick: choose }, "Replace"));
    offerMoment();
    if (wantedBoxes?.key === root.dataset.key) showBoxes(wantedBoxes);
  }

  function screen(value) {
    const frame = make("div", { class: "screen" });
    if (value.kind === "image") {
      frame.append(make("img", { src: value.url, alt: (value.facts || [])[0] || "Image" }));
      return frame;
    }
    const video = make("video", { src: value.url, controls: "", playsinline: "", preload: "metadata",
      "aria-label": (value.facts || [])[0] || "Video" });
    keepClock(video, value.clock);
    video.addEventListener("loadedmetadata", () => {
      if (wanted_s !== null) setTime(video, wanted_s);
      wanted_s = null;
    });
    video.addEventListener("error", async () => {
      const line = make("p", { class: "unplayable" });
      frame.append(line);
      const answer = await fetch(value.url, { headers: { Range: "bytes=0-0" } }).catch(() => null);
      line.textContent = answer?.ok ? "This browser cannot play the file. Questions about it work all the same."
        : "The file is not on the server any more. Upload it again.";
    });
    frame.append(video);
    return frame;
  }

  // The player's clock. Everything on the page counts from where the file starts; a browser may count by
  // the file's own clock, in which that is at zero_s: Chromium does, Firefox does not. Nothing but these
  // three reads or sets what a video says of its time.

  function keepClock(video, { zero_s, first_s }) {
    video.zero_s = zero_s;
    if (!zero_s) return;
    video.requestVideoFrameCallback?.((_, { mediaTime }) => {
      if (mediaTime < first_s + zero_s / 2) video.zero_s = 0;
    });
    // How long a file is that begins late, Chromium learns while it reads on, and goes no further.
    video.addEventListener("durationchange", () => {
      if (video.duration > video.end_s && video.goal_s > video.end_s) goOn(video);
    });
    for (const name of ["play", "pointerdown"]) video.addEventListener(name, () => { video.goal_s = null; });
  }

  function timeOf(video) {
    return video.currentTime - video.zero_s;
  }

  function setTime(video, time_s) {
    video.goal_s = Math.max(0, time_s) + video.zero_s;
    goOn(video);
  }

  function goOn(video) {
    video.end_s = video.duration || Infinity;
    video.currentTime = video.goal_s;
  }

  // The film strip: pictures that stand for the frames the model sees, and what was kept of those.

  function strip(root, value) {
    const box = root.querySelector(".strip");
    const drawn = JSON.stringify([root.dataset.url, value]);
    if (root.drawn === drawn) return;
    root.drawn = drawn;
    if (box) {
      const focused = [...box.querySelectorAll("button")].indexOf(document.activeElement);
      box.replaceChildren(...(value ? [make("div", { class: "cells" }, ...cells(value)), make("p")] : []));
      const count = value?.cells.length || 0;
      box.style.setProperty("--columns", count > 8 ? Math.ceil(count / 2) : Math.max(count, 5));
      box.querySelectorAll("button")[focused]?.focus();
    }
    frames = value || NO_FRAMES;
    frame.index = null; // the same index is another frame now
    followFrame();
  }

  function cells(value) {
    const [width, height] = value.size;
    const canvases = value.cells.map(() => make("canvas", { width, height }));
    if (value.url) {
      const sheet = new Image();
      sheet.onload = () => canvases.forEach((canvas, i) => canvas.getContext("2d")
        .drawImage(sheet, i * width, 0, width, height, 0, 0, width, height));
      sheet.src = value.url;
    }
    return value.cells.map((cell, i) => {
      const known = cell.share !== null;
      const percent = Math.round(100 * cell.share);
      const bar = make("span", { class: "kept" }, known ? make("b") : null);
      if (known) bar.firstChild.style.width = `${percent}%`;
      return make("button", { "aria-label": `Go to ${cell.label}`, onclick: () => goTo(cell.time_s),
        title: known ? `${cell.label}, ${percent} % of the tokens kept` : cell.label }, canvases[i], bar);
    });
  }

  // The current frame: of those the model sees, the one nearest to the player's time. Whatever shows a
  // frame follows it: subscribe(follower) calls follower(index, frames) now and whenever it changes;
  // index is -1 where there is none. frames: times_s, labels, kept (tokens of each, or null), tokens.

  const NO_FRAMES = { times_s: [], labels: [], cells: [], kept: null, tokens: null };
  const AFTER_S = 0.0005; // browsers round times down, to the frame before
  let frames = NO_FRAMES;
  const followers = new Set([markFrame]);
  const frame = { index: -1, subscribe };

  function subscribe(follower) {
    followers.add(follower);
    follower(frame.index, frames);
    return () => followers.delete(follower);
  }

  function followFrame() {
    const video = find("#player video");
    const index = video ? nearest(frames.times_s, timeOf(video)) : -1;
    if (index === frame.index) return;
    frame.index = index;
    for (const follower of followers) follower(index, frames);
  }

  function nearest(times_s, time_s) {
    const after = times_s.findIndex((each) => each >= time_s);
    if (after < 0) return times_s.length - 1;
    return after > 0 && time_s - times_s[after - 1] < times_s[after] - time_s ? after - 1 : after;
  }

  function markFrame(index, { cells, labels, times_s, kept, tokens }) {
    const box = find("#player .strip");
    const current = cells.findLastIndex((cell) => cell.first <= index);
    box?.querySelectorAll("button").forEach((button, i) => button.setAttribute("aria-current", String(i === current)));
    const line = box?.querySelector("p");
    if (!line || index < 0) return;
    // Read out when somebody goes to a frame, not while the video plays.
    line.setAttribute("aria-live", find("#player video").paused ? "polite" : "off");
    const parts = [`Frame ${index + 1} of ${times_s.length}`, labels[index]];
    if (kept) parts.push(`${kept[index]} of ${tokens} tokens kept`);
    line.textContent = parts.join(" · ");
  }

  function goTo(time_s) {
    const video = find("#player video");
    setTime(video, time_s + AFTER_S);
    followFrame();
  }

  function step(video, direction) {
    if (!video) return;
    video.pause();
    const now_s = timeOf(video);
    const time_s = direction > 0 ? frames.times_s.find((each) => each > now_s + 0.01)
      : frames.times_s.findLast((each) => each < now_s - 0.01);
    if (time_s !== undefined) goTo(time_s);
  }

  function askTime() {
    if (!find("#player video")) return;
    const field = make("input", { "aria-label": "Time", placeholder: "0:12", autocomplete: "off" });
    const note = make("p", { role: "alert" });
    const go = (event) => {
      event.preventDefault();
      const time_s = readTime(field.value);
      if (time_s === null) return note.textContent = "This is not a time. Write 12, 0:12 or 1:02:03.";
      find("#vl3-time").close();
      goTo(time_s);
    };
    dialog("vl3-time", "Go to time", make("form", { onsubmit: go }, field, make("button", {}, "Go")), note);
  }

  // Seconds of a typed time as vl3/webapp/timestamps.py reads it (12, 12.5 s, 0:12, 1:02:03); null if it is none.
  function readTime(text) {
    const found = /^(?:(?:(\d{1,7}):)?(\d{1,3}):([0-5]\d(?:\.\d{1,3})?)|(\d{1,10}(?:\.\d{1,3})?)\s*s?)$/i.exec(text.trim());
    if (!found) return null;
    const [hours, minutes, seconds, short] = found.slice(1).map((part) => Number(part || 0));
    return hours * 3600 + minutes * 60 + seconds + short;
  }

  function choose() {
    find("#drop input[type=file]")?.click();
  }

  // Files dropped anywhere: one is the next video, several are attached to the question. Whatever else is
  // dropped outside of a field is ignored, since a browser leaves the page for it.

  const HINT = "Drop the file anywhere on the page";

  function dragged(event) {
    const withFiles = [...(event.dataTransfer?.types || [])].includes("Files");
    if (!withFiles && inField(event)) return;
    event.preventDefault();
    if (!withFiles) return void (event.dataTransfer.dropEffect = "none");
    event.dataTransfer.dropEffect = "copy";
    if (!find("#vl3-drop")) document.body.append(make("div", { id: "vl3-drop", role: "status" }, HINT));
    clearTimeout(dragged.ends);
    dragged.ends = setTimeout(undrag, 400); // a drag that leaves the window does not always say so
  }

  function undrag() {
    find("#vl3-drop")?.remove();
  }

  function inField(event) {
    return event.target.closest?.("textarea, input:not([type=range], [type=checkbox], [type=radio], [type=file]), [contenteditable]");
  }

  function dropped(event) {
    undrag();
    const files = [...(event.dataTransfer?.files || [])];
    if (!files.length && inField(event)) return;
    event.preventDefault();
    event.stopPropagation();
    if (!files.length) return;
    if ([...event.dataTransfer.items].some((item) => item.webkitGetAsEntry?.()?.isDirectory)) {
      return told("This is a folder. Drop a video or an image.");
    }
    const isForAsk = files.length > 1 || event.target.closest?.("#ask");
    if (isForAsk) give(find("#ask input[type=file]"), event.dataTransfer.files);
    else replaceBy(event.dataTransfer.files);
    if (isForAsk && files.length > 1) told(`${files.length} files are attached to the question.`);
  }

  // A picture from the clipboard is attached to the question, wherever the focus is.
  function pasted(event) {
    const files = event.clipboardData?.files;
    if (!files?.length || event.target.closest?.("#ask")) return;
    event.preventDefault();
    give(find("#ask input[type=file]"), files);
    told("What was pasted is attached to the question.");
  }

  // The next video; while one is uploaded there is no place to put another, so it comes afterwards.
  function replaceBy(files) {
    const input = find("#drop input[type=file]");
    later = input ? null : files;
    if (input) return give(input, files);
    told(`${files[0].name} comes after the file that is being uploaded.`);
    setTimeout(() => { if (later === files) replaceBy(files); }, 150);
  }

  function give(input, files) {
    if (!input) return;
    input.files = files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  }

  // A question waits while a file is on its way: it is about that file, not about the one before.

  const coming = new Map(); // by what it was chosen, and its name
  let uploading = 0, wasSent = false;
  let due = 0; // next videos that the server has and has said nothing about
  let later = null; // files to upload after the one that is being uploaded
  let waiting = null; // sends the question that waits
  let notice = "";

  function comes(kind, name) {
    coming.set(kind, name);
    notice = "";
    showHeld();
    if (kind !== "upload") giveUp(kind);
  }

  const PATIENCE_MS = 120_000;

  // A server that never says whether it took the file must not hold questions back for ever.
  function giveUp(kind) {
    const name = coming.get(kind);
    setTimeout(() => {
      if (!name || coming.get(kind) !== name) return;
      if (kind === "upload") due = 0;
      arrived(kind, false);
    }, PATIENCE_MS);
  }

  // The server's word that it has taken what was chosen, or has refused it.
  function answered(kind, isThere) {
    if (kind === "upload") {
      due = Math.max(0, due - 1);
      if (!wasSent) return; // it is about the file before
    }
    arrived(kind, isThere);
  }

  function arrived(kind, isThere) {
    if (kind === "upload" && (uploading || due)) return; // another one follows
    coming.delete(kind);
    if (!isThere && waiting) {
      waiting = null;
      notice = "The question was not sent, since its file could not be read.";
    }
    release();
  }

  function isComing() {
    return coming.size > 0 || uploading > 0 || later !== null;
  }

  function release() {
    showHeld();
    if (isComing() || !waiting) return;
    const send = waiting;
    waiting = null;
    showHeld();
    setTimeout(send, 60); // what arrived is drawn first
  }

  function told(text) {
    notice = text;
    showHeld();
  }

  function showHeld() {
    const root = find(".vl3-held");
    if (!root) return;
    const names = [...coming.values()].join(", ") || "the files";
    const parts = [];
    if (waiting) {
      parts.push(make("span", {}, `Your question waits for ${names}, then it is sent.`),
        make("button", { class: "link", onclick: () => { waiting = null; showHeld(); } }, "Do not send"));
    } else if (later) parts.push(make("span", {}, notice));
    else if (uploading) parts.push(make("span", {}, `Uploading ${names}.`));
    else if (notice) parts.push(make("span", {}, notice));
    if (root.textContent !== parts.map((part) => part.textContent).join("")) root.replaceChildren(...parts);
  }

  function held(root) {
    root.setAttribute("role", "status");
    showHeld();
  }

  // Whether the event that sends a question has to wait.
  function holds(event) {
    const field = find("#ask textarea");
    const isEnter = event.type === "keydown" && event.target === field && event.key === "Enter" && !event.shiftKey && !event.isComposing;
    const isButton = event.type === "click" && event.isTrusted && event.target.closest?.("#ask .submit-button");
    if (!(isEnter || isButton) || !field.value.trim()) return false;
    if (!isComing()) return void toAnswer();
    event.preventDefault();
    event.stopImmediatePropagation();
    waiting = () => find("#ask .submit-button")?.click();
    showHeld();
    return true;
  }

  function watchUploads() {
    document.addEventListener("change", (event) => {
      if (!event.target.matches?.("#drop input[type=file]") || !event.target.files.length) return;
      comes("upload", event.target.files[0].name);
      // A file of another kind is refused without being sent.
      setTimeout(() => { if (!uploading && !wasSent) arrived("upload", false); }, 1500);
      wasSent = false;
    }, true);
    const fetching = window.fetch.bind(window);
    window.fetch = async (address, options) => {
      const isUpload = options?.method === "POST" && /\/upload(\?|$)/.test(String(address?.url || address));
      if (!isUpload) return fetching(address, options);
      const isNext = coming.has("upload") && !wasSent; // and no attachment of a question
      uploading += 1;
      wasSent = true;
      showHeld();
      let isThere = false;
      try {
        const answer = await fetching(address, options);
        isThere = answer.ok;
        return answer;
      } finally {
        uploading -= 1;
        if (isNext && isThere) due += 1;
        giveUp("upload");
        // What comes after an upload that worked takes its turn first.
        setTimeout(() => (isThere ? release() : arrived("upload", false)), 200);
      }
    };
  }

  function faults(root, value) {
    const found = value.faults || {};
    root.replaceChildren(...Object.values(found).map((text) => make("p", { role: "alert" }, text)));
    for (const [name, label] of Object.entries(LABELS)) {
      const of = [...document.querySelectorAll("#reading label, #settings label")]
        .find((each) => each.querySelector("[data-testid=block-info]")?.textContent.trim() === label);
      const field = of?.querySelector("input, textarea");
      if (name in found) field?.setAttribute("aria-invalid", "true");
      else field?.removeAttribute("aria-invalid");
    }
  }

  const LABELS = { start: "From", end: "To", fps: "Frames per s", max_frames: "Max frames", budget_tokens: "Token budget",
    temperature: "Temperature", top_p: "Top-p", max_new_tokens: "Max new tokens", repetition_penalty: "Repetition penalty", seed: "Seed", threshold: "Threshold" };

  function budget(root, value) {
    const state = value.state || "empty";
    root.className = `vl3-budget ${state}`;
    if (state === "empty") return root.replaceChildren();
    const percent = Math.round(100 * (value.filled || 0));
    const bar = make("div", { class: "bar", role: "meter", "aria-label": "Share of the token limit",
      "aria-valuenow": percent, "aria-valuemin": 0, "aria-valuemax": 100 }, make("b"));
    bar.firstChild.style.width = `${Math.max(percent, 1)}%`;
    const pruned = value.pruned ? make("span", {}, ` (${value.pruned})`) : null;
    const notes = (value.notes || []).map((note) => make("p", { class: "remark" }, note));
    root.replaceChildren(...(state === "refused" ? [] : [bar]),
      make("div", { "aria-live": "polite" }, make("p", {}, value.text || "", pruned), ...notes));
  }

  function gallery(root, value, trigger) {
    const clips = value.clips || [];
    if (!clips.length) return root.replaceChildren();
    const selected = clips[value.selected];
    const cards = clips.map((clip, index) => make("button",
      { class: "card", "aria-pressed": String(index === value.selected), title: clip.title,
        onclick: () => { comes("example", clip.title); trigger("example", { index }); } },
      make("img", { src: clip.url, alt: "", loading: "lazy" }), make("span", {}, clip.title)));
    const questions = (selected?.questions || []).map((question, number) => make("button",
      { class: "question", onclick: () => { toAnswer(); trigger("question", { index: value.selected, number }); } }, question));
    root.replaceChildren(make("h2", {}, "Examples"), make("div", { class: "cards" }, ...cards),
      make("div", { class: "questions" }, ...questions));
  }

  // Inspect: tabs, each with a panel that draws what the server made for it. A view is drawn by the
  // module of assets/web/look.js from a file, since it is large; here comes only where that lies.

  let views;
  const mounting = new Promise((ready) => { views = ready; }); // called by the module with its mount
  const TABS = { pruning: "Pruning", positions: "Positions", attention: "Attention", compare: "Compare", run: "Run details" };
  const SAVED = [["png", "PNG", "This frame as a picture"], ["gif", "GIF", "The clip as an animation"],
    ["mp4", "MP4", "The clip as a video"], ["npz", "Mask", "The mask as a NumPy archive"]];

  function tabs(root, value, trigger) {
    if (root.firstChild || !value.tabs) return;
    const buttons = value.tabs.map((name) => make("button", { role: "tab", id: `tab-${name}`, "data-tab": name, "aria-selected": "false",
      "aria-controls": `panel-${name}`, onclick: () => { openTab(name); trigger("open", { tab: name }); } }, TABS[name]));
    buttons.forEach((button, i) => { button.tabIndex = i ? -1 : 0; });
    root.replaceChildren(make("h2", {}, "Inspect"),
      make("div", { role: "tablist", "aria-label": "Inspect", onkeydown: (event) => alongTabs(event, buttons) }, ...buttons),
      make("button", { class: "link", title: "The opened views in one file that needs no server", onclick: () => trigger("whole", {}) }, "Save as HTML"));
    root.append(make("p", { class: "hint" }, "Look inside: what the pruner removes, where positions put every patch, where each word of an answer looked, and what made it."));
    const last = kept("sessionStorage", "vl3-tab");
    if (value.tabs.includes(last)) openTab(last); // the server hears of it from remembered()
  }

  function openTab(name) {
    find("#inspect").dataset.open = name;
    keepIn("sessionStorage", "vl3-tab", name);
    for (const tab of document.querySelectorAll("#tabs [role=tab]")) {
      const isOpen = tab.dataset.tab === name;
      tab.setAttribute("aria-selected", String(isOpen));
      tab.tabIndex = isOpen ? 0 : -1;
      const panel = find(`#panel-${tab.dataset.tab}`);
      panel?.setAttribute("role", "tabpanel");
      panel?.setAttribute("aria-labelledby", tab.id);
    }
  }

  function alongTabs(event, buttons) {
    const at = buttons.indexOf(event.target);
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: buttons.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const button = buttons[(to + buttons.length) % buttons.length];
    button.focus();
    button.click();
  }

  function goToTab(number) {
    const button = document.querySelectorAll("#tabs [role=tab]")[number - 1];
    if (!button) return false;
    button.click();
    button.focus();
    find("#inspect").scrollIntoView({ block: "start" });
  }

  // A panel with one view: the file that its value names, followed by frame and settings.
  function look(root, value, trigger, server) {
    if (!root.body) {
      root.body = make("div", {});
      root.note = make("p", { class: "note", role: "status" });
      root.told = make("p", { class: "told" });
      root.replaceChildren(root.note, root.body, root.told);
      root.end = () => {};
    }
    root.value = value;
    root.note.textContent = value.note || (value.url ? "" : "One moment.");
    root.told.textContent = value.told || "";
    if (root.url !== value.url) return drawLook(root, trigger, server);
    if (root.view && value.used !== undefined) root.view.update({ used: value.used });
  }

  async function drawLook(root, trigger, server) {
    const { url } = root.value;
    root.end();
    root.end = () => {};
    root.view = null;
    root.url = url;
    root.body.replaceChildren();
    if (!url) return;
    root.note.textContent = "Fetching what to draw.";
    const [mount, answer] = await Promise.all([mounting, fetch(url)]);
    const data = answer.ok ? await answer.json() : null;
    if (root.url !== url) return; // there is another one by now
    root.note.textContent = data ? "" : "What was made for this tab is gone. Open the tab again.";
    if (!data) return root.url = null;
    drawView(root, mount, data, trigger, server);
  }

  function drawView(root, mount, data, trigger, server) {
    const place = make("div", {}), { media, used } = root.value, of = root.url;
    let medium = data.medium || 0; // of several videos, the one in view
    // Its times, while the player shows the same video.
    const times = () => (find(".vl3-player")?.dataset.key === media[medium]?.key ? media[medium].times_s : null);
    const frameNow = (index, { times_s }) => (times() && index >= 0 ? nearest(times(), times_s[index]) : null);
    const told = {
      apply: (rule) => trigger("adopt", rule),
      need: async (wanted) => {
        const maps = await server.need({ ...wanted, of }).catch(() => null); // it asks again where nothing comes
        if (maps && root.url === of) root.view.update({ maps });
      },
      medium: (index) => { medium = index; },
      frame: (index) => { if (times()) goTo(times()[index]); },
    };
    root.body.replaceChildren(place);
    root.view = mount(place, { ...data, used, frame: frameNow(frame.index, frames) ?? 0 }, (name, detail) => told[name]?.(detail));
    const view = root.view;
    const unsubscribe = frame.subscribe((index, known) => {
      const at = frameNow(index, known);
      if (at !== null) view.update({ frame: at });
    });
    root.end = () => { unsubscribe(); view.destroy(); };
    if (data.view !== "pruning") return;
    const kinds = data.times_s ? SAVED : SAVED.filter(([kind]) => kind === "png" || kind === "npz");
    root.body.append(make("p", { class: "save" }, make("span", {}, "Save"), ...kinds.map(([kind, label, title]) =>
      make("button", { title, onclick: () => trigger("save", { kind, ...view.shown() }) }, label))));
  }

  function saver(root, value, trigger) {
    if (value.link) handOver(value, trigger);
    if (value.url) make("a", { href: value.url, download: value.name }).click();
    if (!value.text) return;
    const url = URL.createObjectURL(new Blob([value.text], { type: value.type }));
    make("a", { href: url, download: value.name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  }

  // Copies the link; where the browser does not allow it (a page without https), shows it.
  async function handOver(value, trigger) {
    const url = `${location.origin}${location.pathname}?run=${encodeURIComponent(value.link)}`;
    try {
      await navigator.clipboard.writeText(url);
      trigger("copied", {});
    } catch {
      const field = make("input", { readonly: "", value: url, "aria-label": "Link" });
      dialog("vl3-link", "Copy this link", make("p", {}, value.note), field);
      field.select();
    }
  }

  const widgets = { header, player, budget, gallery, held, faults, tabs, pruning: look, positions: look, attention: look, compare: look, run: look, saver, memory,
    moment: offerMoment };

  function mount(kind, element, props, watch, trigger, server) {
    const draw = () => {
      const root = element.querySelector(`.vl3-${kind}`);
      if (root) widgets[kind](root, props.value || {}, trigger, server);
    };
    watch("value", draw);
    draw();
  }

  // Seeking: links to #t=12&v=key move the player; the player may have to fetch the video first.

  function seek(time_s, key) {
    const root = find(".vl3-player");
    const video = root?.querySelector("video");
    if (video && (!key || root.dataset.key === key)) {
      setTime(video, time_s);
      video.scrollIntoView({ block: "nearest" });
    } else if (root && key) {
      wanted_s = time_s;
      root.dispatchEvent(new CustomEvent("recall", { detail: { key } }));
    }
  }

  // Boxes of an answer, on a canvas over the picture: #boxes=x0,y0,x1,y1@time;...&n=count&v=key.

  const MOST_BOXES = 100;
  const NEAR_S = 0.1; // as long as one picture stays, or a few
  let boxes = null; // { key, list, total, from }: what is shown, and the link that showed it

  function readBoxes(link) {
    const target = new URLSearchParams(link.hash.slice(1));
    const list = (target.get("boxes") || "").split(";").slice(0, MOST_BOXES).map((text, i) => {
      const [place, time] = text.split("@");
      return { number: i + 1, place: place.split(",").map(Number), time_s: time === undefined ? null : Number(time) };
    });
    const total = Number(target.get("n")) || list.length;
    return { key: target.get("v"), list, total, from: link };
  }

  function showBoxes(wanted) {
    const root = find(".vl3-player");
    if (!root) return;
    hideBoxes();
    if (wanted.key && root.dataset.key !== wanted.key) {
      wantedBoxes = wanted;
      return root.dispatchEvent(new CustomEvent("recall", { detail: { key: wanted.key } }));
    }
    wantedBoxes = null;
    const picture = root.querySelector("video, img");
    if (!picture) return;
    boxes = wanted;
    const timed = wanted.list.find((box) => box.time_s !== null);
    if (timed && picture.localName === "video") showMoment(picture, timed.time_s);
    const canvas = make("canvas", { class: "boxes", role: "img", "aria-label": "Boxes of the answer" });
    picture.parentNode.append(canvas);
    root.append(make("div", { class: "told" }, make("p", { "aria-live": "polite" }),
      make("button", { class: "link go", onclick: toNextBox }, "Next"),
      make("button", { class: "link", onclick: () => { hideBoxes(); wanted.from.focus(); } }, "Hide boxes")));
    new ResizeObserver(drawBoxes).observe(canvas);
    followPictures(picture);
    picture.addEventListener("load", drawBoxes);
    drawBoxes();
    picture.scrollIntoView({ block: "nearest" });
  }

  function showMoment(video, time_s) {
    video.pause();
    if (video.readyState > 0) setTime(video, time_s + AFTER_S);
    else wanted_s = time_s + AFTER_S;
  }

  // A box goes with its picture, not a quarter of a second later, when the player says that time passed.
  function followPictures(video) {
    if (!boxes || !video.isConnected) return;
    drawBoxes();
    video.requestVideoFrameCallback?.(() => followPictures(video));
  }

  function timesOfBoxes() {
    return [...new Set(boxes.list.map((box) => box.time_s).filter((time_s) => time_s !== null))].sort((a, b) => a - b);
  }

  function toNextBox() {
    const video = find("#player video"), times = timesOfBoxes();
    const time_s = times.find((each) => each > timeOf(video) + NEAR_S) ?? times[0];
    showMoment(video, time_s);
  }

  function hideBoxes() {
    boxes = null;
    for (const node of document.querySelectorAll("#player canvas.boxes, #player .told")) node.remove();
  }

  // Where the picture lies in its element: object-fit contain leaves bars at two of the sides.
  function pictureIn(element) {
    const wide = element.videoWidth || element.naturalWidth, high = element.videoHeight || element.naturalHeight;
    const scale = Math.min(element.clientWidth / wide, element.clientHeight / high) || 0;
    const width = wide * scale, height = high * scale;
    return { left: element.offsetLeft + (element.clientWidth - width) / 2,
      top: element.offsetTop + (element.clientHeight - height) / 2, width, height };
  }

  function drawBoxes() {
    const canvas = find("#player canvas.boxes");
    if (!boxes || !canvas) return;
    const picture = canvas.parentNode.querySelector("video, img");
    const ratio = devicePixelRatio || 1;
    canvas.width = canvas.clientWidth * ratio;
    canvas.height = canvas.clientHeight * ratio;
    const at = pictureIn(picture);
    const now = boxes.list.filter((box) => box.time_s === null || Math.abs(box.time_s - timeOf(picture)) <= NEAR_S);
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    if (at.width) for (const box of now) drawBox(pen, at, box);
    const text = toldOf(now);
    const line = find("#player .told p");
    if (line.textContent !== text) line.textContent = text;
    find("#player .told .go").hidden = now.length === boxes.list.length;
  }

  function drawBox(pen, at, { number, place: [x0, y0, x1, y1] }) {
    const left = at.left + (x0 / 1000) * at.width, top = at.top + (y0 / 1000) * at.height;
    const width = ((x1 - x0) / 1000) * at.width, height = ((y1 - y0) / 1000) * at.height;
    // A light line inside a dark one is seen on any picture.
    for (const [color, thick] of [["#101828", 5], ["#ffd84d", 2]]) {
      pen.strokeStyle = color;
      pen.lineWidth = thick;
      pen.strokeRect(left, top, width, height);
    }
    pen.font = "600 13px system-ui, sans-serif";
    const label = String(number), labelWidth = pen.measureText(label).width + 10;
    const labelTop = top >= at.top + 18 ? top - 18 : top;
    pen.fillStyle = "#101828";
    pen.fillRect(left - 1, labelTop, labelWidth, 18);
    pen.fillStyle = "#ffd84d";
    pen.fillText(label, left + 4, labelTop + 13.5);
  }

  function toldOf(now) {
    const { list, total } = boxes;
    const later = new Set(list.filter((box) => !now.includes(box)).map((box) => clock(box.time_s)));
    const parts = [`${now.length} of ${total} ${total === 1 ? "box" : "boxes"} shown`];
    if (now.length && now.length <= 4) parts.push(now.map(placed).join("; "));
    if (later.size) parts.push(`more at ${[...later].slice(0, 8).join(", ")}`);
    return `${parts.join(" · ")}.`;
  }

  function placed({ number, place: [x0, y0, x1, y1], time_s }) {
    const range = (from, to) => `${Math.round(from / 10)}–\u2060${Math.round(to / 10)}\u00a0%`; // never broken
    const when = time_s === null ? "" : ` at ${clock(time_s)}`;
    return `${number}${when}: ${range(x0, x1)} across, ${range(y0, y1)} down`;
  }

  // As vl3/webapp/text_format.py writes it.
  function clock(time_s) {
    if (!Number.isFinite(time_s)) return "?";
    const sign = time_s <= -1 ? "\u2212" : "", whole = Math.floor(Math.abs(time_s) + 1e-6);
    const two = (number) => String(number).padStart(2, "0");
    const hours = Math.floor(whole / 3600), minutes = Math.floor(whole / 60) % 60, seconds = two(whole % 60);
    if (hours >= 100) return `${sign}${String(Math.floor(hours / 24)).replace(/\B(?=(\d{3})+$)/g, "\u00a0")}\u00a0d\u00a0${two(hours % 24)}:${two(minutes)}:${seconds}`;
    return hours ? `${sign}${hours}:${two(minutes)}:${seconds}` : `${sign}${minutes}:${seconds}`;
  }

  // "Ask at 0:12" beside the ask box, while the video is paused there. What is sent stands in the box.

  function offerMoment() {
    const root = find(".vl3-moment");
    if (!root) return;
    const video = find("#player video");
    const time_s = video?.paused ? timeOf(video) : 0;
    const label = `Ask at ${clock(time_s)}`;
    if (!(time_s > 0)) return root.replaceChildren();
    if (root.textContent !== label) root.replaceChildren(make("button", { onclick: askAt }, label));
  }

  // Where the player stands, for a question that does not say.
  function moment() {
    const video = find("#player video");
    return video ? { time_s: Math.max(0, timeOf(video)), key: find(".vl3-player").dataset.key } : {};
  }

  function askAt() {
    const field = find("#ask textarea");
    const time_s = timeOf(find("#player video"));
    field.value = `At ${Number(time_s.toFixed(1))} seconds: ${field.value.replace(/^At [\d.]+ seconds: /, "")}`;
    field.dispatchEvent(new Event("input", { bubbles: true }));
    field.focus();
  }

  function followPlayer() {
    for (const name of ["play", "pause", "seeked", "timeupdate", "loadedmetadata"]) {
      document.addEventListener(name, () => { offerMoment(); drawBoxes(); followFrame(); }, true);
    }
  }

  function clicked(event) {
    const offer = event.target.closest?.('a[href^="#boxes="]');
    if (offer) {
      event.preventDefault();
      event.stopPropagation();
      return showBoxes(readBoxes(offer));
    }
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

  // On a narrow window the conversation is below the video: whoever asks is taken to the answer.

  function toAnswer() {
    const chat = find("#chat"), { top, bottom } = chat.getBoundingClientRect();
    const seen = Math.min(bottom, innerHeight) - Math.max(top, 0);
    if (seen > 0.6 * Math.min(chat.clientHeight, innerHeight)) return;
    (matchMedia("(max-width: 900px)").matches ? find("#ask") : chat).scrollIntoView({ block: "start" });
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

  // What survives a reload: the name of this tab's conversation, its open view, and this browser's settings.
  // Private windows may refuse storage; everything then lasts for this page.

  let defaults = null;

  function kept(storage, name) {
    try { return window[storage].getItem(name); } catch { return null; }
  }

  function keepIn(storage, name, text) {
    try {
      if (text === null) window[storage].removeItem(name);
      else window[storage].setItem(name, text);
    } catch { /* see above */ }
  }

  function remembered() {
    const address = new URL(location.href);
    const link = address.searchParams.get("run");
    address.searchParams.delete("run");
    if (link) history.replaceState(null, "", address);
    const name = kept("sessionStorage", "vl3-run");
    return { link, name, settings: storedSettings(), theme: stored(), tab: kept("sessionStorage", "vl3-tab") };
  }

  function memory(root, value) {
    if (!value.name) return;
    keepIn("sessionStorage", "vl3-run", value.name);
    defaults = value.defaults;
  }

  function storedSettings() {
    try { return JSON.parse(kept("localStorage", "vl3-settings")); } catch { return null; }
  }

  function keep(fields) {
    if (!defaults) return;
    const changed = Object.entries(defaults).map(([name, value], i) => [name, value, fields[i]])
      .filter(([, value, field]) => field !== value);
    const text = JSON.stringify(Object.fromEntries(changed.map(([name, , field]) => [name, field])));
    keepIn("localStorage", "vl3-settings", changed.length ? text : null);
  }

  // A page with nothing on it is not asked for again.
  function forgetEmpty() {
    if (!find("#chat .user-row") && !find(".vl3-player")?.dataset.url) keepIn("sessionStorage", "vl3-run", null);
  }

  // Theme

  const prefersDark = matchMedia("(prefers-color-scheme: dark)");

  function stored() {
    return kept("localStorage", "vl3-theme");
  }

  function paint() {
    const name = stored();
    document.body.classList.toggle("dark", name ? name === "Dark" : prefersDark.matches);
  }

  function theme(name) {
    keepIn("localStorage", "vl3-theme", name === "System" ? null : name);
    if (name === "System") paint();
    else document.body.classList.toggle("dark", name === "Dark");
  }

  function flip() {
    const name = document.body.classList.contains("dark") ? "Light" : "Dark";
    theme(name);
    find(`#theme input[value="${name}"]`)?.click(); // the choice in the settings says the same
  }

  // Keys

  function help() {
    const rows = KEYS.map(([key, what]) => make("tr", {}, make("th", { scope: "row" }, make("kbd", {}, key)), make("td", {}, what)));
    dialog("vl3-help", "Keys", make("table", {}, make("tbody", {}, ...rows)));
  }

  function dialog(id, title, ...content) {
    if (find(`#${id}[open]`)) return;
    find(`#${id}`)?.remove();
    const box = make("dialog", { id, class: "vl3-dialog", "aria-label": title }, make("h2", {}, title), ...content,
      make("form", { method: "dialog" }, make("button", {}, "Close")));
    document.body.append(box);
    box.showModal();
  }

  function move(video, seconds) {
    if (video) setTime(video, timeOf(video) + seconds);
  }

  function toggle(video) {
    if (video) (video.paused ? video.play() : Promise.resolve(video.pause())).catch(() => {});
  }

  function pressed(event) {
    // A field of a dialog that was just closed has the focus until the next picture is drawn.
    const inField = event.target.closest?.("input:not([type=range], [type=radio], [type=checkbox]), textarea, select, [contenteditable]")?.checkVisibility();
    if (event.key === "Escape" && !find("dialog[open]")) return find("#ask .stop-button")?.click();
    if (inField || find("dialog[open]") || event.altKey || event.metaKey) return;
    if (event.ctrlKey) {
      if (event.key === "Enter") find("#again")?.click();
      return;
    }
    const video = find("#player video");
    const onControl = event.target.closest?.("button, a, summary, video, input, [role=button]");
    const actions = {
      "/": () => find("#ask textarea")?.focus(),
      "?": help,
      d: flip,
      k: () => toggle(video),
      j: () => move(video, -5),
      l: () => move(video, 5),
      ",": () => step(video, -1),
      ".": () => step(video, 1),
      g: askTime,
      ...Object.fromEntries(Object.keys(TABS).map((_, i) => [String(i + 1), () => goToTab(i + 1)])),
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
      .replace(/\s*\[Show box(es)?\]\(#boxes=[^)]*\)/g, "")
      .replace(/\[([^\]]*)\]\(#t=[^)]*\)/g, "$1")
      .replace(/<span class="attached">.*?<\/span>/gs, "")
      .replace(/\s*<span class="(foot|event)">.*$/s, "")
      .replace(/\u200b/g, "").trim());
  }

  function start() {
    paint();
    prefersDark.addEventListener("change", paint);
    document.addEventListener("click", (event) => holds(event) || clicked(event), true);
    document.addEventListener("keydown", holds, true);
    document.addEventListener("keydown", pressed);
    document.addEventListener("dragover", dragged, true);
    document.addEventListener("dragenter", dragged, true);
    document.addEventListener("drop", dropped, true);
    document.addEventListener("paste", pasted);
    watchUploads();
    window.addEventListener("pagehide", forgetEmpty);
    followPlayer();
    new MutationObserver(caption).observe(document.body, { childList: true, subtree: true });
    cleanCopies();
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
  window.addEventListener("load", () => setTimeout(paint, 0));

  return { mount, views, seek, theme, keep, remembered, frame, readTime, arrived: answered, moment };
})();
