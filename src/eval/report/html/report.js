"use strict";
// Every text of the corpus reaches the page through textContent, never as HTML.
(() => {
  const PER_PAGE = 50;
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const make = (tag, className, text) => {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const [SET, ID, SPEAKER, SECONDS, START, END, URL, S, D, I, N, STEPS, RAW, ERROR] = Array(14).keys();
  const errors = (u) => u[S] + u[D] + u[I];
  const rate = (u) => errors(u) / Math.max(u[N], 1);
  const percent = (x) => (100 * x).toFixed(1) + " %";

  // Steps: "equal words", or [reference, hypothesis] with "" for nothing; a third member marks two spellings that count as equal.
  const haystacks = [];
  const haystack = (i) => haystacks[i] ??= [data.utterances[i][ID], data.speakers[data.utterances[i][SPEAKER]] ?? "",
    ...["0", "1"].map((side) => data.utterances[i][STEPS].map((s) => typeof s === "string" ? s : s[side]).filter(Boolean).join(" "))]
    .join("\n").toLowerCase();
  const holds = (u, [r, h]) => u[STEPS].some((s) => typeof s !== "string" && s.length < 3 && s[0] === r && s[1] === h);

  const state = { find: "", set: "", show: "all", sort: "errors", pair: null, page: 0 };
  let found = [];

  const SHOW = {
    all: () => true,
    errors: (u) => !u[ERROR] && errors(u) > 0,
    right: (u) => !u[ERROR] && errors(u) === 0,
    failed: (u) => Boolean(u[ERROR]),
  };
  const collator = new Intl.Collator("en", { numeric: true });
  const SORT = {
    errors: (a, b) => errors(b) - errors(a) || rate(b) - rate(a),
    wer: (a, b) => rate(b) - rate(a) || errors(b) - errors(a),
    low: (a, b) => rate(a) - rate(b) || b[N] - a[N],
    long: (a, b) => b[SECONDS] - a[SECONDS],
    id: (a, b) => a[SET] - b[SET] || collator.compare(a[ID], b[ID]),
  };

  function select() {
    const terms = state.find.toLowerCase().trim();
    found = [];
    data.utterances.forEach((u, i) => {
      if (state.set !== "" && u[SET] !== Number(state.set)) return;
      if (!SHOW[state.show](u)) return;
      if (state.pair && !holds(u, state.pair)) return;
      if (terms && !haystack(i).includes(terms)) return;
      found.push(i);
    });
    const order = SORT[state.sort];
    found.sort((a, b) => order(data.utterances[a], data.utterances[b]) || a - b);
    state.page = 0;
    draw();
  }

  function draw() {
    const pages = Math.max(1, Math.ceil(found.length / PER_PAGE));
    const from = state.page * PER_PAGE;
    stop();
    byId("list").replaceChildren(...found.slice(from, from + PER_PAGE).map((i) => card(data.utterances[i])));
    const number = (n) => n.toLocaleString("en");
    byId("count").textContent = found.length === data.utterances.length
      ? `${number(found.length)} utterances` : `${number(found.length)} of ${number(data.utterances.length)} utterances`;
    byId("page").textContent = `${number(state.page + 1)} / ${number(pages)}`;
    byId("before").disabled = state.page === 0;
    byId("after").disabled = state.page + 1 >= pages;
    byId("pair").hidden = !state.pair;
    if (state.pair) byId("pair").textContent = `${state.pair[0] || "∅"} → ${state.pair[1] || "∅"}`;
  }

  function card(u) {
    const item = make("li");
    const head = make("div", "head");
    if (u[URL]) head.append(player(u, item));
    head.append(make("span", "set", data.sets[u[SET]]), make("span", "id", u[ID]));
    if (u[SPEAKER] >= 0 && data.speakers[u[SPEAKER]] !== u[ID]) head.append(make("span", "", "speaker " + data.speakers[u[SPEAKER]]));
    head.append(make("span", "", u[SECONDS].toFixed(1) + " s"));
    item.append(head);
    if (u[ERROR]) {
      item.append(make("p", "failed", u[ERROR]));
      return item;
    }
    const score = make("span", "rate");
    score.append(make("b", "", percent(rate(u))));
    const kinds = [[u[S], "substituted", "cs"], [u[D], "deleted", "cd"], [u[I], "inserted", "ci"]].filter(([n]) => n > 0);
    for (const [n, what, colour] of kinds) score.append(" · ", make("span", colour, `${n} ${what}`));
    score.append(` · ${u[N]} ${u[N] === 1 ? "word" : "words"}`);
    head.append(score);
    item.append(alignment(u[STEPS]));
    if (u[RAW]) item.append(published(u[RAW]));
    return item;
  }

  function alignment(steps) {
    const words = make("div", "words");
    const column = (reference, hypothesis, kind) => {
      const word = make("span", kind ? "w " + kind : "w");
      for (const side of [reference, hypothesis]) word.append(make("span", side === "" ? "none" : "", side === "" ? "–" : side));
      words.append(word, " ");
    };
    for (const step of steps) {
      if (typeof step === "string") for (const word of step.split(" ")) column(word, word, "");
      else column(step[0], step[1], step.length > 2 ? "" : step[0] === "" ? "i" : step[1] === "" ? "d" : "s");
    }
    return words;
  }

  function published([reference, hypothesis]) {
    const more = make("details");
    const texts = make("dl", "raw");
    texts.append(make("dt", "", "reference"), make("dd", "", reference), make("dt", "", "hypothesis"), make("dd", "", hypothesis));
    more.append(make("summary", "", "before normalisation"), texts);
    return more;
  }

  // One player for the page: starting an utterance stops the other.
  let playing = null;
  const icon = (path) => {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", "0 0 12 12");
    const shape = document.createElementNS("http://www.w3.org/2000/svg", "path");
    shape.setAttribute("d", path);
    svg.append(shape);
    return svg;
  };
  const PLAY = "M2 0.5v11l9.5-5.5z", PAUSE = "M1.5 1h3.2v10H1.5zM7.3 1h3.2v10H7.3z";

  function stop() {
    if (!playing) return;
    playing.audio.pause();
    playing.audio.removeAttribute("src");
    playing.bar.remove();
    playing.button.replaceChildren(icon(PLAY));
    playing.button.setAttribute("aria-label", "Play");
    playing = null;
  }

  function player(u, item) {
    const button = make("button", "play");
    button.type = "button";
    button.setAttribute("aria-label", "Play");
    button.append(icon(PLAY));
    button.addEventListener("click", () => {
      const mine = playing && playing.button === button;
      stop();
      if (mine) return;
      item.querySelector(".failed")?.remove();
      const start = u[START] ?? 0;
      const audio = new Audio(u[END] === null ? u[URL] : `${u[URL]}#t=${start},${u[END]}`);
      const bar = make("progress", "progress");
      bar.max = 1;
      bar.value = 0;
      item.querySelector(".head").after(bar);
      playing = { audio, button, bar };
      button.replaceChildren(icon(PAUSE));
      button.setAttribute("aria-label", "Stop");
      const own = () => playing && playing.audio === audio;
      audio.addEventListener("timeupdate", () => {
        const end = u[END] ?? audio.duration;
        bar.value = Math.min(1, Math.max(0, (audio.currentTime - start) / (end - start))) || 0;
        if (own() && u[END] !== null && audio.currentTime >= u[END]) stop();
      });
      audio.addEventListener("ended", () => own() && stop());
      const failed = () => {
        if (!own()) return;
        stop();
        item.querySelector(".head").after(make("p", "failed", "cannot play " + decodeURIComponent(u[URL])));
      };
      audio.addEventListener("error", failed);
      audio.play().catch(failed);
    });
    return button;
  }

  const set = byId("set");
  set.append(new Option("all", ""));
  data.sets.forEach((name, i) => set.append(new Option(name, i)));
  for (const name of ["find", "set", "show", "sort"]) {
    byId(name).addEventListener("input", (event) => {
      state[name] = event.target.value;
      select();
    });
  }
  byId("find").form.addEventListener("submit", (event) => event.preventDefault());
  byId("pair").addEventListener("click", () => {
    state.pair = null;
    select();
  });
  const turn = (by) => () => {
    state.page += by;
    draw();
    byId("utterances").scrollIntoView();
  };
  byId("before").addEventListener("click", turn(-1));
  byId("after").addEventListener("click", turn(1));

  // What the page shows as text becomes a way in: a set's row, a confusion's row.
  const enter = (element, change) => {
    const button = make("button", "link");
    button.type = "button";
    button.append(...element.childNodes);
    element.append(button);
    button.addEventListener("click", () => {
      Object.assign(state, { find: "", set: "", show: "all", pair: null }, change);
      for (const name of ["find", "set", "show", "sort"]) byId(name).value = state[name];
      select();
      byId("utterances").scrollIntoView();
    });
  };
  document.querySelectorAll("[data-set]").forEach((e) => enter(e, { set: e.dataset.set }));
  document.querySelectorAll("[data-pair]").forEach((e) => enter(e, { pair: JSON.parse(e.dataset.pair) }));

  byId("utterances").hidden = false;
  select();
})();
