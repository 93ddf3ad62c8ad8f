/** Next, back, and "3 of 6": through the page step by step, with buttons or with the keys N and B. */
function guide() {
  const steps = [...document.querySelectorAll("section:not([hidden])")];
  const names = steps.map((section) => find("h2", section).textContent);
  const where = el("span.where", { "aria-live": "polite" });
  const button = (label, text, by) => el("button", { type: "button", "aria-label": label, onclick: () => go(by) }, text);
  const [back, next] = [button("Back, key B", "◀", -1), button("Next, key N", "▶", 1)];
  find(".guide").replaceChildren(back, where, next);
  const now = () => steps.findLastIndex((section) => section.getBoundingClientRect().top < innerHeight * 0.35);
  function go(by) {
    const to = steps[Math.max(0, Math.min(steps.length - 1, now() + by))];
    to.scrollIntoView();
    const title = find("h2", to);
    title.tabIndex = -1;
    title.focus({ preventScroll: true });
  }
  function mark() {
    const at = now();
    where.textContent = at < 0 ? `${steps.length} steps` : `${at + 1} of ${steps.length} · ${names[at]}`;
    back.disabled = at <= 0;
    next.disabled = at >= steps.length - 1;
  }
  addEventListener("scroll", mark, { passive: true });
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.("input, textarea, select")) return;
    if (event.key === "n") go(1);
    if (event.key === "b") go(-1);
  });
  mark();
}
