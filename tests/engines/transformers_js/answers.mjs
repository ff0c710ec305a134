// transformers.js under Node: `node answers.mjs PACKAGES REQUEST`. What is printed last is the replies, as JSON.
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import { answers } from "./asking.mjs";

const [packages, request] = process.argv.slice(2);
const entry = join(packages, "node_modules/@huggingface/transformers/dist/transformers.node.mjs");
const library = await import(pathToFileURL(entry));
const asked = JSON.parse(readFileSync(request, "utf8"));
const options = { session_options: { intraOpNumThreads: 1 } };
console.log(JSON.stringify(await answers(library, `${dirname(asked[0].folder)}/`, asked, options)));
