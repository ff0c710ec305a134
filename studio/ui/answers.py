"""The chat's columns in words and marks, pure. Everything that a model or a visitor wrote is escaped here."""

import re
from collections.abc import Sequence
from html import escape

import plotly.graph_objects as go

from studio.base.text import text
from studio.base.units import format_bytes
from studio.chat.answer import ModelInfo, Reply
from studio.chat.answers import Answers
from studio.chat.conversation import Turn
from studio.chat.divergence import Divergence
from studio.chat.judge import Judged, ReferenceScore
from studio.chat.roofline import Phase, bytes_of_a_token, decode_limit, device_of, figures_of, phases, step_weights
from studio.runtime.decoder import KV_BITS
from studio.runtime.machine import Machine, known
from studio.session.session import Session
from studio.ui.html import notice, table
from studio.ui.markdown import CLOSES, OPENS, markdown, plain
from studio.ui.roofline import in_words, roofline

Bubble = dict[str, str]
"""``{"role": "user", "content": "…"}``"""
BATCHES = (1, 4, 16)
SHADES = (0.02, 0.1, 0.3, 0.6)
"""Probabilities at which a token's shade changes, the least likely being the darkest."""
MAX_ROWS = 400


def bubbles(turns: Sequence[Turn], column: int, language: str) -> list[Bubble]:
    """Return a column as the chat component takes it.

    It takes HTML, also with its Markdown switched off; escaped, what a model or a visitor wrote is shown as it is and
    can neither draw over the page nor make the browser fetch anything.
    """
    said: list[Bubble] = []
    for turn in turns:
        answers = turn.answers
        if column < len(answers.replies) and (answers.replies[column].tokens or answers.is_compressed_only):
            said += turn_bubbles(turn.prompt, answers, column, language)
    return said


def turn_bubbles(prompt: str, answers: Answers, column: int, language: str) -> list[Bubble]:
    """Return one turn in a column: the message, and the answer as far as it has come."""
    asked: Bubble = {"role": "user", "content": escape(prompt, quote=False)}
    reply = answers.replies[column]
    if column == 0 and answers.reference_score is not None:
        content = _judged_text(answers.reference_score, language)
    elif answers.divergence is not None:
        content = _marked(
            reply.text,
            answers.divergence.places[column],
            " ".join(divergence_words(answers.divergence, column, language)),
        )
    elif (place := differing_word(answers, column)) is not None:
        content = _marked(reply.text, place, text("part.words", language))
    else:
        content = markdown(reply.text)
    return [asked, {"role": "assistant", "content": content}] if content else [asked]


def differing_word(answers: Answers, column: int) -> tuple[int, int] | None:
    """Return where the first other word stands of answers that were given to different conversations.

    None where they were given to the same one, which is compared token by token, or no difference is known yet.
    """
    if answers.is_compared or answers.is_compressed_only or len(answers.replies) < 2 or None in answers.infos:
        return None
    said, other = answers.replies[column].text, answers.replies[1 - column].text
    start = next((i for i, (a, b) in enumerate(zip(said, other, strict=False)) if a != b), min(len(said), len(other)))
    if start == min(len(said), len(other)) and (said == other or not all(reply.ended for reply in answers.replies)):
        return None
    while start and not said[start - 1].isspace() and said[start - 1].isascii():
        start -= 1
    following = re.compile(r"\s*\S*").match(said, start)
    return start, following.end() if following else start


def _marked(words: str, place: tuple[int, int], title: str) -> str:
    """Return text with the token at ``place`` marked: one of blanks with the next word, the end as a sign."""
    start, end = place
    if not words[start:end].strip():
        following = re.compile(r"\s*\S*").match(words, start)
        end = max(end, following.end() if following else end)
    token = words[start:end]
    blank, shown = token[: len(token) - len(token.lstrip())], token.strip() or "⏹"
    opening = f'<mark class="parts" tabindex="0" title="{escape(title)}">'
    html = markdown(f"{plain(words[:start])}{blank}{OPENS}{plain(shown)}{CLOSES}{plain(words[end:])}")
    return html.replace(OPENS, opening).replace(CLOSES, "</mark>")


def _judged_text(reference_score: ReferenceScore, language: str) -> str:
    """Return the answer, each token shaded by what the original gives it, the first it would not have said marked."""
    pieces = []
    for i, token in enumerate(reference_score.tokens):
        words = reference_score.text[slice(*token.place)]
        title = escape(_judged_words(token, language))
        if i == reference_score.first_difference:
            shown = escape(words, quote=False) if words.strip() else f"⏹{words}"
            pieces.append(f'<mark class="parts" tabindex="0" title="{title}">{shown}</mark>')
        elif words:
            shade = sum(token.probabilities[0] < limit for limit in SHADES)
            pieces.append(f'<span class="seen seen-{shade}" title="{title}">{escape(words, quote=False)}</span>')
    return "".join(pieces)


