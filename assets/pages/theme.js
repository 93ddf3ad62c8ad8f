/** Redrawn when light and dark change: pictures that have their colours painted in. */
const themeWatchers = [];

function theme() {
  const button = find(".theme");
  const modes = [["", "◐", "as the system has them"], ["light", "☀", "light"], ["dark", "☾", "dark"]];
  let mode = 0;
  const apply = () => {
    const [name, sign, label] = modes[mode];
    if (name) document.documentElement.dataset.theme = name;
    else delete document.documentElement.dataset.theme;
    button.textContent = sign;
    button.setAttribute("aria-label", `Colours: ${label}`);
    button.title = `Colours: ${label}`;
    for (const redraw of themeWatchers) redraw();
  };
  button.addEventListener("click", () => {
    mode = (mode + 1) % modes.length;
    apply();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", apply);
  apply();
}
