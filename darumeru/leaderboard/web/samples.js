"use strict";
(() => {
  const index = store.get("index") || { tasks: [] }, $ = (id) => document.getElementById(id), STEP = 25;
  const state = { task: hash().get("task") || index.tasks[0]?.file, show: hash().get("show") || "", q: hash().get("q") || "", s: hash().get("s") || "" };
  let limit = STEP, run = 0;
  const outcome = (mark) => (mark >= 0.9995 ? "right" : mark <= 0.0005 ? "wrong" : "partly");
  const task = () => index.tasks.find((x) => x.file === state.task) || index.tasks[0];
  function piece(file, number) {
    const name = file + "/" + number;
    if (store.has(name)) return Promise.resolve(store.get(name));
    return new Promise((done) => {
      const first = !waiting.has(name);
      waiting.set(name, [...(waiting.get(name) || []), done]);
      if (first) document.body.append(el("script", { src: `data/${encodeURIComponent(file)}-${number}.js`, onerror: () => { $("status").textContent = t("missing", { name: file }); } }));
    });
  }
  const fold = (s) => String(s ?? "").toLowerCase().replaceAll("ё", "е");
  const gold = (g) => (Array.isArray(g) ? g.map((x) => (typeof x === "object" ? JSON.stringify(x) : String(x))).join(", ") : typeof g === "object" && g !== null ? JSON.stringify(g) : String(g ?? "—"));
  function fits(s) {
    if (state.s !== "" && String(s.i) !== state.s) return false;
    if (state.show && outcome(s.m) !== state.show) return false;
    if (!state.q) return true;
    const words = fold(state.q), parts = [gold(s.g), s.r, ...s.q.flatMap((q) => [q.p, q.a, q.h])];
    return parts.some((p) => fold(p).includes(words));
  }
  async function update() {
    const mine = ++run, now = task();
    if (!now) return;
    setHash({ task: now.file, show: state.show, q: state.q, s: state.s });
    const found = [], starts = now.sizes.map((_, i) => now.sizes.slice(0, i).reduce((a, b) => a + b, 0));
    let full = false;
    for (let n = 0; n < now.sizes.length && !full; n++) {
      // The index says without loading whether a piece can hold what is asked for.
      const marks = now.marks.slice(starts[n], starts[n] + now.sizes[n]);
      if (state.show && !marks.some((m) => outcome(m) === state.show)) continue;
      if (state.q || state.s) $("status").textContent = t("searching", { a: n, b: now.sizes.length });
      const samples = await piece(now.file, n);
      if (mine !== run) return;
      found.push(...samples.filter(fits));
      full = !state.q && !state.s && found.length > limit;
    }
    const all = now.marks.length;
    const known = state.q || state.s ? found.length : state.show ? now.marks.filter((m) => outcome(m) === state.show).length : all;
    $("status").textContent = t("found", { n: known, all });
    $("samples").replaceChildren(...found.slice(0, limit).map((s) => card(s, now)));
    if (!found.length) $("samples").replaceChildren(el("p", { class: "nothing" }, t("no_samples")));
    $("more").hidden = found.length <= limit;
  }
  const block = (title, body, note, cls) => el("div", { class: "block " + (cls || "") }, el("h3", {}, title, note ? el("small", {}, note) : null), el("pre", { dir: "auto", tabindex: "0" }, body));
  function card(s, now) {
    const kind = outcome(s.m), many = s.q.length > 1, choice = s.q.every((q) => q.e == null && q.a == null);
    const facts = Object.entries(s.s).map(([k, v]) => el("span", { class: now.metrics.includes(k) ? "fact main" : "fact" }, k + " ", el("b", {}, String(v))));
    for (const [k, v] of Object.entries(s.x || {})) facts.push(el("span", { class: "fact" }, k + " ", el("b", {}, typeof v === "object" ? JSON.stringify(v) : String(v))));
    const answers = choice ? [] : s.q.map((q, i) => block(many ? t("answer_n", { n: i + 1 }) : t("answer"), q.a || t("empty"), q.e == null ? null : [t("tokens", { n: q.k }), t(q.e === "length" ? "at_limit" : "ended")].join(", "), "answer"));
    const prompts = s.q.map((q, i) => block(many ? t("prompt_n", { n: i + 1 }) : t("prompt"), q.p, [q.n == null ? null : q.t ? t("tokens_cut", { n: q.n, t: q.t }) : t("tokens", { n: q.n }), q.f ? t("examples", { n: q.f }) : null].filter(Boolean).join(", "), "prompt"));
    const thoughts = s.q.flatMap((q, i) => (q.hk === undefined ? [] : [el("details", { class: "thought" }, el("summary", {}, many ? t("thought_n", { n: i + 1 }) : t("thought"), " ", el("small", {}, [t("tokens", { n: q.hk }), q.hu ? t("no_end") : null].filter(Boolean).join(", "))), el("div", { class: "block" }, el("pre", { dir: "auto", tabindex: "0" }, q.h || t("empty"))), q.hb && !q.hu ? el("p", { class: "soft" }, t("behind") + ": ", el("code", {}, q.hb)) : null)]));
    return el("article", { class: "sample " + kind, id: "s" + s.i },
      el("header", {}, el("a", { href: "#" + new URLSearchParams({ task: now.file, s: s.i }), class: "number", onclick: (e) => { e.preventDefault(); state.s = state.s === String(s.i) ? "" : String(s.i); update(); } }, t("sample") + " " + s.i), el("span", { class: "verdict" }, t(kind)), s.c ? el("span", { class: "soft", dir: "auto" }, String(s.c)) : null),
      el("div", { class: "pair" }, choice ? el("div", { class: "block answer" }, el("h3", {}, t("chosen_label")), el("p", { class: "label", dir: "auto" }, s.r === null ? "—" : String(s.r))) : answers, block(t("gold"), gold(s.g), null, "gold")),
      thoughts,
      s.q.some((q) => q.l.length) ? el("p", { class: "soft logs" }, t("logprobs") + ": ", s.q.map((q) => q.l.join("  ")).join("  |  ")) : null,
      el("p", { class: "facts-line" }, facts), el("details", {}, el("summary", {}, t("prompt")), prompts));
  }
  function tools() {
    $("task").replaceChildren(...index.tasks.map((x) => el("option", { value: x.file }, x.task)));
    const now = task();
    if (now) $("task").value = now.file;
    const count = (k) => (now ? now.marks.filter((m) => outcome(m) === k).length : 0);
    $("show").replaceChildren(el("option", { value: "" }, t("all")), ...["wrong", "partly", "right"].map((k) => el("option", { value: k }, `${t(k)} (${count(k)})`)));
    $("show").value = state.show;
    if ($("show").selectedIndex < 0) $("show").value = state.show = "";
    $("q").value = state.q;
    if (now) $("heading").textContent = t("samples_of", { task: now.task });
  }
  $("tools").addEventListener("submit", (e) => e.preventDefault());
  $("task").addEventListener("change", (e) => { Object.assign(state, { task: e.target.value, s: "" }); limit = STEP; tools(); update(); });
  $("show").addEventListener("change", (e) => { Object.assign(state, { show: e.target.value, s: "" }); limit = STEP; update(); });
  let typing;
  $("q").addEventListener("input", (e) => { Object.assign(state, { q: e.target.value, s: "" }); limit = STEP; clearTimeout(typing); typing = setTimeout(update, 200); });
  $("more").addEventListener("click", () => { limit += STEP; update(); });
  onChange.push(() => { tools(); update(); });
})();