def _judged_words(token: Judged, language: str) -> str:
    original, compressed = (f"{p:.1%}" for p in token.probabilities)
    said = text("part.judged", language, original=original, compressed=compressed, kl=f"{token.kl_divergence:.3f}")
    if token.is_best:
        return said
    best = text("part.instead", language, word=word(token.best, language), probability=f"{token.best_probability:.1%}")
    return f"{said} {best}"


def word(token: str, language: str) -> str:
    """Return a token's text in quotation marks, blanks made visible; words for one that ends the answer."""
    if not token:
        return text("part.end", language)
    if not token.strip("\ufffd "):  # some bytes of a character that others complete
        return text("part.piece", language)
    return "“" + token.strip(" ").replace("\n", "⏎").replace("\t", "⇥") + "”" if token.strip(" ") else "“␣”"


def divergence_words(divergence: Divergence, column: int, language: str) -> tuple[str, str]:
    """Return where the answers part, and what the other column says there."""
    lines = []
    for key, at in (("part.here", column), ("part.there", 1 - column)):
        original, compressed = (f"{given[at]:.1%}" for given in divergence.probabilities)
        lines.append(
            text(key, language, word=word(divergence.words[at], language), original=original, compressed=compressed)
        )
    return lines[0], lines[1]


def figures(answers: Answers, column: int, language: str) -> str:
    """Return what stands beneath a column: its figures, which way they came about, and where the answers part."""
    reply, info = answers.replies[column], answers.infos[column]
    if reply.error is not None:
        return notice(reply.error.sentence(language), "error")
    if column == 0 and answers.is_compressed_only:
        return _opinion(answers.reference_score, language)
    held = "–" if info is None else format_bytes(info.weight_bytes)
    if not reply.tokens or info is None:
        return f'<p class="stats">{escape(text("chat.stats_waiting", language, memory=held))}</p>'
    speed = f"{reply.tokens_per_second:.1f}" if reply.tokens > 1 else "–"
    words = [
        text("chat.stats", language, speed=speed, first=f"{reply.first_token_seconds:.2f}", memory=held),
        text("chat.stats_tokens", language, tokens=reply.tokens),
    ]
    if reply.ended == "length":
        words.append(text("chat.ended_length", language))
    lines = f'<p class="stats">{escape(" · ".join(words))}</p>'
    lines += f'<p class="stats more">{" · ".join(_more(info, reply, language))}</p>'
    if answers.is_slow[column]:
        lines += f'<p class="hint">{escape(text("chat.slow", language))}</p>'
    if answers.divergence is not None:
        here, there = divergence_words(answers.divergence, column, language)
        lines += f'<p class="parting"><b>{escape(here)}</b> {escape(there)}</p>'
    elif column == 1 and len(answers.replies) > 1 and not answers.is_compared and None not in answers.infos:
        lines += f'<p class="hint">{escape(text("part.histories", language))}</p>'
    elif answers.is_compared and all(each.ended for each in answers.replies):
        lines += f'<p class="hint">{escape(text("part.nowhere", language))}</p>'
    return lines


def _more(info: ModelInfo, reply: Reply, language: str) -> list[str]:
    """Return the prompt's speed, the cache, the share of the limit and the way, as escaped words."""
    words = []
    read = reply.prompt_tokens - reply.kept_tokens
    if read >= 1 and reply.prompt_tokens_per_second:
        words.append(
            escape(text("chat.stats_prompt", language, tokens=read, speed=f"{reply.prompt_tokens_per_second:.0f}"))
        )
    if reply.kept_tokens:
        words.append(escape(text("chat.stats_kept", language, tokens=reply.kept_tokens)))
    words.append(escape(text("chat.stats_kv", language, bytes=format_bytes(reply.kv_bytes), bits=reply.kv_bits)))
    machine = known(device_of(info))
    if machine is not None and reply.tokens > 1:
        limit = decode_limit(info, reply, machine)
        share = text("chat.stats_limit", language, share=f"{reply.tokens_per_second / limit:.0%}", limit=f"{limit:.0f}")
        why = text(
            "chat.stats_limit_why",
            language,
            bandwidth=f"{machine.bandwidth / 1e9:.0f}",
            bytes=format_bytes(bytes_of_a_token(info, reply)),
        )
        words.append(f'<span title="{escape(why)}">{escape(share)}</span>')
    way = text(f"chat.way_{info.backend.value}", language)
    words.append(escape(f"{way} ({text(f'chat.why_{info.reason}', language)})" if info.reason else way))
    return words


