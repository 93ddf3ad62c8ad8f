// The marks that the page draws with; nothing else of the library is bundled.
export {
  areaY, barX, cell, dot, line, link, plot, pointer, pointerX, ruleX, ruleY, stackX, text, tip,
} from "@observablehq/plot";
