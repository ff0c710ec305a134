// Asked by llama_cpp.py: node llama_cpp.mjs REQUEST.json. Writes result.json, and probabilities, beside the request.
// Knows nothing of the studio. Ends when its standard input does, for then nobody waits for it.
import fs from "node:fs";
import path from "node:path";
import {pathToFileURL} from "node:url";

const request = JSON.parse(fs.readFileSync(process.argv[2], "utf8"));
const folder = path.dirname(process.argv[2]);
process.stdin.on("end", () => process.exit(3)).on("error", () => process.exit(3)).resume();

async function answered(llama, {file, ids, texts, conversations, answer}, number) {
    const model = await llama.loadModel({modelPath: file, gpuLayers: 0, vocabOnly: ids.length === 0});
    const tokens = texts.map((text) => Array.from(model.tokenize(text, true)));  // names of special tokens are those
    const ends = Array.from(model.iterateAllTokens()).filter((token) => model.isEogToken(token));
    const prompts = await rendered(model, conversations);
    if (ids.length === 0) {
        await model.dispose();
        return {tokens, prompts, ends, answer: []};
    }
    const contextSize = Math.max(256, ids.length + answer + 8);
    const context = await model.createContext({contextSize, threads: request.threads});
    const sequence = context.getSequence();
    const steps = await sequence.controlledEvaluate(ids.map((id) => [id, {generateNext: {probabilities: true}}]));
    const vocabulary = steps[0].next.probabilities.size;
    const all = new Float32Array(ids.length * vocabulary);
    steps.forEach((step, row) => {  // a map in the order of likelihood, from token to probability
        for (const [token, probability] of step.next.probabilities) all[row * vocabulary + token] = probability;
    });
    fs.writeFileSync(path.join(folder, `${number}.f32`), Buffer.from(all.buffer));
    await sequence.clearHistory();
    const words = [];
    if (answer > 0)
        for await (const token of sequence.evaluate(ids, {temperature: 0}))
            if (words.push(token) >= answer) break;
    await model.dispose();
    return {tokens, prompts, ends, answer: words};
}

async function rendered(model, conversations) {  // with the library by which node-llama-cpp reads a file's template
    if (conversations.length === 0) return [];
    const {Template} = await import(pathToFileURL(path.join(request.modules, "@huggingface", "jinja", "dist", "index.js")).href);
    const template = new Template(model.fileInfo.metadata.tokenizer.chat_template);
    const special = {bos_token: model.tokens.bosString ?? "", eos_token: model.tokens.eosString ?? ""};
    return conversations.map((messages) => template.render({messages, add_generation_prompt: true, ...special}));
}

const results = [];
try {
    const library = path.join(request.modules, "node-llama-cpp", "dist", "index.js");
    const {getLlama} = await import(pathToFileURL(library).href);
    const llama = await getLlama({gpu: false, build: "never", skipDownload: true, progressLogs: false, logger: () => {}});
    for (const [number, question] of request.questions.entries()) results.push(await answered(llama, question, number));
} catch (error) {
    results.push({error: String(error?.message ?? error)});
}
fs.writeFileSync(path.join(folder, "result.json"), JSON.stringify(results));
process.exit(0);
