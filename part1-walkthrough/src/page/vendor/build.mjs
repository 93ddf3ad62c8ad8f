// Makes plot.min.js and LICENSES.txt from the packages that package-lock.json pins:
//
//     npm ci && node build.mjs
//
// The page is built from the committed files; only a new version of the library needs this.

import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { build } from "esbuild";

const { metafile } = await build({
  entryPoints: ["entry.js"],
  outfile: "plot.min.js",
  bundle: true,
  minify: true,
  format: "iife",
  globalName: "Plot",
  legalComments: "none", // all licences are in LICENSES.txt, which the page carries
  metafile: true,
});

const bundled = Object.values(metafile.outputs)[0].inputs;
const packages = new Set(
  Object.entries(bundled)
    .filter(([, { bytesInOutput }]) => bytesInOutput > 0)
    .map(([file]) => file.match(/^(.*node_modules\/(?:@[^/]+\/)?[^/]+)\//)?.[1])
    .filter(Boolean),
);
const notices = [...packages].sort().map((folder) => {
  const { name, version, license } = JSON.parse(readFileSync(`${folder}/package.json`));
  const file = readdirSync(folder).find((entry) => /^licen[cs]e/i.test(entry));
  if (!file) throw new Error(`${name} has no licence file`);
  return `${name} ${version} (${license})\n\n${readFileSync(`${folder}/${file}`, "utf8").trim()}\n`;
});
writeFileSync("LICENSES.txt", notices.join(`\n${"-".repeat(72)}\n\n`));
