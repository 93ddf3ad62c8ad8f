/**
 * Back, play, next, and where one is: `show(at, length)` draws a picture of a series. Nothing moves by
 * itself: whoever wants it to move presses Play.
 */
function player(what, show, pause = 900) {
  let [at, length, timer] = [0, 0, null];
  const where = el("output.where", { "aria-live": "polite" });
  const button = (label, text, act) => el("button", { type: "button", "aria-label": `${what}: ${label}`, onclick: act }, text);
  const back = button("back", "◀", () => { stop(); go(at - 1); });
  const next = button("next", "▶", () => { stop(); go(at + 1); });
  const play = el("button.main.play", { type: "button", onclick: () => (timer === null ? start() : stop()) }, "Play");
  function stop() {
    clearInterval(timer);
    timer = null;
    play.textContent = "Play";
  }
  function start() {
    if (at >= length - 1) go(0);
    play.textContent = "Stop";
    timer = setInterval(() => (at < length - 1 ? go(at + 1) : stop()), pause);
  }
  function go(to) {
    at = Math.max(0, Math.min(length - 1, to));
    back.disabled = at === 0;
    next.disabled = at >= length - 1;
    where.textContent = `${at + 1} of ${length}`;
    show(at, length);
  }
  /** Another series of so many pictures; it begins at its first or last one. */
  function series(count, from = 0) {
    stop();
    length = Math.max(1, count);
    play.hidden = length < 2;
    go(from < 0 ? length - 1 : from);
  }
  return { node: el("div.player", { role: "group", "aria-label": what }, back, play, next, where), series, go };
}
