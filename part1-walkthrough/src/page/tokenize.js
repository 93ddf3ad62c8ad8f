function tokenizeStep() {
  const bytes = tokens.reduce((sum, token) => sum + token.bytes.length, 0);
  fill("#tokenize .shape", `${count(bytes)} bytes → ids [L] = [${L}]   ·   vocabulary V = ${count(model.vocabulary)}   ·   ${fixed(bytes / L, 2)} bytes per token`);
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
    const kind = token.special ? "A mark of the chat template, no text." : `${token.bytes.length} bytes: ${hex(token)}.${leading}`;
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
