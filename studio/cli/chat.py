"""``chat``: one answer of one model."""

from typing import Annotated

import typer

from studio.base.errors import PromptError
from studio.base.typed_paths import typed_path
from studio.cli.opened import fetched
from studio.cli.options import AsJson, app
from studio.cli.terminal import say, terminal


@app.command(help=say("help_chat"))
def chat(
    model: Annotated[str, typer.Argument(metavar="MODEL_OR_DIR", help=say("help_chat_model"), show_default=False)],
    prompt: Annotated[str, typer.Option("--prompt", help=say("help_prompt"), show_default=False)],
    max_new_tokens: Annotated[int, typer.Option(min=1, help=say("help_max_new_tokens"))] = 64,
    temperature: Annotated[float, typer.Option(min=0, max=100, help=say("help_temperature"))] = 0.0,
    top_p: Annotated[float, typer.Option(min=0, max=1, help=say("help_top_p"))] = 1.0,
    seed: Annotated[int, typer.Option(min=0, max=(1 << 63) - 1, help=say("help_seed"))] = 0,
    system: Annotated[str, typer.Option(help=say("help_system"), show_default=False)] = "",
    kv_bits: Annotated[int, typer.Option("--kv-bits", help=say("help_kv_bits"))] = 16,
    as_json: AsJson = False,
) -> None:
    with terminal(as_json) as here:
        if not prompt.strip():  # before a model is loaded for nothing
            raise PromptError("empty_prompt")
        here.starting()
        from studio.chat.answer import Reply, answer
        from studio.chat.columns import compressed_column, original_column
        from studio.checkpoint.checkpoint import read_json
        from studio.checkpoint.config import check_can_chat, load_config
        from studio.checkpoint.file_names import CONFIG
        from studio.checkpoint.recipe import is_compressed
        from studio.cli.report import answer_facts, speed
        from studio.runtime.decoder import KV_BITS
        from studio.runtime.sampling import Sampling
        from studio.session.session import POOL

        if kv_bits not in KV_BITS:
            raise PromptError("unknown_kv_bits", bits=kv_bits, choices=", ".join(map(str, KV_BITS)))
        folder = typed_path(model)
        if is_compressed(folder):
            check_can_chat(load_config(read_json(folder / CONFIG)))
        column = compressed_column(folder) if is_compressed(folder) else original_column(fetched(here, model))
        messages = [{"role": "system", "content": system}] if system.strip() else []
        messages.append({"role": "user", "content": prompt})
        sampling = Sampling(max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, seed=seed)
        reply = Reply()
        POOL.make_room(column.need)
        loaded = column.open()
        for step in answer(loaded, messages, sampling, kv_bits):
            here.stream(step.text[len(reply.text) :])
            reply = step
        facts = {"model": model} | answer_facts(loaded, reply)
        here.answer(facts)
        if not as_json:
            here.note(speed(facts))
