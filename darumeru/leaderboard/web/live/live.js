"use strict";
// Put into pages by `darumeru leaderboard --serve`: loads a page again when the board behind it was built anew, and puts the
// reader back where they were. What is chosen, sorted and searched stands in the address anyway.
(() => {
  const mine = document.currentScript.dataset.version, POLL = 1500, CALM = 1200, KEY = "darumeru-place";
  const badge = document.createElement("p");
  badge.className = "live";
  badge.setAttribute("role", "status");
  document.querySelector(".knobs").before(badge);
  let now = null, lost = false, touched = 0;
  function tell() {
    badge.classList.toggle("lost", lost || Boolean(now?.failed));
    const running = (now?.running || []).map((r) => t("live_running", { name: r.name, n: r.answers })).join("; ");
    badge.textContent = lost ? t("live_lost") : now === null ? t("live") : t(now.failed ? "live_failed" : "live_built", { at: now.built }) + (running ? " · " + running : "");
  }
  onChange.push(tell);

  // -- the reader's place ------------------------------------------------------------------------------------------------
  const marks = () => [...document.querySelectorAll("main [data-id], main [id]")];
  const nameOf = (node) => node.dataset.id ?? node.id;
  const find = (name) => marks().find((node) => nameOf(node) === name);
  const details = () => [...document.querySelectorAll("main details")].map((node) => [node.closest("[id], [data-id]"), node]);
  /** A name for a `details`: the nearest thing with a name, and which of its own it is. */
  function folded() {
    const seen = new Map();
    return details().map(([near, node]) => {
      const name = near ? nameOf(near) : "", n = seen.get(name) ?? 0;
      seen.set(name, n + 1);
      return [name + " " + n, node];
    });
  }
  function place() {
    // What is nearest to the top of the window, and how far from it.
    const inside = scrollY < 40 ? [] : marks().map((node) => [node, node.getBoundingClientRect()]).filter(([, box]) => box.height > 0 && box.bottom > 0 && box.top < innerHeight);
    const [node, box] = inside.reduce((best, one) => (best && Math.abs(best[1].top) <= Math.abs(one[1].top) ? best : one), null) ?? [null, null];
    const field = document.activeElement?.id ? document.activeElement : null;
    return {
      href: location.href, y: scrollY, mark: node && nameOf(node), top: box && box.top,
      sideways: [...document.querySelectorAll(".scroll")].map((s) => s.scrollLeft),
      open: folded().filter(([, d]) => d.open).map(([name]) => name), field: field?.id, caret: field?.type === "search" ? field.selectionStart : null,
    };
  }
  let kept = null;
  try { kept = JSON.parse(sessionStorage.getItem(KEY)); sessionStorage.removeItem(KEY); } catch { /* private mode */ }
  if (kept?.href !== location.href) kept = null;
  const align = () => {
    if (kept === null || touched) return;
    const node = kept.mark === null ? null : find(kept.mark);
    scrollTo({ top: node ? scrollY + node.getBoundingClientRect().top - kept.top : kept.y, behavior: "instant" });
  };
  function restore() {
    if (kept === null) return;
    for (const [name, node] of folded()) if (kept.open.includes(name)) node.open = true;
    document.querySelectorAll(".scroll").forEach((s, i) => { s.scrollLeft = kept.sideways[i] ?? 0; });
    const field = kept.field && document.getElementById(kept.field);
    if (field) {
      field.focus({ preventScroll: true });
      if (kept.caret !== null) field.setSelectionRange(kept.caret, kept.caret);
    }
    align();
  }
  if (kept !== null) {
    history.scrollRestoration = "manual";
    document.addEventListener("DOMContentLoaded", restore);
    document.addEventListener("drawn", restore, { once: true });
    // Figures come late, above or below.
    const sizes = new ResizeObserver(align);
    sizes.observe(document.body);
    setTimeout(() => { sizes.disconnect(); kept = null; history.scrollRestoration = "auto"; }, 4000);
  }
  for (const kind of ["keydown", "pointerdown", "wheel", "touchmove"]) addEventListener(kind, () => { touched = Date.now(); }, { passive: true, capture: true });

  // -- whether there is something newer ----------------------------------------------------------------------------------
  const busy = () => Date.now() - touched < CALM || !getSelection().isCollapsed || document.activeElement?.tagName === "SELECT" && Date.now() - touched < 10 * CALM;
  function reload() {
    if (busy()) return;
    try { sessionStorage.setItem(KEY, JSON.stringify(place())); } catch { /* private mode: the page begins at its top */ }
    location.reload();
  }
  function ask() {
    const next = () => { node.remove(); tell(); setTimeout(ask, POLL); };
    const node = el("script", {
      src: "/now.js?" + new URLSearchParams({ page: location.pathname, at: Date.now() }),
      onload: () => {
        lost = false;
        now = store.get("live");
        if (now.version && now.version !== mine) reload();
        next();
      },
      onerror: () => { lost = true; next(); },
    });
    document.body.append(node);
  }
  addEventListener("load", () => setTimeout(ask, 200));
})();
