// What transformers.js is asked of each folder, [{folder, ids, answer, text, chat}, …]; returns, of each, {tokens, ids,
// chat}: the greedy answer, the text's tokens by the folder's tokenizer, and a conversation as its template writes it.
// The folders lie in one that is served as `place`.
export async function answers(library, place, asked, options) {
  const { AutoModelForCausalLM, AutoTokenizer, Tensor, env } = library;
  env.allowRemoteModels = false;
  env.localModelPath = place;
  const said = [];
  for (const { folder, ids, answer, text, chat } of asked) {
    const name = folder.split("/").at(-1);
    const model = await AutoModelForCausalLM.from_pretrained(name, options);
    const input_ids = new Tensor("int64", BigInt64Array.from(ids, BigInt), [1, ids.length]);
    const attention_mask = new Tensor("int64", new BigInt64Array(ids.length).fill(1n), [1, ids.length]);
    const settings = { max_new_tokens: answer, do_sample: false, eos_token_id: -1 };
    const all = await model.generate({ input_ids, attention_mask, ...settings });
    const tokenizer = await AutoTokenizer.from_pretrained(name);
    const tokens = Array.from(all.data, Number).slice(ids.length);
    said.push({
      tokens,
      ids: tokenizer.encode(text, { add_special_tokens: false }),
      chat: tokenizer.apply_chat_template(chat, { tokenize: false, add_generation_prompt: true }),
    });
    await model.dispose();
  }
  return said;
}
