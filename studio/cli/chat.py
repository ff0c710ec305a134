"""``chat``: one answer of one model. Knows nothing of how it is made."""

from contextlib import closing
from typing import Annotated

import typer

from studio.base.errors import PromptError
from studio.cli.opened import fetch
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
        from studio.chat.answer import Reply
        from studio.chat.answers import Answers
        from studio.cli.report import answer_facts, speed
        from studio.runtime.decoder import KV_BITS
        from studio.runtime.sampling import Sampling
        from studio.session.compressed_folder import compressed_folder
        from studio.session.session import Session

        if kv_bits not in KV_BITS:
            raise PromptError("unknown_kv_bits", bits=kv_bits, choices=", ".join(map(str, KV_BITS)))
        with closing(Session(paths=True, max_prompt=None)) as session:
            folder = compressed_folder(model)
            if folder is None:
                fetch(here, session, model)
            else:
                session.copy.place(folder)
            sampling = Sampling(max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, seed=seed)
            reply, info = Reply(), None
            for step in session.chat(prompt, sampling, system, kv_bits):
                if isinstance(step, Answers):
                    here.stream(step.replies[0].text[len(reply.text) :])
                    reply, info = step.replies[0], step.infos[0]
        if reply.error is not None:
            raise reply.error
        assert info is not None
        facts = {"model": model} | answer_facts(info, reply)
        here.answer(facts)
        if not as_json:
            here.note(speed(facts))
