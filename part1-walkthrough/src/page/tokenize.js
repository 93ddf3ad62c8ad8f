function tokenizeStep() {
  const text = tokens.filter((token) => !token.special);
  const bytes = text.reduce((sum, token) => sum + token.bytes.length, 0);
  const marks = text.length < L ? ` and ${many(L - text.length, "mark")}` : "";
  fill("#tokenize .shape", `${many(bytes, "byte")} of text${marks} → ids [L] = [${L}]   ·   vocabulary V = ${count(model.vocabulary)}   ·   ${fixed(bytes / Math.max(1, text.length), 2)} bytes per piece of text`);
  const hex = (token) => token.bytes.map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
  const cards = tokens.map((token, position) => {
    const shown = token.bytes.length > 8 ? `${hex({ bytes: token.bytes.slice(0, 8) })} …` : hex(token);
    const card = tokenButton(position, piece(token.piece),
      el("span.id", {}, String(token.id)), el("span.bytes", {}, shown || "no bytes"));
    card.addEventListener("pointerenter", () => describe(position));
    card.addEventListener("focus", () => describe(position));
    return card;
  });
  const group = find("#tokenize .cards");
  group.replaceChildren(...cards);
  group.addEventListener("pointerleave", () => describe(state.token));
  roving(group, cards, 1e9);

  function describe(position) {
    const token = tokens[position];
    const leading = token.piece.startsWith("␣") ? " It begins with a space." : "";
    const kind = token.special ? "A mark: one id wherever it comes from, the chat template or a keyboard." : `${many(token.bytes.length, "byte")}: ${hex(token)}.${leading}`;
    fill("#tokenize .detail", `Token ${position}: `, piece(token.piece), ` is id ${token.id}, spelled `,
      piece(token.spelling), ` in the vocabulary. ${kind}`);
  }
  watch(() => {
    describe(state.token);
    follow(cards);
  });
}

/** Marks the token that is followed among buttons, one per position. */
function follow(buttons) {
  buttons.forEach((button, position) => button.setAttribute("aria-pressed", position === state.token));
}
