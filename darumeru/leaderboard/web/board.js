"use strict";
(() => {
  const board = store.get("board"), $ = (id) => document.getElementById(id);
  const groups = board.suite.groups, counted = groups.filter((g) => g.counts !== false);
  const STATE = { q: "", pool: "", set: "", size: "", voc: "", sort: "suite", dir: "d", tasks: "", only: "", fig: "groups", m: "" };
  const state = { ...STATE };
  for (const key of Object.keys(STATE)) state[key] = hash().get(key) ?? STATE[key];
  // The address of a row, which filters may not hide.
  const wanted = hash().get("row"), among = board.rows.some((r) => r.id === wanted);
  const chosen = new Set(state.m.split(",").filter((id) => board.rows.some((r) => r.id === id)));

  // -- columns ---------------------------------------------------------------------------------------------------------
  const fixed = (v, d) => (v === null || v === undefined ? "—" : v.toFixed(d));
  const big = (v) => (v === null || v === undefined ? "—" : v >= 1e9 ? (v / 1e9).toFixed(v < 1e10 ? 1 : 0) + " B" : v >= 1e6 ? Math.round(v / 1e6) + " M" : String(v));
  const plain = (v) => (v === null || v === undefined ? "—" : String(v).replace(/\B(?=(\d{3})+$)/g, "\u202f"));
  const score = (key) => (r) => r.s[key]?.[0] ?? null;
  const columns = [
    { key: "rank", title: () => t("rank"), value: (r) => r.rank, cell: rankCell, up: true },
    { key: "model", title: () => t("model"), value: (r) => r.label.toLowerCase(), cell: modelCell, up: true },
    { key: "shots", title: () => t("set_col"), value: (r) => r.shots, cell: settingCell, up: true },
    { key: "suite", title: () => board.suite.summary, value: score("suite"), cell: scoreCell, cls: "n main" },
    ...groups.map((g) => ({ key: g.name, title: () => g.title, value: score(g.name), cell: scoreCell, cls: "n group" })),
    ...groups.flatMap((g) => g.tasks.map((task) => ({ key: task, title: () => task, value: score(task), cell: scoreCell, cls: "n task", task: true }))),
    { key: "spt_ru", title: () => t("spt_ru"), value: (r) => r.spt[0], cell: text((r) => fixed(r.spt[0], 2)), cls: "n" },
    { key: "spt_en", title: () => t("spt_en"), value: (r) => r.spt[1], cell: text((r) => fixed(r.spt[1], 2)), cls: "n" },
    { key: "vsize", title: () => t("vsize"), value: (r) => r.vsize, cell: text((r) => plain(r.vsize)), cls: "n" },
    { key: "params", title: () => t("params"), value: (r) => r.params, cell: text((r) => big(r.params)), cls: "n" },
    { key: "tps", title: () => t("tps"), value: (r) => r.tps, cell: text((r) => (r.tps === null ? "—" : plain(Math.round(r.tps)))), cls: "n" },
    ...(board.rows.some((r) => r.thinking) ? [
      { key: "cost", title: () => t("cost"), value: (r) => r.cost?.tokens ?? null, cell: text((r) => (r.cost ? plain(Math.round(r.cost.tokens)) : "—")), cls: "n" },
      { key: "secs", title: () => t("secs"), value: (r) => r.cost?.seconds ?? null, cell: text((r) => fixed(r.cost?.seconds, 2)), cls: "n" },
      { key: "unfinished", title: () => t("unfinished"), value: (r) => (r.thinking === "on" ? r.cost?.unfinished ?? null : null), cell: text((r) => (r.thinking === "on" && r.cost ? Math.round(100 * r.cost.unfinished) + " %" : "—")), cls: "n" },
      { key: "finished", title: () => t("finished"), value: (r) => r.cost?.finished ?? null, cell: text((r) => fixed(r.cost?.finished, 3)), cls: "n" },
    ] : []),
    { key: "covered", title: () => t("coverage"), value: (r) => r.covered, cell: text((r) => (r.published ? "—" : r.covered + "/" + total)), cls: "n" },
    { key: "date", title: () => t("date"), value: (r) => r.date, cell: text((r) => r.date ?? "—") },
  ];
  const total = groups.reduce((n, g) => n + g.tasks.length, 0);
  const byKey = new Map(columns.map((c) => [c.key, c]));
  if (!byKey.has(state.sort)) state.sort = "suite";
  const shownColumns = () => columns.filter((c) => !c.task || state.tasks);

  function text(f) {
    return (r, c) => {
      const said = f(r);
      return el("td", { role: "cell", class: (c.cls || "") + (said === "—" ? " lacking" : ""), "data-l": c.title() }, said);
    };
  }
  function rankCell(r, c) {
    return el("td", { role: "cell", class: "rank", "data-l": c.title() }, r.rank === null ? (r.published ? el("small", {}, t("published")) : "—") : el("b", {}, String(r.rank)), shared(r));
  }
  function shared(r) {
    const n = r.rank === null ? 0 : rankCounts.get(r.pool + " " + r.rank) - 1;
    return n > 0 ? el("small", { title: t("tie", { n }), "aria-label": t("tie", { n }) }, "=") : null;
  }
  const rankCounts = new Map();
  for (const r of board.rows) if (r.rank !== null) rankCounts.set(r.pool + " " + r.rank, (rankCounts.get(r.pool + " " + r.rank) || 0) + 1);
  function modelCell(r) {
    const name = r.page ? el("a", { href: r.page, dir: "auto" }, r.name) : el("span", { dir: "auto" }, r.name);
    const about = [r.base && r.base !== r.name ? r.base : null, r.vocab, r.method, r.note].filter(Boolean).join(" · ");
    const box = el("input", { type: "checkbox", "aria-label": t("choose") + ": " + r.label, onchange: (e) => choose(r.id, e.target.checked) });
    box.checked = chosen.has(r.id);
    const head = el("th", { scope: "row", role: "rowheader", class: "model" }, el("div", { class: "who" }, box, el("div", { class: "names" }, el("span", { class: "name" }, name), about ? el("small", { dir: "auto" }, about) : null, badges(r)), copyLink("#row=" + encodeURIComponent(r.id), r.label)));
    return head;
  }
  function badges(r) {
    if (!r.badges.length) return null;
    return el("span", { class: "badges" }, r.badges.map(([kind, values, level]) => {
      const full = t("b_" + kind + "_text", values);
      return el("button", { type: "button", class: "badge " + level, "data-tip": full, "aria-label": full }, t("b_" + kind, values));
    }));
  }
  function settingCell(r, c) {
    return el("td", { role: "cell", class: "setting", "data-l": c.title() }, r.shots === 0 ? t("zero") : r.shots + "-shot", el("small", {}, t(r.mode)), r.thinking ? el("small", {}, t("thinking_" + r.thinking, { n: plain(r.budget) })) : null);
  }
  function scoreCell(r, c) {
    const v = score(c.key)(r);
    const cell = el("td", { role: "cell", class: c.cls, "data-l": c.title() });
    if (v === null) { cell.classList.add("lacking"); cell.append(el("span", { class: "none" }, "—")); return cell; }
    const [, low, high, delta, sure] = r.s[c.key];
    const number = el("span", { class: "value" }, v.toFixed(3));
    cell.append(number);
    if (low !== null) cell.title = t("interval", { v: v.toFixed(3), l: low.toFixed(3), h: high.toFixed(3) });
    if (delta !== undefined) {
      const how = sure === null ? t("untested") : sure ? t("significant") : t("chance");
      const sign = delta > 0 ? "+" : delta < 0 ? "−" : "±";
      const arrow = sure ? (delta > 0 ? "▲ " : "▼ ") : "";
      cell.append(el("span", { class: "delta" + (sure ? (delta > 0 !== board.lower.includes(c.key) ? " better" : " worse") : sure === null ? " untested" : ""), title: t("difference", { name: board.baseline, d: sign + Math.abs(delta).toFixed(3), how }) }, arrow + sign + Math.abs(delta).toFixed(3)));
    }
    if (low !== null) {
      if (c.key === "suite") cell.append(el("span", { class: "bounds" }, low.toFixed(3) + " – " + high.toFixed(3)));
      cell.append(whisker(el("span", { class: "whisker" }), v, low, high));
    } else if (c.key !== "suite" || r.published) {
      const dot = el("span", { class: "whisker lone" });
      cell.append(whisker(dot, v, v, v));
    }
    return cell;
  }

  // -- which rows ------------------------------------------------------------------------------------------------------
  const size = (r) => (r.params === null ? "unknown" : r.params < 1e9 ? "s" : r.params <= 8e9 ? "m" : "l");
  const fold = (s) => s.toLowerCase().replaceAll("ё", "е");
  const hay = new Map(board.rows.map((r) => [r.id, fold([r.label, r.base, r.note, r.id, r.mode].filter(Boolean).join(" "))]));
  function visible() {
    const words = fold(state.q).split(/\s+/).filter(Boolean);
    return board.rows.filter((r) =>
      words.every((w) => hay.get(r.id).includes(w)) && (!state.pool || r.pool === state.pool) &&
      (!state.set || (state.set === "zero" ? r.shots === 0 : state.set === "few" ? r.shots > 0 : state.set.startsWith("thinking-") ? r.thinking === state.set.slice(9) : r.mode === state.set)) &&
      (!state.size || size(r) === state.size) && (!state.voc || (r.vocab ?? "?") === state.voc) && (!state.only || chosen.has(r.id)));
  }
  function sorted(rows) {
    const { value } = byKey.get(state.sort), sign = state.dir === "d" ? -1 : 1;
    return [...rows].sort((a, b) => {
      const x = value(a), y = value(b);
      if (x === null || y === null || x === undefined || y === undefined) return (x == null) - (y == null);
      return sign * (typeof x === "string" ? x.localeCompare(y, undefined, { numeric: true }) : x - y);
    });
  }

  // -- table -----------------------------------------------------------------------------------------------------------
  function drawHead() {
    const cells = shownColumns().map((c) => {
      const on = state.sort === c.key;
      const button = el("button", { type: "button", onclick: () => sortBy(c) }, c.title(), el("span", { class: "arrow", "aria-hidden": "true" }, on ? (state.dir === "d" ? "↓" : "↑") : ""));
      return el("th", { scope: "col", role: "columnheader", class: (c.cls || "") + (c.key === "model" ? " model" : "") + (c.key === "rank" ? " rank" : ""), "aria-sort": on ? (state.dir === "d" ? "descending" : "ascending") : "none", "data-key": c.key }, button);
    });
    return el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, cells));
  }
  function sortBy(c) {
    if (state.sort === c.key) state.dir = state.dir === "d" ? "a" : "d";
    else { state.sort = c.key; state.dir = c.up ? "a" : "d"; }
    update();
    $("board").querySelector(`th[aria-sort="ascending"] button, th[aria-sort="descending"] button`)?.focus({ preventScroll: true });
  }
  // A long section is filled while the page can already be used.
  const AT_ONCE = 80;
  let filling = 0;
  const line = (r, cols) => el("tr", { role: "row", "data-id": r.id, class: [chosen.has(r.id) ? "picked" : "", r.id === wanted ? "wanted" : ""].join(" ").trim() || null }, cols.map((c) => c.cell(r, c)));
  function fill(late, cols) {
    const mine = ++filling;
    const step = () => {
      if (mine !== filling || !late.length) return;
      const [body, rest] = late[0];
      body.append(...rest.splice(0, AT_ONCE).map((r) => line(r, cols)));
      if (!rest.length) late.shift();
      setTimeout(step, 0);
    };
    setTimeout(step, 0);
  }
  function drawTable() {
    const rows = visible(), cols = shownColumns(), parts = [drawHead()], late = [];
    for (const pool of board.pools) {
      const mine = sorted(rows.filter((r) => r.pool === pool.id));
      if (!mine.length) continue;
      const title = el("tr", { role: "row", class: "pool" }, el("th", { role: "cell", colspan: cols.length, scope: "rowgroup" }, el("span", { class: "in" }, el("b", {}, t("pool_" + pool.kind, { title: pool.title })), " ", el("small", {}, t("pool_" + pool.kind + "_note")))));
      const body = el("tbody", { role: "rowgroup", class: pool.kind }, title, mine.slice(0, AT_ONCE).map((r) => line(r, cols)));
      if (mine.length > AT_ONCE) late.push([body, mine.slice(AT_ONCE)]);
      parts.push(body);
    }
    if (parts.length === 1) parts.push(el("tbody", {}, el("tr", {}, el("td", { colspan: cols.length, class: "nothing" }, t("no_rows")))));
    $("board").replaceChildren(...parts);
    if (among && late.some(([, rest]) => rest.some((r) => r.id === wanted))) for (const [body, rest] of late.splice(0)) body.append(...rest.map((r) => line(r, cols)));
    fill(late, cols);
    $("board").classList.toggle("wide", Boolean(state.tasks));
    $("status").textContent = t("shown", { n: rows.length, all: board.rows.length }) + (chosen.size ? " · " + t("chosen_n", { n: chosen.size }) : "");
  }

  // -- tools -----------------------------------------------------------------------------------------------------------
  function options(id, key, list) {
    const select = $(id);
    select.replaceChildren(...list.map(([value, label]) => el("option", { value }, label)));
    select.value = state[key];
    if (select.selectedIndex < 0) { state[key] = STATE[key]; select.value = STATE[key]; }
  }
  function drawTools() {
    options("pool", "pool", [["", t("all")], ...board.pools.map((p) => [p.id, t("pool_" + p.kind, { title: p.title })])]);
    const modes = [...new Set(board.rows.map((r) => r.mode))].sort();
    options("set", "set", [["", t("all")], ["zero", t("zero")], ["few", t("few")], ...modes.map((m) => [m, t(m)]), ...["off", "on"].filter((k) => board.rows.some((r) => r.thinking === k)).map((k) => ["thinking-" + k, t("set_thinking_" + k)])]);
    const sizes = new Set(board.rows.map(size));
    options("size", "size", [["", t("all")], ...["s", "m", "l", "unknown"].filter((s) => sizes.has(s)).map((s) => [s, t("sz_" + s)])]);
    const vocabs = [...new Set(board.rows.map((r) => r.vocab ?? "?"))].sort();
    options("voc", "voc", [["", t("all")], ...vocabs.map((v) => [v, v === "?" ? t("sz_unknown") : v])]);
    options("sort", "sort", columns.map((c) => [c.key, c.title()]));
    $("q").value = state.q;
    $("tasks").setAttribute("aria-pressed", String(Boolean(state.tasks)));
    $("only").setAttribute("aria-pressed", String(Boolean(state.only)));
    $("only").disabled = !chosen.size;
  }
  function choose(id, on) {
    on ? chosen.add(id) : chosen.delete(id);
    state.m = [...chosen].join(",");
    if (!chosen.size) state.only = "";
    if (state.only) return update();
    save();
    $("board").querySelector(`tr[data-id="${CSS.escape(id)}"]`)?.classList.toggle("picked", on);
    drawTools();
    drawChosen();
    drawFigure();
    $("status").textContent = t("shown", { n: visible().length, all: board.rows.length }) + " · " + t("chosen_n", { n: chosen.size });
  }
  const save = () => setHash(Object.fromEntries(Object.keys(STATE).map((k) => [k, state[k] === STATE[k] ? "" : state[k]])));
  function update() { save(); drawTools(); drawTable(); drawChosen(); drawFigure(); }

  // -- chosen side by side ---------------------------------------------------------------------------------------------
  function drawChosen() {
    const rows = board.rows.filter((r) => chosen.has(r.id));
    $("chosen").hidden = !rows.length;
    if (!rows.length) return;
    const lines = ["suite", ...groups.flatMap((g) => [g.name, ...g.tasks])].filter((k) => rows.some((r) => score(k)(r) !== null));
    const head = el("tr", {}, el("th", { scope: "col" }, t("task")), rows.map((r) => el("th", { scope: "col", class: "n" }, el("span", { dir: "auto" }, r.label))));
    const body = lines.map((k) => {
      const several = rows.filter((r) => score(k)(r) !== null).length > 1, sign = board.lower.includes(k) ? -1 : 1, best = sign * Math.max(...rows.map((r) => (score(k)(r) === null ? -Infinity : sign * score(k)(r))));
      return el("tr", { class: byKey.get(k).task ? "task" : "group" }, el("th", { scope: "row" }, byKey.get(k).title()), rows.map((r) => {
        const v = score(k)(r), s = r.s[k];
        return el("td", { class: "n" + (v !== null && v === best && several ? " best" : "") }, el("span", { class: "value" }, fixed(v, 3)), v !== null && s[1] !== null ? el("span", { class: "bounds" }, s[1].toFixed(3) + " – " + s[2].toFixed(3)) : null);
      }));
    });
    $("side").replaceChildren(el("thead", {}, head), el("tbody", {}, body));
    if (counted.length) draw("radar", "radar", rows.slice(0, 4).flatMap((r) => [...counted, counted[0]].map((g, i) => {
      const angle = (2 * Math.PI * i) / counted.length, v = score(g.name)(r) ?? 0;
      return { model: r.label, order: i, x: v * Math.sin(angle), y: v * Math.cos(angle), group: g.title, score: v };
    })));
  }

  // -- figures ---------------------------------------------------------------------------------------------------------
  let drawing = 0, library = null;
  const vega = () => (library ??= new Promise((done, fail) => {
    // The table comes first: the drawing library is large.
    const load = () => document.body.append(el("script", { src: "assets/vega.js", onload: () => done(window.vegaEmbed), onerror: fail }));
    setTimeout(load, board.rows.length > 200 ? 600 : 0);
  }));
  function config() {
    const css = getComputedStyle(document.documentElement), c = (n) => css.getPropertyValue(n).trim();
    const words = { labelColor: c("--ink"), titleColor: c("--ink") };
    return {
      bar: { color: c("--red") }, circle: { color: c("--red") }, rule: { color: c("--soft") },
      background: "transparent", font: "system-ui, sans-serif", view: { stroke: null }, text: { color: c("--ink") },
      axis: { ...words, gridColor: c("--line"), domain: false, ticks: false, labelLimit: innerWidth < 700 ? 110 : 340 },
      header: { labelColor: c("--ink"), labelFontWeight: "bold" }, legend: { ...words, labelLimit: 320 },
      range: { category: dark() ? ["#e8806f", "#79b4d1", "#e5b85c", "#9cc07a", "#bb93cf", "#c9ab97", "#7fc3b8", "#f0a3bb"] : ["#b3392b", "#2f6f8f", "#c58a1d", "#5b7f3b", "#7a4f8c", "#8a6d5a", "#3d7d74", "#c05f7e"] },
    };
  }
  async function draw(id, name, values) {
    const mine = (draw[id] = ++drawing), embed = await vega();
    if (draw[id] !== mine) return;
    const spec = structuredClone(board.figures[name]);
    spec.datasets = { ...spec.datasets, rows: values };
    if (innerWidth < 700 && (name === "symbols" || name === "thinking")) spec.width = innerWidth - 120;
    if (innerWidth < 700 && name === "radar") Object.assign(spec, { width: innerWidth - 80, height: innerWidth - 130 });
    if (innerWidth < 700 && name === "groups") { spec.columns = 1; spec.facet = spec.facet.column ?? spec.facet; spec.spec.width = innerWidth - 190; }
    const place = $(id);
    // ast: expressions are interpreted, so the page's policy needs no unsafe-eval.
    const view = await embed(el("div", {}), spec, { actions: false, ast: true, logLevel: 1, renderer: "svg", defaultStyle: false, config: config(), tooltip: { disableDefaultStyle: true } });
    if (draw[id] !== mine) return view.finalize();
    place.replaceChildren(view.view.container().closest("div.vega-embed") ?? view.view.container());
    place.querySelector("svg")?.setAttribute("role", "img");
  }
  const kinds = [...(counted.length ? ["groups", "symbols"] : []), ...(board.rows.some((r) => r.thinking) ? ["thinking"] : []), ...(counted.length ? ["heat"] : []), ...(board.curves.steps.length ? ["steps"] : []), ...(board.curves.tokens.length ? ["tokens"] : [])];
  if (!kinds.includes(state.fig)) state.fig = kinds[0] ?? "groups";
  function figureRows() {
    if (chosen.size) return [board.rows.filter((r) => chosen.has(r.id)), t("fig_chosen")];
    const rows = visible(), count = (p, n) => rows.filter((r) => r.pool === p.id).length >= n;
    // One model alone makes no figure: the first section with three, or else the first.
    const pool = board.pools.find((p) => count(p, 3) && p.kind !== "incomplete") ?? board.pools.find((p) => count(p, 1));
    if (!pool) return [[], ""];
    return [sorted(rows.filter((r) => r.pool === pool.id)).slice(0, 20), t("fig_first", { title: t("pool_" + pool.kind, { title: pool.title }) })];
  }
  function drawFigure() {
    $("figure").closest("section").hidden = !kinds.length;
    if (!kinds.length) return;
    $("tabs").replaceChildren(...kinds.map((k, i) => el("button", {
      type: "button", role: "tab", id: "tab-" + k, "aria-selected": String(k === state.fig), "aria-controls": "figure", tabindex: k === state.fig ? "0" : "-1",
      onclick: () => pick(k), onkeydown: (e) => { const d = { ArrowRight: 1, ArrowLeft: -1 }[e.key]; if (d) { pick(kinds[(i + d + kinds.length) % kinds.length]); $("tab-" + state.fig).focus(); } },
    }, t("f_" + k))));
    $("figure").setAttribute("aria-labelledby", "tab-" + state.fig);
    const [rows, what] = figureRows();
    const all = { model: (r) => r.label };
    const values = {
      groups: () => rows.flatMap((r) => counted.filter((g) => r.s[g.name]).map((g) => ({ model: all.model(r), group: g.title, score: r.s[g.name][0], low: r.s[g.name][1], high: r.s[g.name][2] }))),
      symbols: () => rows.filter((r) => r.spt[0] !== null && score("suite")(r) !== null).map((r) => ({ model: all.model(r), symbols: r.spt[0], score: r.s.suite[0], low: r.s.suite[1], high: r.s.suite[2] })),
      thinking: () => rows.filter((r) => r.thinking && r.cost && score("suite")(r) !== null).map((r) => ({ model: r.series.split(" · ")[0], series: r.series, budget: r.budget ?? 0, setting: r.budget ? plain(r.budget) : t("off"), tokens: r.cost.tokens, unfinished: r.cost.unfinished, score: r.s.suite[0], low: r.s.suite[1], high: r.s.suite[2] })),
      heat: () => rows.flatMap((r) => counted.flatMap((g) => g.tasks).filter((k) => r.s[k]).map((k) => ({ model: all.model(r), task: k, score: r.s[k][0] }))),
      steps: () => board.curves.steps, tokens: () => board.curves.tokens,
    }[state.fig]();
    const curve = state.fig === "steps" || state.fig === "tokens";
    $("figure-note").textContent = !values.length ? t("fig_none") : curve ? "" : t("fig_note", { n: new Set(values.map((v) => v.model)).size, what });
    if (values.length) draw("figure", state.fig, values);
    else { draw.figure = ++drawing; $("figure").replaceChildren(); }
  }
  function pick(k) { state.fig = k; save(); drawFigure(); }

  // -- events ----------------------------------------------------------------------------------------------------------
  $("tools").addEventListener("submit", (e) => e.preventDefault());
  let typing;
  $("q").addEventListener("input", (e) => { state.q = e.target.value; clearTimeout(typing); typing = setTimeout(update, 120); });
  for (const [id, key] of [["pool", "pool"], ["set", "set"], ["size", "size"], ["voc", "voc"]]) $(id).addEventListener("change", (e) => { state[key] = e.target.value; update(); });
  $("sort").addEventListener("change", (e) => { state.sort = e.target.value; state.dir = byKey.get(state.sort).up ? "a" : "d"; update(); });
  $("tasks").addEventListener("click", () => { state.tasks = state.tasks ? "" : "1"; update(); });
  $("only").addEventListener("click", () => { state.only = state.only ? "" : "1"; update(); });
  $("reset").addEventListener("click", () => { Object.assign(state, STATE); chosen.clear(); update(); });
  addEventListener("hashchange", () => { if (location.hash.includes("=")) location.reload(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { drawChosen(); drawFigure(); });
  // One explanation at a time, beside the badge that has focus or the pointer.
  const tip = el("div", { id: "tip", role: "tooltip", hidden: true });
  document.body.append(tip);
  const showTip = (badge) => {
    tip.textContent = badge.dataset.tip;
    tip.hidden = false;
    const box = badge.getBoundingClientRect();
    tip.style.left = Math.max(8, Math.min(box.left, innerWidth - tip.offsetWidth - 8)) + "px";
    tip.style.top = (box.bottom + tip.offsetHeight + 10 > innerHeight ? box.top - tip.offsetHeight - 6 : box.bottom + 6) + "px";
  };
  for (const kind of ["mouseover", "focusin", "click"]) document.addEventListener(kind, (e) => { const b = e.target.closest?.("[data-tip]"); if (b) showTip(b); else if (kind !== "focusin") tip.hidden = true; });
  document.addEventListener("keydown", (e) => { if (e.key === "Escape") tip.hidden = true; });
  addEventListener("scroll", () => { tip.hidden = true; }, { passive: true, capture: true });
  function showWanted() {
    // Rows of other tools' tasks have a table of their own.
    const row = [...document.querySelectorAll("tr[data-id]")].find((node) => node.dataset.id === wanted);
    if (!row) { $("status").textContent = t("no_such_row", { id: wanted }); return; }
    row.classList.add("wanted");
    row.scrollIntoView({ block: "center" });
  }
  if (among && !visible().some((r) => r.id === wanted)) Object.assign(state, { q: "", pool: "", set: "", size: "", voc: "", only: "" });
  let first = Boolean(wanted);
  onChange.push(() => { drawTools(); drawTable(); drawChosen(); drawFigure(); if (first) showWanted(); first = false; document.dispatchEvent(new Event("drawn")); });
})();
