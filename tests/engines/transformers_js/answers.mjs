// transformers.js under Node: `node answers.mjs PACKAGES REQUEST`. The request is JSON, [{folder, ids, answer, text}, …];
// what is printed last is JSON too, [{tokens, ids}, …]: the greedy answer, and the text's tokens by its tokenizer.
import { readFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { pathToFileURL } from "node:url";

const [packages, request] = process.argv.slice(2);
const entry = join(packages, "node_modules/@huggingface/transformers/dist/transformers.node.mjs");
const { AutoModelForCausalLM, AutoTokenizer, Tensor, env } = await import(pathToFileURL(entry));
env.allowRemoteModels = false;

const said = [];
for (const { folder, ids, answer, text } of JSON.parse(readFileSync(request, "utf8"))) {
  env.localModelPath = `${dirname(folder)}/`;
  const name = basename(folder);
  const model = await AutoModelForCausalLM.from_pretrained(name, { session_options: { intraOpNumThreads: 1 } });
  const input_ids = new Tensor("int64", BigInt64Array.from(ids, BigInt), [1, ids.length]);
  const attention_mask = new Tensor("int64", new BigInt64Array(ids.length).fill(1n), [1, ids.length]);
  const settings = { max_new_tokens: answer, do_sample: false, eos_token_id: -1 };
  const all = await model.generate({ input_ids, attention_mask, ...settings });
  const tokenizer = await AutoTokenizer.from_pretrained(name);
  const tokens = Array.from(all.data, Number).slice(ids.length);
  said.push({ tokens, ids: tokenizer.encode(text, { add_special_tokens: false }) });
  await model.dispose();
}
console.log(JSON.stringify(said));
