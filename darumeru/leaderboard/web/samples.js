"use strict";
(() => {
  const index = store.get("index") || { tasks: [] }, $ = (id) => document.getElementById(id), STEP = 25;
  const state = { task: hash().get("task") || index.tasks[0]?.file, show: hash().get("show") || "", q: hash().get("q") || "", s: hash().get("s") || "", sample: hash().get("sample") || "" };
  const one = () => state.s !== "" || state.sample !== "";
  let limit = Math.max(STEP, +hash().get("n") || 0), run = 0;
  const outcome = (mark) => (mark >= 0.9995 ? "right" : mark <= 0.0005 ? "wrong" : "partly");
  const task = () => index.tasks.find((x) => x.file === state.task) || index.tasks[0];
  function piece(file, part) {
    const name = file + "/" + part;
    if (store.has(name)) return Promise.resolve(store.get(name));
    return new Promise((done) => {
      const first = !waiting.has(name);
      waiting.set(name, [...(waiting.get(name) || []), done]);
      if (first) document.body.append(el("script", { src: `data/${encodeURIComponent(file)}-${part}.js`, onerror: () => { $("status").textContent = t("missing", { name: file }); } }));
    });
  }
  const fold = (s) => String(s ?? "").toLowerCase().replaceAll("ё", "е");
  const gold = (g) => (Array.isArray(g) ? g.map((x) => (typeof x === "object" ? JSON.stringify(x) : String(x))).join(", ") : typeof g === "object" && g !== null ? JSON.stringify(g) : String(g ?? "—"));
  function fits(s) {
    if (state.s !== "" && String(s.i) !== state.s) return false;
    if (state.sample !== "" && s.k !== state.sample) return false;
    if (state.show && outcome(s.m) !== state.show) return false;
    if (!state.q) return true;
    const words = fold(state.q), parts = [gold(s.g), s.r, ...s.q.flatMap((q) => [q.p, q.a, q.h])];
    return parts.some((p) => fold(p).includes(words));
  }
  async function update() {
    const mine = ++run, now = task();
    if (!now) return;
    setHash({ task: now.file, show: state.show, q: state.q, s: state.s, sample: state.sample, n: limit > STEP ? limit : "" });
    const found = [], starts = now.sizes.map((_, i) => now.sizes.slice(0, i).reduce((a, b) => a + b, 0));
    let full = false;
    // A sample's address names its document, and the keys say which piece holds it.
    const place = state.sample && now.sizes.length ? (await piece(now.file, "keys")).indexOf(state.sample) : -1;
    if (mine !== run) return;
    for (let n = 0; n < now.sizes.length && !full; n++) {
      if (state.sample && !(starts[n] <= place && place < starts[n] + now.sizes[n])) continue;
      // The index says without loading whether a piece can hold what is asked for.
      const marks = now.marks.slice(starts[n], starts[n] + now.sizes[n]);
      if (state.show && !marks.some((m) => outcome(m) === state.show)) continue;
      if (state.q || one()) $("status").textContent = t("searching", { a: n, b: now.sizes.length });
      const samples = await piece(now.file, n);
      if (mine !== run) return;
      found.push(...samples.filter(fits));
      full = !state.q && !one() && found.length > limit;
    }
    const all = now.marks.length;
    const known = state.q || one() ? found.length : state.show ? now.marks.filter((m) => outcome(m) === state.show).length : all;
    $("status").textContent = t("found", { n: known, all });
    $("samples").replaceChildren(...found.slice(0, limit).map((s) => card(s, now)));
    if (!found.length) $("samples").replaceChildren(el("p", { class: "nothing" }, t(one() ? "no_such_sample" : "no_samples")));
    $("every").hidden = !one();
    document.dispatchEvent(new Event("drawn"));
    $("more").hidden = found.length <= limit;
  }
  const block = (title, body, note, cls) => el("div", { class: "block " + (cls || "") }, el("h3", {}, title, note ? el("small", {}, note) : null), el("pre", { dir: "auto", tabindex: "0" }, body));
  const question = (q) => Array.from(q.p).slice(...q.w).join("");
  const meaning = (q, label) => q.o?.find(([name]) => name === String(label))?.[1] ?? null;
  const labelled = (title, q, label) => el("div", { class: "block answer" }, el("h3", {}, title), el("p", { class: "label", dir: "auto" }, label === null ? "—" : el("b", {}, String(label)), meaning(q, label) ? " · " + meaning(q, label) : null));
  /** What a model chose among: each label, what it stands for, its log-probability; the highest and the right one are marked. */
  function options(q, golds, chosen) {
    const best = q.l.reduce((top, v, i) => (+v > +q.l[top] ? i : top), 0), known = chosen?.some((label) => q.o.some(([name]) => name === label));
    const rows = q.o.map(([label, text], i) => {
      const picked = known ? chosen.includes(label) : i === best, right = golds.includes(label);
      return el("tr", { class: [right ? "is-gold" : "", picked ? "is-chosen" : ""].join(" ") }, el("th", { scope: "row", dir: "auto" }, label), el("td", { dir: "auto" }, text),
        el("td", { class: "marks" }, picked ? t("chosen_label") : null, right ? el("b", {}, t("gold")) : null), el("td", { class: "n" }, q.l[i]));
    });
    return el("div", { class: "options" }, el("table", {}, el("thead", {}, el("tr", {}, el("th", { scope: "col" }, t("label")), el("th", { scope: "col" }, t("stands_for")), el("th", {}), el("th", { scope: "col", class: "n" }, t("logprobs")))), el("tbody", {}, rows)));
  }
  const address = (s, now) => "#" + new URLSearchParams({ task: now.file, sample: s.k });
  function card(s, now) {
    const kind = now.shares ? outcome(s.m) : "", many = s.q.length > 1, choice = s.q.every((q) => q.e == null && q.a == null);
    const facts = Object.entries(s.s).map(([k, v]) => el("span", { class: now.metrics.includes(k) ? "fact main" : "fact" }, k + " ", el("b", {}, String(v))));
    for (const [k, v] of Object.entries(s.x || {})) facts.push(el("span", { class: "fact" }, k + " ", el("b", {}, typeof v === "object" ? JSON.stringify(v) : String(v))));
    const answers = choice ? [] : s.q.map((q, i) => block(many ? t("answer_n", { n: i + 1 }) : t("answer"), q.a || t("empty"), q.e == null ? null : [t("tokens", { n: q.k }), t(q.e === "length" ? "at_limit" : "ended")].join(", "), "answer"));
    const prompts = s.q.map((q, i) => block(many ? t("prompt_n", { n: i + 1 }) : t("prompt"), q.p, [q.n == null ? null : q.t ? t("tokens_cut", { n: q.n, t: q.t }) : t("tokens", { n: q.n }), q.f ? t("examples", { n: q.f }) : null].filter(Boolean).join(", "), "prompt"));
    const thoughts = s.q.flatMap((q, i) => (q.hk === undefined ? [] : [el("details", { class: "thought" }, el("summary", {}, many ? t("thought_n", { n: i + 1 }) : t("thought"), " ", el("small", {}, [t("tokens", { n: q.hk }), q.hu ? t("no_end") : null].filter(Boolean).join(", "))), el("div", { class: "block" }, el("pre", { dir: "auto", tabindex: "0" }, q.h || t("empty"))), q.hb && !q.hu ? el("p", { class: "soft" }, t("behind") + ": ", el("code", {}, q.hb)) : null)]));
    // A ranking's gold answer is a list of places. In a question with the options in another order the gold label is another one.
    const right = s.q[0]?.o ? meaning(s.q[0], s.g) : null;
    const golds = (q, i) => (Array.isArray(s.g) ? s.g.map(String) : i === 0 ? [String(s.g)] : right === null ? [] : q.o.filter(([, text]) => text === right).map(([label]) => label));
    const chosen = (i) => (Array.isArray(s.x?.top) ? s.x.top.map(String) : i === 0 && s.r !== null ? [String(s.r)] : null);
    // Where the options are shown, they are marked, and nothing is left to say.
    const marked = choice && s.q[0]?.o && golds(s.q[0], 0).every((gold) => s.q[0].o.some(([label]) => label === gold));
    const asked = s.q.flatMap((q, i) => {
      const text = question(q), before = i ? question(s.q[i - 1]) : null;
      return [text && text !== before ? block(many ? t("question_n", { n: i + 1 }) : t("question"), text, null, "question") : null, q.o ? options(q, golds(q, i), chosen(i)) : null];
    });
    const bare = s.q.filter((q) => q.l.length && !q.o);
    const open = (e) => { e.preventDefault(); const on = state.sample === s.k; Object.assign(state, { s: "", sample: on ? "" : s.k, ...(on ? {} : { show: "", q: "" }) }); tools(); update(); };
    return el("article", { class: ("sample " + kind).trim(), id: "s-" + s.k },
      el("header", {}, el("a", { href: address(s, now), class: "number", onclick: open }, t("sample") + " " + s.i), kind ? el("span", { class: "verdict" }, t(kind)) : null, s.c ? el("span", { class: "soft", dir: "auto" }, String(s.c)) : null, copyLink(address(s, now), t("sample") + " " + s.i)),
      asked,
      marked ? null : el("div", { class: "pair" }, choice ? labelled(t("chosen_label"), s.q[0] || {}, s.r) : answers, block(t("gold"), gold(s.g), null, "gold")),
      thoughts,
      bare.length ? el("p", { class: "soft logs" }, t("logprobs") + ": ", bare.map((q) => q.l.join("  ")).join("  |  ")) : null,
      el("p", { class: "facts-line" }, facts), el("details", {}, el("summary", {}, t("prompt")), prompts));
  }
  function tools() {
    $("task").replaceChildren(...index.tasks.map((x) => el("option", { value: x.file }, x.task)));
    const now = task();
    if (now) $("task").value = now.file;
    if (!now?.shares) state.show = "";
    $("show").closest("label").hidden = !now?.shares;
    const count = (k) => (now ? now.marks.filter((m) => outcome(m) === k).length : 0);
    $("show").replaceChildren(el("option", { value: "" }, t("all")), ...["wrong", "partly", "right"].map((k) => el("option", { value: k }, `${t(k)} (${count(k)})`)));
    $("show").value = state.show;
    if ($("show").selectedIndex < 0) $("show").value = state.show = "";
    $("q").value = state.q;
    if (now) $("heading").textContent = t("samples_of", { task: now.task });
  }
  $("tools").addEventListener("submit", (e) => e.preventDefault());
  $("task").addEventListener("change", (e) => { Object.assign(state, { task: e.target.value, s: "", sample: "" }); limit = STEP; tools(); update(); });
  $("show").addEventListener("change", (e) => { Object.assign(state, { show: e.target.value, s: "", sample: "" }); limit = STEP; update(); });
  let typing;
  $("q").addEventListener("input", (e) => { Object.assign(state, { q: e.target.value, s: "", sample: "" }); limit = STEP; clearTimeout(typing); typing = setTimeout(update, 200); });
  $("every").addEventListener("click", () => { Object.assign(state, { s: "", sample: "" }); update(); });
  addEventListener("hashchange", () => { if (location.hash.includes("=")) location.reload(); });
  $("more").addEventListener("click", () => { limit += STEP; update(); });
  onChange.push(() => { tools(); update(); });
})();