def _opinion(reference_score: ReferenceScore | None, language: str) -> str:
    """Return what the original says of an answer it was not there for."""
    if reference_score is None:
        return f'<p class="hint">{escape(text("part.alone", language))}</p>'
    agreed = sum(token.is_best for token in reference_score.tokens)
    said = text(
        "part.opinion",
        language,
        kl=f"{reference_score.kl_divergence:.3f}",
        agreed=agreed,
        tokens=len(reference_score.tokens),
    )
    lines = f'<p class="stats">{escape(said)}</p>'
    if reference_score.first_difference is not None:
        first = reference_score.tokens[reference_score.first_difference]
        here = text("part.first", language, word=word(reference_score.text[slice(*first.place)], language))
        lines += f'<p class="parting"><b>{escape(here)}</b> {escape(_judged_words(first, language))}</p>'
    columns = [text(f"part.column_{name}", language) for name in ("token", "original", "compressed", "kl")]
    rows = [
        (
            word(reference_score.text[slice(*token.place)], language),
            f"{token.probabilities[0]:.1%}",
            f"{token.probabilities[1]:.1%}",
            f"{token.kl_divergence:.3f}",
        )
        for token in reference_score.tokens[:MAX_ROWS]
    ]
    summary = escape(text("part.table", language))
    return lines + f"<details><summary>{summary}</summary>{table(columns, rows)}</details>"


def speed(session: Session, answers: Answers | None, language: str) -> str:
    """Return where the phases of these answers stand on this machine, in words."""
    return in_words(*_phases(session, answers), language)


def speed_chart(session: Session, answers: Answers | None, language: str) -> go.Figure | None:
    """Return the same as a figure, None while there is nothing to show."""
    found, machine = _phases(session, answers)
    return roofline(found, machine, language) if found and machine is not None else None


def _phases(session: Session, answers: Answers | None) -> tuple[list[Phase], Machine | None]:
    """Return the phases of these answers on this machine, and the machine once it was measured."""
    infos = [] if answers is None else [info for info in answers.infos if info is not None]
    machine = known(device_of(infos[-1])) if infos else None
    if answers is None or machine is None or session.checkpoint is None:
        return [], None
    config = figures_of(session.checkpoint)
    weights = step_weights(session.checkpoint.layers, config.called_experts if config else None)
    found = [
        phase
        for column, (info, reply) in enumerate(zip(answers.infos, answers.replies, strict=True))
        if info is not None and device_of(info) == device_of(infos[-1])
        for phase in phases(column, info, reply, weights, machine)
    ]
    return found, machine


def cache_table(session: Session, language: str) -> str:
    """Return what keys and values take at 16, 8 and 4 bits: now, and at the whole context for several texts at once."""
    config = None if session.checkpoint is None else figures_of(session.checkpoint)
    if config is None or config.cache is None:
        return f'<p class="hint">{escape(text("kv.unknown", language))}</p>'
    last = session.conversation.last
    replies = last.answers.replies if last is not None else ()
    now = max((reply.prompt_tokens + reply.tokens for reply in replies), default=0)
    lines = [(text("kv.now", language, tokens=f"{now:,}"), now, 1)]
    if config.context is not None:
        whole = f"{config.context:,}"
        lines += [(text("kv.whole", language, tokens=whole, batch=n), config.context, n) for n in BATCHES]
    columns = [text("kv.texts", language), *(text("chat.kv_bits_choice", language, bits=bits) for bits in KV_BITS)]
    rows = [
        (name, *(format_bytes(batch * config.cache.nbytes(positions, bits)) for bits in KV_BITS))
        for name, positions, batch in lines
    ]
    return table(columns, rows) + f'<p class="hint">{escape(text("kv.hint", language))}</p>'


def pane_switch(language: str) -> str:
    """Return the two buttons that say which column is in sight on a phone."""
    names = {name: escape(text(f"chat.{name}", language)) for name in ("original", "compressed")}
    buttons = "".join(
        f'<button type="button" data-pane="{name}" aria-pressed="{str(name == "original").lower()}">{said}</button>'
        for name, said in names.items()
    )
    return f'<div class="panes" role="group" aria-label="{escape(text("chat.panes", language))}">{buttons}</div>'


def kv_choices(language: str) -> list[tuple[str, int]]:
    """Return what keys and values can be kept at."""
    return [(text("chat.kv_bits_choice", language, bits=bits), bits) for bits in KV_BITS]
